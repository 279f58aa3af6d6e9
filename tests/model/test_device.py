"""The number format is what the device computes natively, unless told otherwise."""

import torch

from palate.model import device
from palate.model.device import autocast, compute_dtype, keep_memory

CPU = torch.device("cpu")


def test_auto_takes_bfloat16_only_where_it_is_native(monkeypatch) -> None:
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "native_bfloat16", lambda _, native=native: native)
        assert compute_dtype("auto", CPU) is expected
    assert compute_dtype("bfloat16", CPU) is torch.bfloat16
    assert compute_dtype("float32", CPU) is torch.float32


def test_autocast_changes_products_only_when_asked() -> None:
    a = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(dtype, CPU):
            assert (a @ a).dtype is dtype


def test_the_allocator_is_told_or_says_that_it_was_not() -> None:
    assert keep_memory() in (True, False)
