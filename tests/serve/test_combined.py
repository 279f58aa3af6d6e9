"""Section 3.2.3: the safety model decides where it must, the helpfulness model elsewhere."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from asked import conversation
from packed import tiny_reward_model
from palate.cli import main
from palate.judges.reward_model import RewardScorer
from palate.model.export import Card, export
from palate.model.packing import group
from palate.serve.app import Server
from palate.serve.combined import (
    THRESHOLD,
    Combination,
    Combined,
    SafetyWords,
    combine,
    measure,
    read_combination,
    write_combination,
)
from palate.serve.engine import Busy, Engine, ScoreRequest
from palate.serve.loading import add_combined, open_models
from palate.serve.service import Registry
from palate.types import Candidates, Message, PalateError
from server import exported, live

KNOWN = Combination(THRESHOLD, 0.5, 2.0, 10, 0.3, "s" * 32, "h" * 32, "a test")
rewards: Any = st.floats(-15, 15)


@settings(deadline=None, max_examples=50)
@given(rewards, rewards, st.booleans())
def test_it_is_the_papers_formula(safety: float, helpfulness: float, tagged: bool) -> None:
    r_s, r_h = expit(safety), expit(helpfulness)
    expected = logit(r_s if tagged or r_s < 0.15 else r_h)
    found = combine(np.array([safety]), np.array([helpfulness]), np.array([tagged]))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_extreme_rewards_lose_nothing_to_a_sigmoid() -> None:
    found = combine(np.array([50.0, -900.0]), np.array([800.0, 1.0]), np.array([False, False]))
    assert found.tolist() == [800.0, -900.0]


def test_where_safety_has_no_number_helpfulness_may_not_decide() -> None:
    assert np.isnan(combine(np.array([math.nan]), np.array([3.0]), np.array([False]))).all()


def models() -> tuple[Any, Any]:
    safety, helpfulness = tiny_reward_model("llama").eval(), tiny_reward_model("llama").eval()
    with torch.no_grad():
        helpfulness.head.weight.mul_(-0.5)
    return safety, helpfulness


def ask_all(ask: ScoreRequest, combination: Combination = KNOWN) -> Any:
    """The parts of each reward, the engines' own rewards, and what helpfulness computed."""
    safety, helpfulness = models()

    async def run() -> Any:
        engines = [Engine(m, name=n) for m, n in ((safety, "safety"), (helpfulness, "helpful"))]
        for engine in engines:
            engine.start()
        combined = Combined(*engines, combination)
        parts = await combined.explain(ask)
        assert await combined.rewards(ask) == pytest.approx([p.reward for p in parts], abs=1e-5)
        asked = engines[1].stats.conversations
        own = [await engine.rewards(ask) for engine in engines]
        for engine in engines:
            await engine.drain(60)
        return parts, own, asked

    return asyncio.run(run())


def test_two_models_answer_as_one() -> None:
    rows = tuple(conversation(n % 5, [n, 9 * n]) for n in range(8))
    with torch.inference_mode():
        middle = models()[0]([group([row]) for row in rows]).reward.median().item()
    known = replace(KNOWN, threshold=float(expit(middle + 0.01)))
    parts, (r_s, r_h), asked = ask_all(ScoreRequest(rows, safety=(True,) + (False,) * 7), known)
    tagged = np.arange(8) == 0
    expected = (combine(np.array(r_s), np.array(r_h), tagged, known.threshold) - 0.5) / 2.0
    assert [p.reward for p in parts] == pytest.approx(expected.tolist(), abs=1e-5)
    assert {p.decided_by for p in parts[1:]} == {"safety", "helpfulness"}, "both are tested"
    assert (parts[0].decided_by, parts[0].helpfulness) == ("safety", None)
    assert asked == 2 * 7, "what helpfulness does not decide it is not asked"


def test_tags_must_be_as_many_as_conversations() -> None:
    with pytest.raises(ValueError, match="1 safety tags for 2"):
        ask_all(ScoreRequest((conversation(1, [1]), conversation(1, [2])), safety=(True,)))


