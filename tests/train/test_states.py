"""States of frozen layers, kept: the same training, from a file that goes when it ends."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palate.model.options import BaseOptions, Compute
from palate.model.packing import group
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons, write_json
from palate.train import states
from palate.train.dataset import Examples, tokenise
from palate.train.loop import Interrupted, train
from palate.train.options import LoraOptions, SafetyLoss, Trainable, TrainOptions
from palate.train.states import FILE
from palate.types import Comparison, Message, PalateError
from tiny import tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))
WORDS = ["bread", "sea", "Paris", "poem", "yeast", "dough", "honest", "short", "safer", "blue"]


def examples_of(folder: Path, prompts: int, seed: int = 0) -> Examples:
    """Of each prompt three pairs of three responses, so that one is in several pairs."""
    rng = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(2, 9)))

    rows = []
    for number in range(prompts):
        prompt, answers = f"What of {text()} {number}?", [text() + str(i) for i in range(3)]
        for first, second in ((0, 1), (0, 2), (1, 2)):
            rows.append(
                Comparison(
                    id=f"{number}-{first}-{second}",
                    source="made",
                    prompt=(Message("user", prompt),),
                    chosen=answers[first],
                    rejected=answers[second],
                    prompt_id=str(number),
                    chosen_safe=True,
                    rejected_safe=False,
                )
            )
    path = folder / f"rows-{seed}.parquet"
    write_comparisons(path, rows)
    return tokenise(path, CHAT, folder / f"tokens-{seed}.arrow")


def model(family: str = "llama", **options: Any) -> RewardModel:
    return RewardModel(tiny_model(family), CHAT, **options)


def options(*, keep: Any, last_layers: int = 1, **changes: Any) -> TrainOptions:
    usual: dict[str, Any] = {
        "pairs_per_step": 8, "tokens_per_microbatch": 256, "learning_rate": 1e-3, "trackers": (),
        "epochs": 3, "eval_rows": 9, "trainable": Trainable(last_layers=last_layers),
        "compute": Compute(keep_frozen_states=keep),
    }  # fmt: skip
    return TrainOptions(**usual | changes)


def curves(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("pairs_per_second", "tokens_per_second")
    return [
        {k: v for k, v in (row.get("eval") or row).items() if k not in (*timed, "name")}
        for row in rows
    ]


def weights(of: RewardModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.parameters()])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "mistral", "qwen2"])
@pytest.mark.parametrize("last_layers", [0, 1, 2])
def test_a_training_is_the_same_with_kept_states(
    tmp_path: Path, family: str, last_layers: int
) -> None:
    examples, heldout = examples_of(tmp_path, 9), examples_of(tmp_path, 4, seed=1)
    trained, folders = [], []
    for keep in (False, True):
        folders.append(tmp_path / str(keep))
        asked = options(keep=keep, last_layers=last_layers, safety_loss=SafetyLoss())
        sets = {"held out": heldout}
        trained.append(train(model(family), examples, sets, asked, folders[-1]))
    without, kept = map(curves, folders)
    assert len(kept) == len(without) == 4 + 4 + 4 + 4
    for one, other in zip(without, kept, strict=True):
        assert other == pytest.approx(one, rel=2e-4, abs=2e-5)
    moved = weights(model(family)) - weights(trained[0])
    assert float((weights(trained[1]) - weights(trained[0])).norm()) < 0.01 * float(moved.norm())
    assert not list(folders[1].glob("states.*"))


def test_the_layers_below_run_once_for_each_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = examples_of(tmp_path, 6)
    one, ran, written = model(), list[int](), list[int]()
    layer, forget = one.backbone.layers[0], states.forget_states
    layer.mlp.register_forward_hook(lambda _m, _i, out: ran.append(out.shape[1]))
    monkeypatch.setattr(
        "palate.train.loop.forget_states",
        lambda folder: (written.append((folder / FILE).stat().st_size), forget(folder)),
    )
    train(one, examples, {}, options(keep="auto"), tmp_path / "run")
    texts = {tuple(t) for row in map(examples.__getitem__, range(len(examples))) for t in
             (row.chosen.tolist(), row.rejected.tolist())}  # fmt: skip
    prompts: dict[str, list[Any]] = {}
    for row in map(examples.__getitem__, range(len(examples))):
        prompts.setdefault(row.prompt, []).extend((row.chosen, row.rejected))
    distinct = [group([np.array(t) for t in {tuple(c.tolist()) for c in p}])
                for p in prompts.values()]  # fmt: skip
    tokens = sum(g.tokens for g in distinct)
    assert len(texts) == 18
    assert written == [tokens * 48 * 4]
    # And one micro-batch of a probe, whole and by itself.
    assert tokens < sum(ran) <= tokens + 2 * max(g.tokens for g in distinct)


def test_kept_states_are_those_of_the_layers_whatever_the_group(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 3)
    one = model()
    for part in (one.backbone.get_input_embeddings(), *one.backbone.layers[:2]):
        part.requires_grad_(False)
    assert states.keep_states(
        one, [states.Visited(examples, len(examples), 2)], 256, tmp_path, made_of="x", asked=True,
        stop=lambda: False, log=lambda _: None, show=lambda _: None,
    )  # fmt: skip
    kept = one.kept
    assert kept is not None
    assert kept.layers.count == 2
    rows = [examples[i] for i in range(len(examples))]
    # A pair, one response alone, all responses of a prompt, and pairs of several prompts.
    for some in (
        [group([rows[0].chosen, rows[0].rejected])],
        [group([rows[4].rejected])],
        [group([rows[0].chosen, rows[0].rejected, rows[1].rejected])],
        [group([row.rejected, row.chosen]) for row in rows[2:9:3]],
    ):
        states_read = kept.read(some)
        assert states_read is not None
        one.kept = None
        whole = states.run_frozen(one, kept.layers, some)
        one.kept = kept
        torch.testing.assert_close(states_read[0], whole, rtol=1e-5, atol=1e-5)
    assert kept.read([group([np.array([1, 2, 3], np.int32)])]) is None


@pytest.mark.parametrize("harmed", [False, True])
def test_a_stopped_making_goes_on_where_it_was_unless_the_file_is_another(
    harmed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, chosen = examples_of(tmp_path, 20), options(keep=True)
    whole = train(model(), examples, {}, chosen, tmp_path / "whole")
    folder, written = tmp_path / "stopped", list[int]()

    def write_and_stop(path: Path, values: dict[str, Any]) -> None:
        write_json(path, values)
        written.append(values["parts"])
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(states, "write_json", write_and_stop)
    with pytest.raises(Interrupted):
        train(model(), examples, {}, chosen, folder)
    assert written == [1, 2]
    with (folder / FILE).open("ab") as file:  # What a kill leaves of the next one.
        file.write(b"half")
    if harmed:  # Of the same size, so that only its bytes tell.
        with (folder / FILE).open("r+b") as file:
            file.write(bytes(64))
    trained = train(model(), examples, {}, chosen, folder)
    assert written[2:] == list(range(1 if harmed else 3, written[-1] + 1))
    assert len(written) > 3
    torch.testing.assert_close(weights(trained), weights(whole), rtol=1e-5, atol=1e-6)
    assert not list(folder.glob("states.*"))


@pytest.mark.parametrize(
    ("trainable", "why"),
    [("full", "every layer learns"), (Trainable(lora=LoraOptions(rank=2)), "every layer learns")],
)
def test_where_nothing_is_frozen_it_is_refused_or_passed_over(
    tmp_path: Path, trainable: Any, why: str
) -> None:
    examples = examples_of(tmp_path, 3)
    with pytest.raises(PalateError, match=why):
        train(model(), examples, {}, options(keep=True, trainable=trainable), tmp_path / "a")
    train(model(), examples, {}, options(keep="auto", epochs=2, trainable=trainable),
          tmp_path / "b")  # fmt: skip


def test_an_embedding_of_positions_that_learns_is_noticed(tmp_path: Path) -> None:
    examples, lines = examples_of(tmp_path, 3), list[str]()
    one = model()
    for part in (one.backbone.get_input_embeddings(), *one.backbone.layers[:2]):
        part.requires_grad_(False)
    scale = torch.nn.Parameter(torch.ones(48))  # Learns, and stands in no layer.
    one.backbone.register_parameter("positions", scale)
    one.backbone.get_input_embeddings().register_forward_hook(lambda _m, _i, out: out * scale)
    states.keep_states(
        one, [states.Visited(examples, len(examples), 2)], 256, tmp_path, made_of="x", asked=False,
        stop=lambda: False, log=lines.append, show=lambda _: None,
    )  # fmt: skip
    assert one.kept is None
    assert lines == ["frozen states are not kept (weights below the frozen layers learn)"]


def test_a_disk_without_room_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(tmp_path, 3)
    usage = type("usage", (), {"free": 5_000})
    monkeypatch.setattr(states.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PalateError, match=r"wants .* GB of the 0.0 GB free in .*leave it at auto"):
        train(model(), examples, {}, options(keep=True), tmp_path / "a")
    train(model(), examples, {}, options(keep="auto"), tmp_path / "b")


def test_a_file_that_cannot_be_written_ends_no_training(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 3)
    (tmp_path / "run" / FILE).mkdir(parents=True)
    train(model(), examples, {}, options(keep="auto"), tmp_path / "run")
    with pytest.raises(PalateError, match=r"states\.bin: cannot be written \(Is a directory\)"):
        train(model(), examples, {}, options(keep=True), tmp_path / "run", resume=False)
