import pytest
import torch

from palate.model.device import autocast, keep_memory, native_bfloat16
from palate.types import PalateError

CPU = torch.device("cpu")


def test_one_switch_says_whether_bfloat16_counts_as_native(native_bf16: bool) -> None:
    assert native_bfloat16(CPU) is native_bf16


@pytest.mark.parametrize("said", ["auto", "", None, " AUTO "])
def test_by_itself_it_is_what_the_libraries_do_with_the_hardware(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PALATE_NATIVE_BF16")
    if said is not None:
        monkeypatch.setenv("PALATE_NATIVE_BF16", said)
    flags = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert native_bfloat16(CPU) in ({True, False} if flags else {False})
    assert not native_bfloat16(torch.device("meta")), "no hardware for any number format"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not native_bfloat16(CPU), "torch's own kernels are told to leave it out"


def test_a_switch_in_no_position_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALATE_NATIVE_BF16", "yes")
    with pytest.raises(PalateError, match="PALATE_NATIVE_BF16=yes: expected 0, 1 or auto"):
        native_bfloat16(CPU)


def test_autocast_changes_products_only_when_asked() -> None:
    a = torch.ones(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(dtype, CPU):
            assert (a @ a).dtype is dtype


def test_the_allocator_is_told_or_says_that_it_was_not() -> None:
    assert keep_memory() in (True, False)
