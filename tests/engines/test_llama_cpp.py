"""llama.cpp's own server on GGUF exports. It is built from source: `palate engines install`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from palate.engines import ENGINES, Environment, find
from palate.engines.base import Reading, RefusedError
from palate.engines.llama_cpp import KINDS, LLAMA_CPP
from palate.engines.session import running
from palate.judges.reward_model import RewardScorer
from palate.model.backbone import load_backbone
from palate.model.export import Card, export
from palate.model.loading import load_chat
from palate.model.options import BaseOptions
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens, Encoded
from palate.types import Candidates, Message, PalateError
from tiny import save_tiny

PROMPTS = [
    (Message("user", "How do I bake bread? 12 34"),),
    (Message("user", "naïve ☃ 你好"), Message("assistant", "Yes."), Message("user", "Why?")),
]
RESPONSES = ("Mix flour, and salt.", "No.", "  Which of these   is it?\n\n1. one")


@pytest.fixture(scope="module")
def environment() -> Environment:
    try:
        return find(LLAMA_CPP)
    except PalateError as error:
        pytest.skip(str(error))


def tiny_export(folder: Path, family: str) -> Path:
    base = save_tiny(folder / "base", family, num_hidden_layers=2, hidden_size=64)
    opened = load_backbone(str(base))
    model = RewardModel(opened.model, ChatTokens(opened.tokenizer, BaseOptions(model=str(base))))
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return export(model, folder / "model", card=Card("tiny", "tiny", "0"))


def readings(model: Path) -> list[Reading]:
    chat, rows = load_chat(model), []
    for prompt in PROMPTS:
        for response in RESPONSES:
            encoded = chat.encode(prompt, response)
            assert isinstance(encoded, Encoded)
            ids = tuple(int(i) for i in encoded.ids)
            text = chat.tokenizer.decode(ids)
            rows.append(Reading((*prompt, Message("assistant", response)), text, ids))
    return rows


@pytest.mark.slow  # Each format is a start of a server; with a model of any size, seconds.
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_pitfall_30_llama_cpp_gives_the_rewards_that_were_trained(
    environment: Environment, family: str, tmp_path: Path
) -> None:
    model = tiny_export(tmp_path, family)
    rows = readings(model)
    asked = [Candidates(prompt, RESPONSES) for prompt in PROMPTS]
    scored = RewardScorer(model, dtype="float32").score(iter(asked))
    expected = np.array([s.value for row in scored for s in row])
    assert LLAMA_CPP.form is not None
    form = tmp_path / "form"
    form.mkdir()
    LLAMA_CPP.form(model, form)
    assert {path.name for path in form.glob("*.gguf")} == set(KINDS)
    tolerance = {"f32.gguf": 1e-4, "bf16.gguf": 0.2, "q8_0.gguf": 0.2}
    for setup in (LLAMA_CPP.setups(1024)[0], *LLAMA_CPP.setups(1024)[2:]):
        with running(LLAMA_CPP, environment, setup, form) as session:
            for way in setup.ways:
                if way.promised:
                    chosen = [i for i, r in enumerate(rows) if r.single_turn or not way.pairs]
                    found = way.ask(session, [rows[i] for i in chosen])
                    gaps = np.abs(np.array(found, dtype=float) - expected[chosen])
                    assert gaps.max() < tolerance[setup.flags[1]] * expected.std(), way
            if setup.flags[1] == "f32.gguf":
                left_out = next(w for w in setup.ways if w.route.startswith("/apply-template"))
                without_end = left_out.ask(session, rows)
                assert np.abs(np.array(without_end, dtype=float) - expected).max() > 0.01
                long = Reading(rows[0].messages, "x", rows[0].ids * 400)
                with pytest.raises(RefusedError, match="exceeds the available context size"):
                    next(w for w in setup.ways if w.asked == "token ids").ask(session, [long])


def test_it_is_an_engine_that_the_command_knows() -> None:
    assert ENGINES["llama.cpp"] is LLAMA_CPP
    assert all(setup.flags[0] == "-m" for setup in LLAMA_CPP.setups(1024))
    assert {setup.flags[1] for setup in LLAMA_CPP.setups(1024)} == set(KINDS)
