"""The loop on a tiny model: invariance, learning, resume, refusal."""

import hashlib
import json
import math
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palate.model import compute
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.records import write_comparisons
from palate.train import loop
from palate.train.batching import split_step
from palate.train.dataset import Examples, tokenise
from palate.train.distributed import Distributed
from palate.train.loop import (
    SELECTION,
    Interrupted,
    Schedule,
    make_optimizer,
    set_learning_rate,
    stop_signals,
    train,
)
from palate.train.loss import LOSSES, load_balancing_loss
from palate.train.options import LoraOptions, SafetyLoss, Trainable, TrainOptions
from palate.train.validation import Validation, pair_rewards
from palate.types import PREFERRED, Comparison, Judgement, Message, PalateError, Rating
from ranked import write_judged_mixture
from tiny import tiny_model, tiny_tokenizer

WORDS = ["bread", "sea", "Paris", "poem", "yeast", "dough", "honest", "short", "safer", "blue"]
CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=128))


def comparison(index: int, rng: np.random.Generator, **labels: Any) -> Comparison:
    """The better answer says the sea is blue; both are padded with words at random."""
    noise = [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(3)]
    return Comparison(
        id=f"c{index}",
        source="made",
        prompt=(Message("user", f"What of {noise[0]}?"),),
        chosen=f"{noise[1]} The sea is blue.",
        rejected=f"{noise[2]} I cannot help.",
        prompt_id=f"p{index}",
        **labels,
    )


def examples_of(folder: Path, count: int, **labels: Any) -> Examples:
    rng = np.random.default_rng(0)
    path = folder / "mixture.parquet"
    write_comparisons(path, (comparison(i, rng, **labels) for i in range(count)))
    return tokenise(path, CHAT, folder / "tokens.arrow")


def model(**options: Any) -> RewardModel:
    return RewardModel(tiny_model("llama"), CHAT, **options)


def options(**changes: Any) -> TrainOptions:
    usual: dict[str, Any] = {
        "pairs_per_step": 8, "tokens_per_microbatch": 256, "learning_rate": 1e-3, "trackers": (),
    }  # fmt: skip
    return TrainOptions(**usual | changes)


def weights(of: RewardModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in of.parameters()])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_eight_pairs_are_learnt_by_heart(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 8)
    settings = options(epochs=25, learning_rate=5e-3)
    train(model(), examples, {"same": examples}, settings, tmp_path, resume=False)
    rows = metrics(tmp_path)
    assert rows[0]["eval"]["loss"] == pytest.approx(math.log(2), abs=0.02), "pitfall 15"
    assert rows[-1]["eval"] | {"gap": 0} == rows[-1]["eval"] | {"accuracy": 1.0, "gap": 0}
    assert rows[-1]["eval"]["loss"] < 0.05


def judged(folder: Path, judgements: list[Judgement]) -> Examples:
    rng = np.random.default_rng(0)
    rows = (comparison(i, rng, judgement=j) for i, j in enumerate(judgements))
    write_comparisons(folder / "m.parquet", rows)
    return tokenise(folder / "m.parquet", CHAT, folder / "t.arrow")


TIE = Judgement(chosen=0, tie=1)


def test_the_ranking_loss_leaves_ties_out_and_says_what_learns_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(loop.RunLog, "info", lambda _log, line: lines.append(line))
    votes = Judgement(chosen=3, rejected=1)
    train_on = judged(tmp_path, [TIE, votes, votes, TIE, PREFERRED])
    train(model(), train_on, {"same": train_on}, options(), tmp_path, resume=False)
    assert [r["pairs"] for r in metrics(tmp_path) if "pairs" in r] == [3]
    assert metrics(tmp_path)[0]["eval"]["pairs"] == 3
    assert any(line.startswith("ties: 2 left out; train.loss: rao-kupper") for line in lines)
    with pytest.raises(PalateError, match="all of 2 comparisons are ties"):
        train(model(), judged(tmp_path, [TIE] * 2), {}, options(), tmp_path, resume=False)


@pytest.mark.parametrize("loss", ["bradley-terry", "rao-kupper", "davidson", "plackett-luce"])
def test_ties_are_learnt_from_and_their_accuracy_is_not_counted(tmp_path: Path, loss: str) -> None:
    train_on = judged(tmp_path, [PREFERRED, TIE, TIE, PREFERRED])
    start, end = model(), options(loss=loss, epochs=15, learning_rate=5e-3)
    train(start, train_on, {"same": train_on}, end, tmp_path, resume=False)
    rows = [row for row in metrics(tmp_path) if "pairs" in row]
    assert {row["pairs"] for row in rows} == {4}
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["loss"] < rows[0]["loss"]
    gaps = pair_rewards(
        start, split_step(list(train_on), end.margins(), 10_000), Distributed()
    ).diff(dim=1)
    assert gaps[[1, 2]].abs().max() < gaps[[0, 3]].abs().min()


