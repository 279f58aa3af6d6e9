"""OpenVINO's own runtime on ONNX exports: `palate engines install openvino`."""

from pathlib import Path

import numpy as np
import pytest

from packed import tiny_reward_model
from palate.engines import ENGINES, Environment, find
from palate.engines.base import Reading
from palate.engines.openvino import FLOAT32, OPENVINO
from palate.engines.session import running
from palate.extras import missing
from palate.judges.reward_model import RewardScorer
from palate.model.export import Card, export
from palate.model.loading import load_chat
from palate.model.tokenizer import Encoded
from palate.types import Candidates, Message, PalateError

PROMPT = (Message("user", "How do I bake bread?"),)
RESPONSES = ("Mix flour, and salt.", "No.", "Which of these is it?")


@pytest.fixture(scope="module")
def environment() -> Environment:
    if absent := missing("onnx"):
        pytest.skip(f"not installed: {', '.join(absent)}")
    try:
        return find(OPENVINO)
    except PalateError as error:
        pytest.skip(str(error))


@pytest.mark.slow  # Tracing the graph takes half a minute.
def test_pitfall_39_openvino_is_exact_with_the_hint(
    environment: Environment, tmp_path: Path
) -> None:
    tiny = tiny_reward_model("llama", changes={"num_hidden_layers": 1})
    model = export(tiny, tmp_path / "model", card=Card("tiny", "tiny", "0"))
    scored = RewardScorer(model, dtype="float32").score(iter([Candidates(PROMPT, RESPONSES)]))
    expected = np.array([s.value for row in scored for s in row])
    chat, rows = load_chat(model), []
    for response in RESPONSES:
        encoded = chat.encode(PROMPT, response)
        assert isinstance(encoded, Encoded)
        ids = tuple(int(i) for i in encoded.ids)
        rows.append(Reading((*PROMPT, Message("assistant", response)), "", ids))
    assert OPENVINO.form is not None
    form = OPENVINO.form(model, tmp_path)
    for setup in OPENVINO.setups(1024):
        with running(OPENVINO, environment, setup, form) as session:
            (way,) = setup.ways
            gaps = np.abs(np.array(way.ask(session, rows), dtype=float) - expected)
            tolerance = 1e-4 if setup.flags == (FLOAT32,) else 0.3
            assert gaps.max() < tolerance * expected.std(), setup.name


def test_it_is_an_engine_that_the_command_knows() -> None:
    assert ENGINES["openvino"] is OPENVINO
    promised = [setup.flags for setup in OPENVINO.setups(1024) if setup.ways[0].promised]
    assert all(FLOAT32 in flags for flags in promised)
