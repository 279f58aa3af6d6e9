#!/bin/bash
# One recipe on several nodes of several GPUs: sbatch examples/slurm.sh RECIPE
#
# The run's folder (runs/NAME below the place where you call sbatch), the data and the Python
# environment must be on a file system that all nodes see. Submit it again after a time limit: it
# goes on from the last checkpoint.
#SBATCH --job-name=palate
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
set -euo pipefail

recipe=${1:?usage: sbatch examples/slurm.sh RECIPE}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Slurm sends SIGTERM 600 seconds before the limit; the ranks finish their step and save.
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:29500" \
    --shutdown-timeout 540 \
    -m palate run "$recipe"
