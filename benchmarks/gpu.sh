#!/bin/bash
# Asks a GPU, in minutes, what a CPU cannot answer, and writes one JSON.
#
#   benchmarks/gpu.sh               on a machine with one GPU; OUT=FOLDER for the answers, GPU=h200
#   DRY=1 benchmarks/gpu.sh         tiny shapes on a CPU: that every question can be asked
#   ONLY="correctness mfu" ...      some of the questions; PATIENCE=5: five times the time limits
#
# Questions, the most telling ones first, each with a time limit of its own; one that cannot be
# answered does not stop the others, and its last line of stderr stands in its place:
#   correctness  packed rows with shared prompts against padded rows, rewards and gradients, bfloat16
#                (one varlen call a layer) and float32, grouped queries and full heads
#   mfu          training steps at 1B and 7B shapes with HH's lengths: MFU, tokens/s, peak memory
#   fsdp         the training loop of one process sharded by FSDP2, and not: pairs/s of both
#   serve        `palate serve` at 64 clients beside a naive server, bfloat16
#   trl          a training step beside TRL's RewardTrainer, bfloat16 (needs benchmarks/.venv-trl)
# fsdp, serve and trl use SmolLM2's weights; serve and trl need PALATE_DATA, or benchmarks/.work as a
# machine with the data prepared it.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-benchmarks/.work/gpu}
DRY=${DRY:-}
GPU=${GPU:-h200}
PATIENCE=${PATIENCE:-1}
mkdir -p "$OUT"

ask() {  # NAME SECONDS COMMAND...: its stdout and stderr are kept, its last line is the answer
  local name=$1 limit=$2
  shift 2
  case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
  echo "$name ..." >&2
  timeout $((limit * PATIENCE)) "$@" >"$OUT/$name.out" 2>"$OUT/$name.err"
  local status=$?
  [ $status = 0 ] || echo "$name: ended with $status" | tee -a "$OUT/$name.err" >&2
}

rm -f "$OUT"/*.out "$OUT"/*.err
if [ -n "$DRY" ]; then
  export CUDA_VISIBLE_DEVICES=
  small="--layers 1 --pairs 16 --repeats 1"
  world="--worlds 1 --layers 1 --steps 2 --repeats 1"
  serve="--layers 1 --pairs 16 --sets 4 --repeats 1"
else
  small="--layers 30 --pairs 64 --repeats 3"
  world="--worlds 1 --layers 30 --steps 8 --repeats 2"
  serve="--pairs 512 --sets 64 --repeats 2"
fi
ask correctness 120 "$PYTHON" -m benchmarks.gpu correctness ${DRY:+--dry}
ask mfu 240 "$PYTHON" -m benchmarks.gpu mfu --gpu "$GPU" ${DRY:+--dry}
ask fsdp 120 "$PYTHON" -m benchmarks.world --wrap --dtype bfloat16 $world
ask alone 120 "$PYTHON" -m benchmarks.world --dtype bfloat16 $world
ask serve 180 "$PYTHON" -m benchmarks.serve --dtype bfloat16 --soak-seconds 0 $serve
ask trl 240 "$PYTHON" -m benchmarks.train --dtype bfloat16 --steps-only --trl-batches 8 $small
"$PYTHON" -m benchmarks.gpu together "$OUT" | tee "$OUT/answers.json"
