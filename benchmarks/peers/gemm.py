"""The machine's matrix product, as a worker: the yardstick of `gemm_fraction`.

y = x W^T, x [1024, 576], W [1536, 576], in the number format asked for: SmolLM2's gate
projection.
"""

import argparse
import time

import torch
from torch.nn.functional import linear

from benchmarks.peers.worker import Facts, serve

ROWS, WIDTH, INNER = 1024, 576, 1536
SECONDS = 1.5


def main() -> None:
    """Serve windows of `SECONDS`, each with its GFLOP/s."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", default="float32")
    dtype = getattr(torch, parser.parse_args().dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(ROWS, WIDTH, dtype=dtype, device=device)
    weight = torch.randn(INNER, WIDTH, dtype=dtype, device=device)

    def work(_request: Facts) -> Facts:
        started, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - started) < SECONDS:
            linear(x, weight)
            count += 1
            if device == "cuda":  # Else calls are only queued.
                torch.cuda.synchronize()
        return {"gflops": 2 * ROWS * WIDTH * INNER * count / spent / 1e9}

    with torch.inference_mode():
        work({})
        serve(work)


if __name__ == "__main__":
    main()
