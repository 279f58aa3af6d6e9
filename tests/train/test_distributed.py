"""Real processes with gloo between them train as one does; trouble on one rank ends all."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from palate.train.distributed import Distributed, blocks_of, join
from palate.train.loss import LOSSES
from palate.types import PalateError
from ranked import (
    launch,
    train_members,
    train_tiny,
    train_with_each_loss,
    train_with_trouble,
    write_judged_mixture,
    write_mixture,
)
from tiny import FAMILIES, tiny_model

OPTIONS: dict[str, Any] = {
    "pairs_per_step": 8, "tokens_per_microbatch": 100_000, "learning_rate": 1e-3, "epochs": 2,
    "margin": "large", "safety_loss": {}, "attributes": {"helpfulness": 0.5, "verbosity": 0.25},
    "trackers": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mixture(tmp_path_factory.mktemp("mixture") / "m.parquet")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trained(
    size: int, mixture: Path, folder: Path, dtype: torch.dtype = torch.float32,
    per_node: int | None = None, **changes: Any,
) -> Path:  # fmt: skip
    folder.mkdir(exist_ok=True)
    arguments = (mixture, folder, OPTIONS | changes, dtype)
    if size == 1:
        train_tiny(Distributed(), *arguments)
    else:
        ends = launch(size, train_tiny, folder, *arguments, per_node=per_node)
        assert ends == [""] * size
    return folder


@pytest.fixture(scope="module")
def alone(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(1, mixture, tmp_path_factory.mktemp("alone"))


def assert_same_training(one: Path, other: Path) -> None:
    """The same curves, gradient norms, evaluations and weights, within float32's rounding.

    The bounds are about ten times what was measured: 6e-7 of a gradient's norm, 1e-7 of a loss,
    1.2e-7 in a weight after six steps of 1e-3.
    """
    for a, b in zip(lines(one), lines(other), strict=True):
        assert a.keys() == b.keys()
        a, b = a.get("eval", a), b.get("eval", b)
        for key in (
            "loss", "accuracy", "gap", "safety_loss", "attribute_loss/helpfulness",
            "attribute_loss/verbosity", "gradient_norm",
        ):  # fmt: skip
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=1e-5, abs=1e-6), key
        for key in ("pairs", "tokens", "learning_rate"):
            assert a.get(key) == b.get(key), key
    ours, theirs = (load_file(f / "weights.safetensors") for f in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=2e-6, msg=name)


def test_a_world_of_one_is_not_wrapped() -> None:
    assert join() == Distributed()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_decoder_layer_is_a_shard_of_its_own(family: str) -> None:
    backbone = tiny_model(family)
    assert blocks_of(backbone) == list(backbone.layers)


def test_pitfall_12_and_23_two_ranks_and_small_micro_batches_train_as_one(
    alone: Path, mixture: Path, tmp_path: Path
) -> None:
    two = trained(2, mixture, tmp_path, tokens_per_microbatch=64)
    assert_same_training(alone, two)


@pytest.mark.slow
def test_two_ranks_and_small_micro_batches_learn_from_judgements_as_one_by_every_loss(
    tmp_path: Path,
) -> None:
    """Ties, votes, shares, weights and rankings, none of which may hang on who computes it."""
    mixture = write_judged_mixture(tmp_path / "m.parquet")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train_with_each_loss(Distributed(), mixture, one, 100_000)
    assert launch(2, train_with_each_loss, two, mixture, two, 64) == [""] * 2
    for loss in LOSSES:
        assert_same_training(one / loss, two / loss)


def test_a_copy_lies_on_one_machine_unless_asked_to_lie_on_more() -> None:
    world = Distributed(size=8, local_size=4)
    assert (world.shards(), world.shards(8), world.shards(2)) == (4, 8, 2)
    assert (Distributed(size=8, local_size=8).shards(), Distributed().shards()) == (8, 1)
    with pytest.raises(PalateError, match="3 does not divide 8 processes"):
        world.shards(3)


def test_pitfall_19_two_nodes_of_two_ranks_with_idle_ones_train_as_one(
    alone: Path, mixture: Path, tmp_path: Path
) -> None:
    """A step holds as few as three prompts, so ranks are idle in it; HSDP, since nodes are two."""
    small = {"pairs_per_step": 3, "epochs": 1}
    one = trained(1, mixture, tmp_path / "one", **small)
    four = trained(4, mixture, tmp_path / "four", per_node=2, **small)
    assert_same_training(one, four)


@pytest.mark.slow
def test_adapters_are_the_same_on_two_ranks(mixture: Path, tmp_path: Path) -> None:
    lora = {"trainable": {"lora": {"rank": 2}}, "epochs": 1}
    one = trained(1, mixture, tmp_path / "one", **lora)
    two = trained(2, mixture, tmp_path / "two", **lora)
    assert_same_training(one, two)


def test_members_with_weights_of_their_own_are_the_same_on_two_ranks(
    mixture: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train_members(Distributed(), mixture, one)
    assert launch(2, train_members, two, mixture, two) == [""] * 2
    for kind in ("seeds", "checkpoints"):
        ours, theirs = (load_file(folder / f"{kind}.safetensors") for folder in (one, two))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_the_last_layers_learn_in_bfloat16_on_two_ranks(mixture: Path, tmp_path: Path) -> None:
    """Shards compute wholly in bfloat16, autocast keeps some sums in float32: 2e-5 of a loss."""
    part = {"trainable": {"last_layers": 1}, "epochs": 1}
    one = trained(1, mixture, tmp_path / "one", torch.bfloat16, **part)
    two = trained(2, mixture, tmp_path / "two", torch.bfloat16, **part)
    for a, b in zip(lines(one), lines(two), strict=True):
        assert a.get("eval", a)["loss"] == pytest.approx(b.get("eval", b)["loss"], abs=1e-3)
    ours, theirs = (load_file(f / "weights.safetensors") for f in (one, two))
    for name, value in ours.items():
        assert theirs[name].dtype == torch.float32
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=2e-3, msg=name)


def test_a_signal_to_one_rank_stops_all_at_its_step_and_one_process_goes_on(
    alone: Path, mixture: Path, tmp_path: Path
) -> None:
    ends = launch(2, train_with_trouble, tmp_path, mixture, tmp_path, OPTIONS, "SIGTERM")
    assert ends == ["Interrupted: saved at step 2"] * 2
    assert_same_training(alone, trained(1, mixture, tmp_path))


def test_a_rank_without_memory_ends_all_and_says_what_helps(mixture: Path, tmp_path: Path) -> None:
    first, second = launch(2, train_with_trouble, tmp_path, mixture, tmp_path, OPTIONS, "memory")
    assert second.startswith("PalateError: out of memory at micro-batches of up to")
    assert "set train.tokens_per_microbatch=50000" in second
    assert first == "PalateError: another rank ended; its own line says why"