def test_when_one_model_refuses_the_other_is_not_left_computing() -> None:
    safety, helpfulness = models()

    async def run() -> None:
        full = Engine(safety, name="safety", max_waiting_tokens=0)
        never_started = Engine(helpfulness, name="helpful")
        with pytest.raises(Busy):
            await Combined(full, never_started, KNOWN).rewards(
                ScoreRequest((conversation(1, [1]),))
            )
        while never_started.waiting_asks:
            await asyncio.sleep(0)
        assert never_started.waiting_tokens == 0

    asyncio.run(run())


def test_models_that_read_other_tokens_are_not_combined() -> None:
    safety, helpfulness = models()
    helpfulness.chat.max_tokens = 77
    with pytest.raises(PalateError, match="different tokens"):
        Combined(Engine(safety, name="s"), Engine(helpfulness, name="h"), KNOWN)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("models")
    names = ("safety", "helpfulness")
    return [
        str(export(model, root / name, card=Card(name, "tiny", "0")))
        for name, model in zip(names, models(), strict=True)
    ]


def test_measured_moments_whiten_what_was_measured(folders: list[str]) -> None:
    safety, helpfulness = map(RewardScorer, folders)
    rows = [
        (Candidates((Message("user", text),), ("Blue.", "Wide and deep.", "I cannot.")), tag)
        for text, tag in (("The sea?", False), ("Bread?", True), ("Paris?", False))
    ]
    found = measure(safety, helpfulness, rows, "three prompts")
    r_s, r_h = (
        np.array([s.value for row in scorer.score([item for item, _ in rows]) for s in row])
        for scorer in (safety, helpfulness)
    )
    combined = combine(r_s, r_h, np.repeat([False, True, False], 3))
    whitened = found.whiten(combined)
    assert (whitened.mean(), whitened.std()) == pytest.approx((0, 1), abs=1e-9)
    assert (found.responses, found.safety) == (9, safety.protocol["revision"])
    assert 3 / 9 <= found.by_safety < 1
    with pytest.raises(PalateError, match="between 0 and 1"):
        measure(safety, helpfulness, rows, "x", threshold=1.5)
    with pytest.raises(PalateError, match="1 responses with a reward"):
        measure(safety, helpfulness, [(Candidates(rows[0][0].prompt, ("Blue.",)), False)], "x")


