"""Layers that two reward models have in common are run once for both; their own answers never stand
in for a model's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from packed import tiny_reward_model
from palate.judges import open_judge
from palate.judges.reward_model import RewardScorer
from palate.model import trunk
from palate.model.attention import decoder_layers
from palate.model.export import Card, export
from palate.types import Candidates, Message

ASKED = [
    Candidates((Message("user", f"What of {thing}?"),), ("Much.", f"{thing} is little.", "Much."))
    for thing in ("salt", "the sea", "bread", "a lamp")
]
FAMILIES = ("llama", "qwen3", "gpt_neox", "mistral")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    trunk._left.clear()
    yield
    trunk._left.clear()


def made(folder: Path, family: str = "llama", *, layer: bool = False, **options: object) -> Path:
    """A model with a head and a final norm of its own; one weight of a layer too where asked."""
    model = tiny_reward_model(family, **options)
    generator = torch.Generator().manual_seed(len(folder.name))
    torch.nn.init.normal_(model.head.weight, generator=generator)
    norm = next(m for n, m in model.backbone.named_children() if n in trunk.FINAL_NORMS)
    with torch.no_grad():
        norm.weight += 0.1 * torch.rand(norm.weight.shape, generator=generator)
        if layer:
            next(decoder_layers(model.backbone)[0].parameters()).flatten()[0] += 0.5
    return export(model.eval(), folder, card=Card(folder.name, "tiny", "0"))


def runs_of(scorer: RewardScorer) -> list[int]:
    """Tokens that its first layer is given, call by call, from now on."""
    ran: list[int] = []
    first = decoder_layers(scorer.model.backbone)[0]
    first.mlp.register_forward_hook(lambda _m, inputs, _o: ran.append(inputs[0].shape[-2]))
    return ran


def values(scorer: RewardScorer) -> torch.Tensor:
    return torch.tensor([score.value for row in scorer.score(ASKED) for score in row])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_model_of_the_same_layers_runs_its_norm_and_heads(
    family: str, tmp_path: Path
) -> None:
    first, second = made(tmp_path / "a", family), made(tmp_path / "bb", family)
    alone = values(RewardScorer(second))
    one, other = (RewardScorer(path, share_trunk=True) for path in (first, second))
    assert one.model.kept is not None
    ran, before = runs_of(other), values(one)
    torch.testing.assert_close(values(other), alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, alone, atol=0.1)
    assert ran == []


def test_what_a_model_was_asked_itself_is_run_again(tmp_path: Path) -> None:
    scorer = RewardScorer(made(tmp_path / "a"), share_trunk=True)
    ran = runs_of(scorer)
    first, again = values(scorer), values(scorer)
    assert len(ran) == 2
    assert first.tolist() == again.tolist()
    other = RewardScorer(tmp_path / "a", share_trunk=True)  # The same checkpoint, opened again.
    ran = runs_of(other)
    values(other)
    assert ran


def test_other_layers_and_other_formats_share_nothing(tmp_path: Path) -> None:
    values(RewardScorer(made(tmp_path / "a"), share_trunk=True))
    others = [
        RewardScorer(made(tmp_path / "bb", layer=True), share_trunk=True),
        RewardScorer(made(tmp_path / "ccc"), share_trunk=True, dtype="bfloat16"),
    ]
    for other in others:
        ran = runs_of(other)
        values(other)
        assert ran


def test_states_take_no_more_room_than_they_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [made(tmp_path / name) for name in ("a", "bb")]
    one, other = (RewardScorer(path, share_trunk=True) for path in paths)
    values(one)
    (left,) = trunk._left.values()
    size = left.size
    assert size == sum(state.nbytes for state in left.values()) == 8 * left[next(iter(left))].nbytes
    monkeypatch.setattr(trunk, "ROOM", size)
    ran = runs_of(other)
    rest = [Candidates((Message("user", "Fire?"),), ("Hot.", "Warm or hot."))]
    list(other.score(rest))
    assert ran, "another conversation"
    assert [name for _, name in trunk._left] == [other.protocol["revision"]], "the oldest went"
    monkeypatch.setattr(trunk, "ROOM", 1)
    trunk._left.clear()
    values(one)
    assert sum(left.size for left in trunk._left.values()) == 0


def test_an_ensemble_of_heads_goes_on_from_what_one_model_left(tmp_path: Path) -> None:
    values(RewardScorer(made(tmp_path / "a"), share_trunk=True))
    heads = RewardScorer(made(tmp_path / "bb", members=3), share_trunk=True)
    ran = runs_of(heads)
    (row, *_) = heads.score(ASKED)
    assert ran == []
    assert len(row[0].members) == 3


def test_a_judge_shares_unless_told_otherwise(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    assert open_judge({"reward-model": str(folder)}).scorer.model.kept is not None
    given = {"folder": str(folder), "share_trunk": False}
    assert open_judge({"reward-model": given}).scorer.model.kept is None