def test_pitfall_12_the_gradient_does_not_depend_on_micro_batching(tmp_path: Path) -> None:
    examples = examples_of(
        tmp_path, 13, rating=Rating.BETTER, chosen_safe=True, rejected_safe=False
    )
    settings = {"margin": "large", "safety_loss": SafetyLoss(), "learning_rate": 1e-3}
    trained = []
    for budget in (64, 10_000):
        one = model()
        train(
            one, examples, {}, options(tokens_per_microbatch=budget, **settings),
            tmp_path / str(budget), resume=False,
        )  # fmt: skip
        trained.append((weights(one), metrics(tmp_path / str(budget))))
    torch.testing.assert_close(trained[0][0], trained[1][0], rtol=1e-3, atol=2e-5)
    for a, b in zip(trained[0][1], trained[1][1], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)


def selecting(**changes: Any) -> TrainOptions:
    """Evaluates every step, at a rate at which the best is not the last."""
    usual = {"epochs": 3, "keep": "best", "eval_every_steps": 1, "learning_rate": 3e-2}
    return options(**usual | changes)


def heldout_of(folder: Path) -> Examples:
    (folder / "heldout").mkdir()
    rng = np.random.default_rng(9)
    rows = [comparison(i, rng) for i in range(12)]
    turned = [replace(row, chosen=row.rejected, rejected=row.chosen) for row in rows[:5]]
    write_comparisons(folder / "heldout" / "m.parquet", turned + rows[5:])
    return tokenise(folder / "heldout" / "m.parquet", CHAT, folder / "heldout" / "t.arrow")


def losses(folder: Path) -> list[tuple[float, int]]:
    rows = [row for row in metrics(folder) if "eval" in row and row["step"]]
    return [(row["eval"]["loss"], row["step"]) for row in rows]


def test_the_best_weights_are_those_of_the_best_evaluation(tmp_path: Path) -> None:
    examples, heldout = examples_of(tmp_path, 30), heldout_of(tmp_path)
    best = train(model(), examples, {"mine": heldout}, selecting(), tmp_path / "best")
    lowest, step = min(losses(tmp_path / "best"))
    assert step < 12, "the last would be no test"
    figures = Validation({"mine": heldout}, 512, 256).figures(best, Distributed())
    assert figures["mine"]["loss"] == pytest.approx(lowest, rel=1e-9)
    words = json.loads((tmp_path / "best" / SELECTION).read_text())["weights"]
    assert f"step {step} of 12, the best by loss {lowest:.4f} on mine" in words
    last = selecting(keep="last", eval_every_steps=0)
    plain = train(model(), examples, {"mine": heldout}, last, tmp_path / "last")
    assert not torch.equal(weights(plain), weights(best))
    again = train(model(), examples, {"mine": heldout}, selecting(), tmp_path / "best")
    assert torch.equal(weights(again), weights(best))


def test_patience_ends_a_training_and_a_stopped_one_ends_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, heldout = examples_of(tmp_path, 30), heldout_of(tmp_path)
    settings = selecting(patience=2)
    whole = train(model(), examples, {"mine": heldout}, settings, tmp_path / "whole")
    seen = losses(tmp_path / "whole")
    step = min(seen)[1]
    assert len(seen) == step + 2 < 12
    words = json.loads((tmp_path / "whole" / SELECTION).read_text())["weights"]
    assert "ended early, 2 evaluations after the best" in words
    real, calls = loop._gradients, list[int]()

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == step + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, "_gradients", interrupted)
    with pytest.raises(Interrupted):
        train(model(), examples, {"mine": heldout}, settings, tmp_path / "parts")
    resumed = train(model(), examples, {"mine": heldout}, settings, tmp_path / "parts")
    assert losses(tmp_path / "parts") == seen
    assert torch.equal(weights(resumed), weights(whole))
    again = train(model(), examples, {"mine": heldout}, settings, tmp_path / "parts")
    assert len(calls) == step + 2, "where it ended, no step is left"
    assert torch.equal(weights(again), weights(whole))
    with pytest.raises(PalateError, match="need held-out comparisons"):
        train(model(), examples, {}, settings, tmp_path / "none")


