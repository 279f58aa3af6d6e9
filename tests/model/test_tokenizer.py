"""A saved tokenizer is read back as the same tokenizer, whatever its class makes of the files."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, LlamaTokenizer

from palate.model.tokenizer import CONFIG, SAMPLES, save_tokenizer
from palate.types import PalateError
from tiny import tiny_tokenizer


def read_with(folder: Path, tokenizer: Any, **keys: Any) -> Any:
    """The tokenizer, opened with keys that its repository has."""
    tokenizer.save_pretrained(folder)
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer: Any) -> list[list[int]]:
    texts = [*SAMPLES, *(f"<s>{text}</s>{text}" for text in SAMPLES)]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


@pytest.mark.parametrize("legacy", [True, False])
def test_pitfall_35_llama_2_keeps_the_way_it_splits(legacy: bool, tmp_path: Path) -> None:
    """`legacy` is not saved, and the class then splits after a special token in another way."""
    marks = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz", "x▁", "▁x"]
    plain = LlamaTokenizer(
        vocab={token: i for i, token in enumerate(marks)}, merges=[("▁", "x"), ("x", "▁")]
    )
    there = read_with(tmp_path / "base", plain, legacy=legacy)
    save_tokenizer(there, tmp_path / "saved")
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "saved")) == ids(there)


def test_pitfall_35_sides_set_afterwards_are_saved(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side, tokenizer.padding_side = "left", "left"
    tokenizer.model_max_length = 12
    save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (again.truncation_side, again.padding_side, again.model_max_length) == (
        "left",
        "left",
        12,
    )
    whole = again(SAMPLES[1])["input_ids"]
    assert len(whole) > 12
    assert again(SAMPLES[1], truncation=True)["input_ids"] == whole[-12:]


def test_what_cannot_be_read_back_the_same_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_tokenizer(bos=True)
    save = type(tokenizer).save_pretrained

    def forgets(self: Any, folder: Path) -> Any:
        """Saves its special tokens' rule as the class of some tokenizers makes it again."""
        self.backend_tokenizer.post_processor = processors.Sequence([])
        saved = save(self, folder)
        self.backend_tokenizer.post_processor = before
        return saved

    before = tokenizer.backend_tokenizer.post_processor
    monkeypatch.setattr(type(tokenizer), "save_pretrained", forgets)
    with pytest.raises(PalateError, match="other tokens or settings"):
        save_tokenizer(tokenizer, tmp_path)
