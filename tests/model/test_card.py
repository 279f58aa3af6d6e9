"""The model card: valid front matter, escaped strangers, the licence that binds."""

import re

import pytest
import yaml

from palate.model.export import Card, DataShare, most_restrictive, onnx_card, render_card

CARD = Card(
    name="Helpfulness RM",
    base="HuggingFaceTB/SmolLM2-135M-Instruct",
    base_revision="abc",
    base_licence="apache-2.0",
    base_layers=12,
    recipe="name: demo\nseed: 1",
    recipe_fingerprint="f00d",
    data=(
        DataShare("hh", "mit", 1200, 0.75, 0.7, "https://huggingface.co/datasets/Anthropic/hh"),
        DataShare("pku", "cc-by-nc-4.0", 400, 0.25),
    ),
    tables={"Table 7": "| a | b |\n|---|---|\n| 1 | 2 |"},
    facts={"seed": "1"},
)


def front(text: str) -> dict[str, object]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_front_matter_is_what_the_hub_reads() -> None:
    found = front(render_card(CARD, terminal="<|im_end|>", max_tokens=512))
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-classification"
    assert found["base_model"] == CARD.base
    assert found["license"] == "cc-by-nc-4.0"


def test_says_where_it_comes_from() -> None:
    text = render_card(CARD, terminal="<|im_end|>", max_tokens=512)
    for expected in ("first 12 layers only", "| 1,200 | 75.0% | 70.0% |", "seed: 1", "512 tokens"):
        assert expected in text
    assert CARD.tables["Table 7"] in text


def test_untrusted_text_stays_text() -> None:
    evil = "x | y\n---\nlicense: mit\n<script>a</script> [l](javascript:b) ```"
    data = (DataShare(evil, evil, 1, 1.0, url="javascript:alert(1)"),)
    card = Card(evil, evil, evil, evil, summary=evil, recipe="a: |\n  ```\n  # b", data=data)
    text = render_card(card, terminal="<|x|>", max_tokens=8)
    found = front(text)
    assert found["license"] == "other"
    assert "base_model" not in found
    body = text.split("---\n", 2)[2]
    assert "<script" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)
    assert "\nlicense: mit" not in body
    assert "````yaml\n" in body


@pytest.mark.parametrize(
    ("licences", "binding"),
    [
        (["mit", "apache-2.0"], "mit"),
        (["mit", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["cc-by-nc-4.0", "llama2", "mit"], "cc-by-nc-4.0"),
        (["cc-by-nc-4.0", None], "unknown"),
        ([], None),
    ],
)
def test_the_most_restrictive_licence_binds(
    licences: list[str | None], binding: str | None
) -> None:
    assert most_restrictive(licences) == binding


def test_says_how_it_must_be_read_and_what_each_engine_must_be_told() -> None:
    text = render_card(CARD, terminal="<|im_end|>", max_tokens=512)
    for expected in (
        "At most 512 tokens", "--max-model-len 512", "--dtype float32", "use_activation",
        '"truncation_side": "left"', "raw logit", "raw_scores", "random bias",
    ):  # fmt: skip
        assert expected in text


def test_the_card_of_an_onnx_export_speaks_of_its_own_use_alone() -> None:
    text = onnx_card(render_card(CARD, terminal="<|im_end|>", max_tokens=512))
    assert re.findall(r"(?m)^## (.*)", text) == [
        "Use", "How it must be read", "Origin", "Training data", "Table 7", "Recipe", "Licence",
    ]  # fmt: skip
    assert "vLLM" not in text
    assert onnx_card("# A stranger's\n").startswith("# A stranger's\n\n## Use\n")
