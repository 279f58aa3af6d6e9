"""The machine's matrix product, as a worker: the yardstick of `gemm_fraction`.

y = x W^T, x [1024, 576], W [1536, 576], in float32: SmolLM2's gate projection.
"""

import time

import torch
from torch.nn.functional import linear

from benchmarks.peers.worker import Facts, serve

ROWS, WIDTH, INNER = 1024, 576, 1536
SECONDS = 1.5


def main() -> None:
    """Serve windows of `SECONDS`, each with its GFLOP/s."""
    x, weight = torch.randn(ROWS, WIDTH), torch.randn(INNER, WIDTH)

    def work(_request: Facts) -> Facts:
        started, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - started) < SECONDS:
            linear(x, weight)
            count += 1
        return {"gflops": 2 * ROWS * WIDTH * INNER * count / spent / 1e9}

    with torch.inference_mode():
        work({})
        serve(work)


if __name__ == "__main__":
    main()
