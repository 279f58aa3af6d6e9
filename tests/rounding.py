"""How far apart two right ways to compute one thing may be: by format, operation and size."""

import math

import torch


def rounding(dtype: torch.dtype, *, terms: int, products: int, scale: float = 1.0) -> float:
    """Largest difference between two right ways through a chain of matrix products in `dtype`.

    A sum of n products is off by about u sqrt(n) of its terms' size, in whatever order it is
    added, where roundings of relative size u are independent (Higham and Mary 2019, "A new
    approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5)). The errors of
    m products in a row add up in the same way, and two right ways are off by sqrt(2) of one. CPUs
    differ in the order: in the width of their vectors, in blocks, in tiles. 4 standard deviations
    leave room for the largest of many results.

    bfloat16 keeps its sums in float32, so there each product rounds once, whatever its length.

    Args:
        terms: n, the longest sum (width, feed-forward width or keys).
        products: m, matrix products that a number goes through, attention's two included.
        scale: size of the numbers that come out, and what follows them (a sigmoid: 1/4).
    """
    unit = torch.finfo(dtype).eps / 2
    summed = terms if dtype in (torch.float32, torch.float64) else 1
    return 4 * unit * math.sqrt(2 * summed * products) * scale
