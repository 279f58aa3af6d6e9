"""How training scales with the number of processes: torchrun with 1, 2, 4 on one machine.

    python -m benchmarks.world [--worlds 1 2 4] [--layers 6] [--pairs 128] [--steps 4] [--out FILE]

Each world trains the same simulated comparisons with the library's own loop, one thread a process,
SmolLM2's first layers, all of them learning; worlds take turns. Figures are those of the steps: the
start, tokenising and the first step are left out. `efficiency` is pairs a second over those of N
times one process. Where there are fewer cores than processes, or other work, it says little;
`work_efficiency` compares processor seconds a pair of all processes together (what sharding and
reducing cost, waiting left out), which other work hardly moves. With `--wrap` a world of one is
torchrun's too, and its model is sharded over that one process, as FSDP2 does it on one GPU.
Ends with one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]


def work(folder: Path, layers: int, pairs_per_step: int, dtype: str, wrap: bool) -> None:
    """One process of a world; rank 0 leaves its figures in `result.json`."""
    import torch
    from torch.distributed.tensor import DTensor

    from palate.model.loading import start_model
    from palate.model.options import BaseOptions
    from palate.model.precision import named_dtype
    from palate.train import distributed
    from palate.train.dataset import Examples, tokenise
    from palate.train.loop import train
    from palate.train.options import Trainable, TrainOptions

    world = distributed.join()
    if wrap and world.alone:
        world = alone_but_sharded()
    base = BaseOptions(model="smollm2", layers=layers, template="chatml", max_tokens=512)
    model, _ = start_model(base, dtype=named_dtype(dtype))
    file = folder / "tokens.arrow"
    world.first(lambda: tokenise(folder / "rows.parquet", model.chat, file, workers=1).cuts)
    options = TrainOptions(
        pairs_per_step=pairs_per_step,
        epochs=1,
        learning_rate=1e-4,
        tokens_per_microbatch=2_048,
        trainable=Trainable(last_layers=layers),
        trackers=(),
    )
    cpu, started = time.process_time(), time.perf_counter()
    train(model, Examples(file), {}, options, folder / "train", resume=False, world=world)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    total = float(world.total(torch.tensor([cpu], device=world.device)).item())
    if world.leads:
        lines = (folder / "train" / "metrics.jsonl").read_text().splitlines()
        steps_made = [json.loads(line) for line in lines if "pairs_per_second" in line]
        rates = [step["pairs_per_second"] for step in steps_made[1:]]
        pairs = sum(step["pairs"] for step in steps_made)
        facts = {
            "pairs_per_second": median(rates),
            "cpu_seconds_per_pair": total / pairs,
            "seconds": seconds,
            "steps": len(steps_made),
            "loss": steps_made[-1]["loss"],
            "device": world.device.type,
            "sharded": any(isinstance(p, DTensor) for p in model.parameters()),
        }
        (folder / "result.json").write_text(json.dumps(facts))
    distributed.leave(world)


def alone_but_sharded() -> Any:
    """The world of one process, which trains as one of several does: sharded, with collectives."""
    import torch
    import torch.distributed as dist

    from palate.train.distributed import Distributed

    class Sharded(Distributed):
        """One process that does not count as alone."""

        @property
        def alone(self) -> bool:
            return False

    on_gpu = torch.cuda.is_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    return Sharded(device=device, group=dist.new_group(backend="gloo"))


def measured(count: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one world of `count` processes."""
    from palate.data.simulation import CampaignOptions, simulate
    from palate.records import write_comparisons

    with TemporaryDirectory() as name:
        folder = Path(name)
        campaign = CampaignOptions(weeks=1, comparisons_per_week=options.steps * options.pairs)
        write_comparisons(folder / "rows.parquet", simulate(campaign, seed=0))
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [
            sys.executable, *(torchrun if count > 1 or options.wrap else []),
            "-m", "benchmarks.world",
            "--work", str(folder), "--layers", str(options.layers), "--steps", str(options.steps),
            "--pairs", str(options.pairs),
            "--dtype", options.dtype, *(["--wrap"] if options.wrap else []),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment, cwd=ROOT)
        found: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return found


def main() -> None:
    """Run each world in turns and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="the first is left out")
    parser.add_argument("--pairs", type=int, default=128, help="pairs a step, of all processes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--wrap", action="store_true", help="shard over one process too")
    parser.add_argument("--out", type=Path, help="file for the JSON line")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work, options.layers, options.pairs, options.dtype, options.wrap)
        return
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in options.worlds}
    for _ in range(options.repeats):
        for count, found in runs.items():
            found.append(measured(count, options))
            print(f"world of {count}: {found[-1]}", file=sys.stderr)
    rate = {n: median(run["pairs_per_second"] for run in found) for n, found in runs.items()}
    cpu = {n: median(run["cpu_seconds_per_pair"] for run in found) for n, found in runs.items()}
    first = min(runs)
    line = json.dumps(
        {
            "benchmark": "world",
            "cores": len(os.sched_getaffinity(0)),
            "efficiency": {n: round(rate[n] * first / (rate[first] * n), 3) for n in runs},
            "work_efficiency": {n: round(cpu[first] / cpu[n], 3) for n in runs},
            "pairs_per_second": {n: round(value, 3) for n, value in rate.items()},
            "cpu_seconds_per_pair": {n: round(value, 4) for n, value in cpu.items()},
            "last_loss": {n: found[-1]["loss"] for n, found in runs.items()},
            "layers": options.layers,
            "dtype": options.dtype,
            "repeats": options.repeats,
        }
    )
    if options.out is not None:
        options.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