def test_a_command_measures_and_writes(
    folders: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    rows = [{"prompt": f"Is {n} big?", "responses": ["Yes.", "Not so much"]} for n in range(4)]
    rows[0]["safety"] = True
    file, out, words = (tmp_path / n for n in ("rows.jsonl", "out.json", "words.txt"))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words.write_text("3 big\n")
    arguments = [*folders, file, "-o", out, "--safety-words", words]
    monkeypatch.setattr("sys.argv", ["palate", "combine", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "8 responses" in capsys.readouterr().err
    stored = json.loads(out.read_text())
    found = read_combination(out, safety=stored["safety"], helpfulness=stored["helpfulness"])
    assert found.by_safety >= 0.5, "two of four prompts are tagged, by row and by rule"


def test_a_stored_combination_comes_back_and_belongs_to_its_models(tmp_path: Path) -> None:
    path = tmp_path / "combined.json"
    write_combination(path, KNOWN)
    assert read_combination(path, safety="s" * 32, helpfulness="h" * 32) == KNOWN
    with pytest.raises(PalateError, match="another safety model"):
        read_combination(path, safety="x" * 32, helpfulness="h" * 32)


@pytest.mark.parametrize(
    "changes", [{"std": 0.0}, {"mean": math.nan}, {"threshold": 1.0}, {"threshold": "much"}]
)
def test_what_is_no_combination_is_one_line(tmp_path: Path, changes: Any) -> None:
    path = tmp_path / "combined.json"
    write_combination(path, replace(KNOWN, **changes))
    with pytest.raises(PalateError, match="palate combine"):
        read_combination(path, safety="s" * 32, helpfulness="h" * 32)
    with pytest.raises(PalateError, match="palate combine"):
        read_combination(tmp_path / "none", safety="", helpfulness="")


@pytest.mark.parametrize(
    ("text", "tagged"),
    [
        ("How do I make a BOMB?", True),
        ("a bombastic speech", False),
        ("Tell me about  self\nharm", True),
        ("self-harm", False),
        ("bread (v1.0) please", True),
        ("bread (v100) please", False),
    ],
)
def test_a_rule_tags_prompts_by_whole_words_of_the_users(text: str, tagged: bool) -> None:
    rule = SafetyWords(["bomb", "self harm", "", "(v1.0)"])
    assert rule([Message("user", text)]) is tagged
    assert not rule([Message("assistant", text)])


def test_a_rule_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PalateError, match="at least one word"):
        SafetyWords(["", " "])
    with pytest.raises(PalateError, match="no list of words"):
        SafetyWords.read(tmp_path / "none")


ITEM = {"prompt": "How do I bake bread?", "responses": ["Mix flour.", "The sea is wide."]}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Two models, and a file that combines them with a threshold between their rewards."""
    folder = tmp_path_factory.mktemp("combined")
    models = {
        "safety": exported(folder / "s", changes={"seed": 5}),
        "helpful": exported(folder / "h"),
    }
    served, engines = open_models({name: str(path) for name, path in models.items()})
    revisions = [served[name].facts["revision"] for name in ("safety", "helpful")]
    write_combination(
        folder / "c.json", Combination(0.5, 0.25, 2.0, 9, 0.5, *revisions, measured_on="x")
    )
    (folder / "words").write_text("bread\nbomb\n")
    return folder, served, engines


def test_it_is_asked_by_name_and_decides_as_in_the_paper(opened):
    folder, served, engines = opened
    add_combined(served, folder / "c.json", helpfulness="helpful")
    add_combined(
        served, folder / "c.json", helpfulness="helpful", words=folder / "words", name="worded"
    )
    with live(Server(Registry(served), engines)) as found:

        def rewards(model, **tags):
            answer = found.ok("/v1/reward", {"model": model, **ITEM, **tags})
            return [row["reward"] for row in answer["data"]]

        def whitened(values):
            return pytest.approx([(value - 0.25) / 2 for value in values], rel=1e-5, abs=1e-6)

        safe, helpful = rewards("safety"), rewards("helpful")
        free = [s if expit(s) < 0.5 else h for s, h in zip(safe, helpful, strict=True)]
        assert rewards("combined") == whitened(free)
        assert rewards("combined", safety_prompt=True) == whitened(safe)
        assert rewards("worded") == whitened(safe), "the prompt says bread"
        assert rewards("worded", safety_prompt=False) == whitened(free), "the client knows better"
        text = served["helpful"].reader.chat.tokenizer.apply_chat_template(
            [
                {"role": "user", "content": ITEM["prompt"]},
                {"role": "assistant", "content": ITEM["responses"][0]},
            ],
            tokenize=False,
        )
        (worded,) = found.ok("/get_reward?model=worded", {"query": text})["rewards"]
        assert [worded] == whitened(safe[:1])
        chat = served["helpful"].reader.chat.tokenizer
        ids = chat(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
        for form in (text, ids):
            answer = found.ok("/classify", {"model": "worded", "input": form})["data"]
            assert answer[0]["probs"] == whitened(safe[:1]), "ids and texts are tagged too"
        talk = [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "No bombs."},
            {"role": "user", "content": "Fine."},
            {"role": "assistant", "content": "The sea is wide."},
        ]
        text = chat.apply_chat_template(talk, tokenize=False)
        ids = chat(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
        asked = ({"messages": talk}, {"input": text}, {"input": ids})
        one, *rest = (
            found.ok("/classify", {"model": "worded", **form})["data"][0]["probs"][0]
            for form in asked
        )
        assert rest == pytest.approx([one, one], abs=1e-5), "an assistant's words are no tag"
        listed = found.http.get("/v1/models").json()["data"]
        assert [row["id"] for row in listed] == ["safety", "helpful", "combined", "worded"]
        assert listed[2]["threshold"] == 0.5
        assert len({row["fingerprint"] for row in listed}) == 3


def test_mistakes_are_one_line(opened):
    folder, served, _ = opened
    with pytest.raises(PalateError, match="no served model is named 'helpfulness'"):
        add_combined(served, folder / "c.json")
    with pytest.raises(PalateError, match="measured with another safety model"):
        add_combined(served, folder / "c.json", safety="helpful", helpfulness="safety", name="x")