def test_pitfall_31_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, settings = examples_of(tmp_path, 30), options(epochs=2)
    whole = train(model(), examples, {}, settings, tmp_path / "whole")
    calls, real = 0, loop._gradients

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, "_gradients", interrupted)
    with pytest.raises(Interrupted, match="saved at step 3"):
        train(model(), examples, {}, settings, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train(model(), examples, {}, settings, tmp_path / "cut")
    assert torch.equal(weights(resumed), weights(whole))
    losses = [[r["loss"] for r in metrics(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("loss", LOSSES)
def test_pitfall_31_every_loss_goes_on_where_it_was_stopped(
    tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = write_judged_mixture(tmp_path / "m.parquet")
    examples = tokenise(mixture, CHAT, mixture.with_suffix(".arrow"))
    settings = options(loss=loss, pairs_per_step=12, learning_rate=1e-3)
    whole = train(model(), examples, {"same": examples}, settings, tmp_path / "whole")
    calls, real = 0, loop._gradients

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(loop, "_gradients", interrupted)
    with pytest.raises(Interrupted, match="saved at step 2"):
        train(model(), examples, {"same": examples}, settings, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train(model(), examples, {"same": examples}, settings, tmp_path / "cut")
    assert torch.equal(weights(resumed), weights(whole))
    told = [[r.get("loss", r.get("eval")) for r in metrics(tmp_path / n)] for n in ("whole", "cut")]
    assert told[0] == told[1]


def test_pitfall_31_a_second_ctrl_c_gives_up_the_step_in_hand_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, settings = examples_of(tmp_path, 30), options(epochs=2)
    whole = train(model(), examples, {}, settings, tmp_path / "whole")
    calls, real = 0, loop._gradients

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*arguments)
        if calls == 3:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(loop, "_gradients", interrupted)
    with pytest.raises(Interrupted, match="saved at step 2"):
        train(model(), examples, {}, settings, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train(model(), examples, {}, settings, tmp_path / "cut")
    assert torch.equal(weights(resumed), weights(whole))
    steps = [r["step"] for r in metrics(tmp_path / "cut")]
    assert steps == [r["step"] for r in metrics(tmp_path / "whole")]


def test_ctrl_c_is_answered_while_a_step_computes() -> None:
    """Python would run a handler only after the call into C, which here takes a second."""
    said: list[tuple[str, float]] = []
    with stop_signals(lambda line: said.append((line, time.monotonic()))) as stop:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        hashlib.pbkdf2_hmac("sha256", b"a long", b"step", 2_000_000)
        ended = time.monotonic()
        assert stop()
    ((line, at),) = said
    assert at < ended
    assert line == "stopping after this step; again to stop now"


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 8)
    train(model(), examples, {}, options(), tmp_path)
    with pytest.raises(PalateError, match="other data or options"):
        train(model(), examples, {}, options(learning_rate=1e-4), tmp_path)
    with pytest.raises(PalateError, match="other data or options"):
        train(model(), examples, {}, options(), tmp_path, origin="other weights")


def test_how_a_step_is_computed_changes_no_weight(tmp_path: Path) -> None:
    examples, full = examples_of(tmp_path, 16), {"activation_checkpointing": "full"}
    plain = train(model(), examples, {}, options(), tmp_path / "plain")
    again = train(model(), examples, {}, options(compute=full), tmp_path / "again")
    assert torch.equal(weights(plain), weights(again))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own.
def test_a_training_that_began_compiled_goes_on_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that began without goes on without, however long it is."""
    torch.compiler.reset()
    tried: list[bool] = []

    def compile_and_try(model: RewardModel, groups: Any) -> bool:
        tried.append(compute.compile_and_try(model, groups))
        return tried[-1]

    monkeypatch.setattr(loop, "compile_and_try", compile_and_try)
    examples = examples_of(tmp_path, 16)
    for name, long in (("long", True), ("short", False)):
        monkeypatch.setattr(loop, "worth_compiling", lambda *_, long=long: long)
        train(model(), examples, {}, options(epochs=2), tmp_path / name)
        monkeypatch.setattr(loop, "worth_compiling", lambda *_, long=long: not long)
        again = train(model(), examples, {}, options(epochs=2), tmp_path / name)
        assert tried == [True, True]
        assert all(part._compiled_call_impl is None for part in again.backbone.modules())


def test_options_that_do_not_change_the_weights_may_change_before_a_resume(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 8)
    first = weights(train(model(), examples, {}, options(), tmp_path))
    others = options(
        tokens_per_microbatch=64, eval_every_steps=1, eval_rows=3, save_every_minutes=1,
        trackers=("tensorboard",),
    )  # fmt: skip
    assert torch.equal(weights(train(model(), examples, {}, others, tmp_path)), first)


def test_exhausted_memory_is_one_line_with_the_cure(tmp_path: Path) -> None:
    step = split_step([examples_of(tmp_path, 1)[0]], options().margins(), 256)
    with (
        pytest.raises(PalateError, match=r"set train\.tokens_per_microbatch=128 \(it is 256"),
        loop._enough_memory(step, options()),
    ):
        torch.empty(2**50, dtype=torch.uint8)


def test_a_non_finite_loss_names_its_pairs(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        broken.head.weight[0, 0] = math.nan
    with pytest.raises(PalateError, match=r"non-finite loss among the pairs c\d"):
        train(broken, examples_of(tmp_path, 8), {}, options(), tmp_path)


@pytest.mark.parametrize(
    "trainable", [Trainable(last_layers=1), Trainable(lora=LoraOptions(rank=2))]
)
def test_part_of_the_weights_learns(tmp_path: Path, trainable: Trainable) -> None:
    examples, one = examples_of(tmp_path, 8), model()
    before = {n: p.detach().clone() for n, p in one.named_parameters()}
    train(one, examples, {"same": examples}, options(trainable=trainable, epochs=8), tmp_path)
    moved = [n for n, p in one.named_parameters() if n in before and not torch.equal(p, before[n])]
    assert "head.weight" in moved
    if trainable.lora is None:
        assert not any(n.startswith(("backbone.layers.0", "backbone.embed")) for n in moved)
        assert any(n.startswith("backbone.layers.2") for n in moved)
    else:
        assert moved == ["head.weight"]
    rows = metrics(tmp_path)
    assert rows[-1]["eval"]["loss"] < rows[0]["eval"]["loss"]


def test_safety_on_the_reward_puts_unsafe_responses_below_zero(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 16, chosen_safe=True, rejected_safe=False)
    one = model(safety_head=True)
    settings = options(epochs=15, safety_loss=SafetyLoss(weight=1.0))
    train(one, examples, {}, settings, tmp_path, resume=False)
    rows = [examples[i] for i in range(len(examples))]
    (part,) = split_step(rows, settings.margins(), 100_000).parts
    rewards = one(part.groups).reward
    assert (rewards[part.chosen] > 0).float().mean() > 0.9
    assert (rewards[part.rejected] < 0).float().mean() > 0.9


# Pitfalls 16 and 17: the learning rate of every step, and what decays.


def test_pitfall_16_first_peak_and_last_learning_rate() -> None:
    schedule = Schedule.of(TrainOptions(), steps=1000)
    assert schedule.warmup == 30
    assert schedule.factor(1) == pytest.approx(1 / 30)
    assert schedule.factor(30) == 1.0
    assert schedule.factor(515) == pytest.approx(0.55, abs=1e-3)
    assert schedule.factor(1000) == pytest.approx(0.1)


def test_pitfall_16_warm_up_has_a_floor_and_a_ceiling() -> None:
    assert Schedule.of(TrainOptions(), steps=40).warmup == 5
    assert Schedule.of(TrainOptions(), steps=3).warmup == 3
    assert Schedule.of(TrainOptions(), steps=3).factor(3) == 1.0


def test_steps_outside_the_run_are_refused() -> None:
    schedule = Schedule.of(TrainOptions(), steps=10)
    for step in (0, 11):
        with pytest.raises(ValueError, match="outside"):
            schedule.factor(step)


def test_pitfall_17_only_matrices_decay_and_the_head_may_have_its_own_rate() -> None:
    model = RewardModel(tiny_model("llama"), ChatTokens(tiny_tokenizer(), BaseOptions()))
    options = TrainOptions(learning_rate=1e-5, head_learning_rate=1e-3)
    optimizer = make_optimizer(model, options)
    for group in optimizer.param_groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    head = [g for g in optimizer.param_groups if any(p is model.head.weight for p in g["params"])]
    assert [g["peak_lr"] for g in head] == [1e-3]
    counted = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    assert counted == sum(p.numel() for p in model.parameters())
    set_learning_rate(optimizer, 0.5)
    assert head[0]["lr"] == 5e-4
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    assert optimizer.defaults["eps"] == 1e-5


def test_a_router_loss_evens_out_the_experts_and_is_logged(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, 16)
    last = {}
    for coefficient in (0.0, 1.0):
        folder = tmp_path / str(coefficient)
        settings = options(epochs=6, router_loss_coefficient=coefficient, tokens_per_microbatch=512)
        start = RewardModel(tiny_model("qwen3_moe"), CHAT)
        train(start, examples, {}, settings, folder, resume=False)
        figures = [row["router_loss"] for row in metrics(folder) if "router_loss" in row]
        assert len(figures) == (12 if coefficient else 0)
        start.keep_router_logits()
        groups = split_step(list(examples), settings.margins(), 10_000).parts[0].groups
        logits = start(groups).router_logits
        last[coefficient] = load_balancing_loss(logits, start.experts_per_token).item()
    assert figures[-1] < figures[0]
    assert last[1.0] < last[0.0]
    off, on = options(), options(router_loss_coefficient=0.1)
    assert off.decisive() == options(tokens_per_microbatch=64).decisive()
    assert (
        on.decisive() != options(router_loss_coefficient=0.1, tokens_per_microbatch=64).decisive()
    )
    with pytest.raises(PalateError, match="llama has no experts"):
        train(model(), examples, {}, on, tmp_path, resume=False)
