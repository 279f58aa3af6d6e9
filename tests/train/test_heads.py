"""Heads on states that stay as they are: exact states, one minimum, no row seen by its judge."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from packed import tiny_reward_model
from palate.records import write_comparisons
from palate.train.dataset import Examples, tokenise
from palate.train.heads import end_states, fit_heads, held_out_margins
from palate.train.states import FILE
from palate.types import Comparison, Message


def examples_of(folder: Path, model: object, rows: int = 12) -> Examples:
    made = [
        Comparison(
            id=str(n), source="made", prompt=(Message("user", f"What of bread {n // 2}?"),),
            chosen=f"yeast {n}", rejected="a poem of the sea", prompt_id=str(n // 2),
        )
        for n in range(rows)
    ]  # fmt: skip
    write_comparisons(folder / "rows.parquet", made)
    return tokenise(folder / "rows.parquet", model.chat, folder / "tokens.arrow", workers=1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_head_on_the_states_gives_the_rewards_of_the_model(tmp_path: Path, family: str) -> None:
    model = tiny_reward_model(family)
    examples = examples_of(tmp_path, model)
    said: list[str] = []
    states = end_states(
        model, examples, tmp_path, budget=128, made_of="a", log=said.append, show=lambda *_: None
    )
    rows = [examples[n] for n in range(len(examples))]
    with torch.no_grad():
        sides = [
            model.forward_padded([getattr(row, side) for row in rows]).reward
            for side in ("chosen", "rejected")
        ]
    expected = (sides[0] - sides[1]).numpy()
    np.testing.assert_allclose(states.own, expected, atol=2e-4)
    head = model.head.weight.detach().numpy()[0]
    np.testing.assert_allclose(states.differences @ head, expected, atol=2e-4)
    assert (tmp_path / FILE).is_file()
    assert model.kept is None


def test_states_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    model = tiny_reward_model("llama")
    examples = examples_of(tmp_path, model)

    def made() -> np.ndarray:
        return end_states(
            model, examples, tmp_path, budget=128, made_of="a", log=lambda _: None,
            show=lambda *_: None,
        ).differences  # fmt: skip

    first = made()
    before = (tmp_path / FILE).stat().st_mtime_ns
    np.testing.assert_array_equal(made(), first)
    assert (tmp_path / FILE).stat().st_mtime_ns >= before
    with torch.no_grad():  # Other weights below the states that are kept change nothing.
        for layer in model.backbone.layers:
            layer.mlp.down_proj.weight.mul_(2)
    np.testing.assert_array_equal(made(), first)


def rows_of(seed: int, rows: int = 300, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """States whose first column says which label is likelier, and clusters of two."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, width))
    agrees = rng.random(rows) < expit(3 * z[:, 0])
    return np.where(agrees[:, None], z, -z).astype(np.float32), np.arange(rows) // 2


def test_heads_are_the_minimum_of_the_penalised_loss() -> None:
    z, _ = rows_of(0)
    rng = np.random.default_rng(1)
    weights, scales = rng.integers(0, 3, (300, 2)).astype(float), rng.uniform(0.5, 2, 300)
    found = fit_heads(z, weights, 0.01, scales=scales)
    for member in range(2):

        def loss(v: np.ndarray, member: int = member) -> float:
            logs = np.logaddexp(0, -scales * (z @ v))
            return float(weights[:, member] @ logs + 0.01 * 300 / 2 * v @ v)

        best = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-8})
        assert loss(found[:, member]) == pytest.approx(best.fun, rel=1e-5)
        np.testing.assert_allclose(found[:, member], best.x, atol=0.02)


def test_labels_that_may_be_flipped_pull_less() -> None:
    z, _ = rows_of(0)
    z[:30] = -np.abs(z[:30]) - 2  # Surely wrong.
    ones = np.ones((300, 1))
    plain, robust = (
        fit_heads(z, ones, 0.01, scales=np.ones(300), flip_rate=rate)[0, 0] for rate in (0.0, 0.1)
    )
    assert robust > 1.1 * plain


def test_no_row_is_judged_by_a_head_that_saw_it_or_its_fold() -> None:
    z, clusters = rows_of(2)
    folds = clusters % 3
    before = held_out_margins(z, folds, clusters, members=3)
    changed = z.copy()
    changed[folds == 1] *= -1  # Turned labels of a fold change the judges of the others alone.
    columns = held_out_margins(changed, folds, clusters, members=3)
    inside = folds == 1
    np.testing.assert_allclose(columns.margins[inside], -before.margins[inside], rtol=1e-5)
    assert not np.allclose(columns.margins[~inside], before.margins[~inside], rtol=1e-2)
    assert (before.margins.std(1) > 0).all()
    assert (before.margins.mean(1) > 0).mean() > 0.75
    again = held_out_margins(z, folds, clusters, members=3)
    np.testing.assert_array_equal(again.margins, before.margins)
    with pytest.raises(ValueError, match="2 folds"):
        held_out_margins(z, clusters % 2, clusters)


def test_a_head_of_the_models_own_that_is_right_is_gone_on_from() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(60, 40)).astype(np.float32)
    own = rng.normal(size=60) * 4
    agrees = rng.random(60) < expit(own)
    own = np.where(agrees, own, -own)
    clusters = np.arange(60)
    alone, helped = (
        held_out_margins(noise, clusters % 3, clusters, own=given, members=2).margins.mean(1)
        for given in (None, own)
    )
    assert (helped > 0).mean() > 0.75 > (alone > 0).mean()
