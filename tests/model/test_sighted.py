"""A model that also sees trains, scores, plans and exports by its text decoder."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen2Config

from palate.judges import ScorerJudge, open_judge
from palate.model.backbone import decoder_config, load_config
from palate.model.export import Card, export
from palate.model.loading import load_reward_model, start_model
from palate.model.options import BaseOptions
from palate.model.packing import group
from palate.train.cost import model_stats
from palate.train.options import TrainOptions
from palate.types import Candidates, Message, PalateError
from sighted import SIGHTED, save_sighted

PROMPT, RESPONSES = (
    (Message("user", "How do I bake bread?"),),
    ("Mix flour.", "No.", "The sea. " * 3),
)
PATHS = {"gemma3": "shared prefix (sdpa)", "qwen3_5": "padded"}


@pytest.mark.filterwarnings("ignore")  # Of token ids that a tiny vocabulary does not have.
@pytest.mark.parametrize("family", SIGHTED)
def test_the_text_decoder_of_a_model_that_sees_is_a_reward_model(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = save_sighted(tmp_path / "base", family)
    model, opened = start_model(BaseOptions(model=str(tmp_path / "base")))
    assert "its text decoder alone is used" in caplog.text
    assert "left out of" in opened.facts["text only"]
    assert model.path == PATHS.get(family, "shared prefix (sdpa)")
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    encoded = [model.chat.encode(PROMPT, response) for response in RESPONSES]
    rows = [e.ids for e in encoded if e is not None]
    model([group(rows)]).reward.sum().backward()
    used = [p.grad is not None for p in model.parameters() if p.requires_grad]
    assert sum(used) >= len(used) - 2
    model.eval()
    with torch.no_grad():
        found = model([group(rows)]).reward
        torch.testing.assert_close(found, model.forward_padded(rows).reward, atol=1e-5, rtol=1e-5)
        for row, reward in zip(rows, found, strict=True):
            ids = torch.from_numpy(row[None].astype("int64"))
            kinds = {"token_type_ids": torch.zeros_like(ids)} if family == "gemma3" else {}
            hidden = whole.model(input_ids=ids, use_cache=False, **kinds).last_hidden_state[0, -1]
            assert float(reward) == pytest.approx(float(hidden @ model.head.weight[0]), abs=1e-4)
    expected = found.tolist()
    card = Card("tiny", "tiny", "0", facts=dict(opened.facts))
    folder = export(model, tmp_path / "rm", card=card)
    judge = open_judge({"reward-model": str(folder)})
    assert isinstance(judge, ScorerJudge)
    scores = next(iter(judge.scorer.score([Candidates(PROMPT, RESPONSES)])))
    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-4)
    stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = [float(stock(torch.from_numpy(r[None].astype("int64"))).logits) for r in rows]
    assert logits == pytest.approx(expected, abs=1e-4)
    assert ("stock class" in (folder / "README.md").read_text()) == (
        family in ("gemma4", "qwen2_5_vl")
    )
    planned = model_stats(load_config(str(tmp_path / "base")), TrainOptions())
    assert planned.parameters == sum(p.numel() for p in model.parameters())
    if family == "gemma4":
        with pytest.raises(PalateError, match=r"cannot be cut; leave base\.layers out"):
            start_model(BaseOptions(model=str(tmp_path / "base"), layers=1))
    else:
        cut, _ = start_model(BaseOptions(model=str(tmp_path / "base"), layers=1))
        assert cut.backbone.config.num_hidden_layers == 1


@pytest.mark.filterwarnings("ignore")
def test_qwens_own_tokenizer_makes_its_text_decoder_a_plain_qwen2(tmp_path: Path) -> None:
    """Of text its three sections of positions are one; Qwen2 has a classifier in transformers."""
    from transformers import Qwen2Tokenizer

    from palate.model.backbone import text_decoder

    whole = save_sighted(tmp_path, "qwen2_5_vl")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.__class__ = type("Qwen2Tokenizer", (type(tokenizer),), {})
    assert tokenizer.__class__.__name__ == Qwen2Tokenizer.__name__
    plain, _ = text_decoder(whole.model, tokenizer, "tiny")
    assert isinstance(plain.config, Qwen2Config)
    assert decoder_config(whole.config).model_type == "qwen2"
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected = whole.model(input_ids=ids, use_cache=False).last_hidden_state
        found = plain(input_ids=ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_reward_model_of_it_is_reopened_as_it_was(tmp_path: Path) -> None:
    save_sighted(tmp_path / "base", "gemma3")
    model, _ = start_model(BaseOptions(model=str(tmp_path / "base")))
    folder = export(model, tmp_path / "rm", card=Card("tiny", "tiny", "0"))
    again, _ = start_model(BaseOptions(model=str(folder)))
    assert torch.equal(again.head.weight, load_reward_model(folder).head.weight)
