"""Our checkpoint as a judge: scores are the model's, whatever the window and micro-batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from palate.evaluate.parity import pipeline_backend, reward_model_backends, template_backend
from palate.judges import open_judge
from palate.judges.reward_model import RewardScorer
from palate.judges.scorer import ScorerJudge
from palate.model.export import Card, export
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import TOO_LONG, ChatTokens
from palate.types import Candidates, Message, Pair, PalateError
from tiny import CHATML, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chat = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=64))
    model = RewardModel(tiny_model("llama"), chat)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return export(
        model, tmp_path_factory.mktemp("rm") / "helpful", card=Card("helpful", "tiny", "0")
    )


def ask(text: str, *responses: str) -> Candidates:
    return Candidates((Message("user", text),), responses)


QUESTIONS = [
    ask("What is the sea?", "Blue.", "Wide and deep."),
    ask("Bread?", "Flour and water.", "No.", "Flour and water."),
    ask("What is the sea?", "Wide and deep.", "Bread."),
]


def test_pitfall_24_scores_move_with_neither_window_nor_micro_batch(folder: Path) -> None:
    together = list(RewardScorer(folder).score(QUESTIONS))
    small = RewardScorer(folder, tokens_per_microbatch=16)
    alone = [next(iter(small.score([question]))) for question in QUESTIONS]
    for rows in zip(together, alone, strict=True):
        for a, b in zip(*rows, strict=True):
            assert a.value == pytest.approx(b.value, abs=1e-5)
    assert together[0][1] == together[2][0], "asked twice, encoded once"
    assert together[1][0] == together[1][2]


def test_a_response_over_the_limit_is_unscored_and_a_cut_prompt_is_said(folder: Path) -> None:
    ((long, short),) = RewardScorer(folder).score([ask("the sea " * 60, "blue " * 90, "Blue.")])
    assert (long.value, long.reason) == (None, TOO_LONG)
    assert short.truncated
    assert short.tokens <= 64


def test_a_row_that_the_template_refuses_is_unscored_with_the_reason(tmp_path: Path) -> None:
    """The others are scored; a pair is unscored; parity's ways have no number there either."""
    strict = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
    )
    chat = ChatTokens(tiny_tokenizer(template=strict + CHATML), BaseOptions(max_tokens=64))
    folder = export(
        RewardModel(tiny_model("llama"), chat), tmp_path / "rm", card=Card("a", "b", "")
    )
    system = Candidates((Message("system", "Be kind."), *QUESTIONS[0].prompt), ("Blue.", "Wide."))
    scorer = RewardScorer(folder)
    good, refused = scorer.score([QUESTIONS[0], system])
    assert all(score.value is not None for score in good)
    reason = "the chat template refuses turns system/user/assistant: System role not supported"
    assert [(score.value, score.reason) for score in refused] == [(None, reason)] * 2
    pairs = [Pair("p", system.prompt, "Blue.", "Wide."), Pair("q", QUESTIONS[0].prompt, "a", "b")]
    one, other = ScorerJudge(scorer).judge(pairs)
    assert (one.choice, one.reason, other.reason) == (None, reason, "")
    for way in (
        *reward_model_backends(scorer),
        pipeline_backend(str(folder)),
        template_backend(str(folder), 64),
    ):
        assert np.isnan(way.score([system, QUESTIONS[0]])).tolist() == [True, True, False, False]


def test_it_judges_pairs_and_names_its_protocol(folder: Path) -> None:
    judge = open_judge({"reward-model": {"folder": str(folder), "name": "ours"}})
    (preference,) = judge.judge([Pair("p", QUESTIONS[0].prompt, *QUESTIONS[0].responses)])
    assert preference.choice in ("first", "second")
    assert judge.name == "ours"
    assert {"revision", "format", "dtype", "attention"} <= set(judge.protocol)


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="no such folder"):
        RewardScorer(tmp_path / "nothing")
