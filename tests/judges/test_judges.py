import subprocess
import sys

import pytest

from palate.judges import JUDGES, open_judge
from palate.types import Message, Pair, PalateError

TRIVIAL = ("random", "longer", "shorter", "first")
KINDS = ("text-to-text", "reward-endpoint", "run-batch")
ENDPOINT = {"url": "http://localhost:1", "shape": "openrlhf", "input": "plain"}


@pytest.mark.parametrize("name", TRIVIAL)
def test_every_trivial_judge_opens_by_name_and_answers(name):
    judge = open_judge(name)
    pairs = [Pair("a", (Message("user", "q"),), "one", "three")]
    assert judge.name == name
    assert [answer.pair_id for answer in judge.judge(pairs)] == ["a"]
    assert judge.protocol["judge"] == name


def test_random_takes_a_seed():
    assert open_judge({"random": {"seed": 3}}).protocol["seed"] == 3


def test_judges_are_one_visible_dict():
    kinds = {"sequence-classifier", "reward-model", "chat", "generation", *KINDS}
    assert set(JUDGES) == {*TRIVIAL, *kinds}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("longr", "unknown judge 'longr'; did you mean 'longer'"),
        ({"random": {"sed": 3}}, "unknown option 'sed'; did you mean 'seed'"),
        ({"longer": {"seed": 3}}, "it has no options"),
        ({"random": 3}, "expected a mapping"),
        ({"random": {}, "first": {}}, "expected one name"),
        ({"sequence-classifier": "x"}, "expected a mapping with `model` and `format`"),
        ({"sequence-classifier": {"model": "x"}}, "format: is required"),
        ({"sequence-classifier": {"model": "x", "format": "text"}}, "format: Input should be"),
        (
            {"sequence-classifier": {"model": "x", "format": "chat", "max_token": 9}},
            "did you mean 'max_tokens'",
        ),
        ({"text-to-text": None}, "model: is required"),
        ({"text-to-text": {"model": "x", "reading": "both"}}, "reading: Input should be"),
        ({"reward-endpoint": "http://x"}, "expected a mapping with `url`, `shape` and `input`"),
        ({"reward-endpoint": ENDPOINT | {"url": "x"}}, "url: expected http://HOST:PORT"),
        ({"reward-endpoint": ENDPOINT | {"url": "http://x:99999"}}, "url: Port out of range"),
        ({"reward-endpoint": ENDPOINT | {"path": "/r?key=s3cret"}}, "path: String should match"),
        ({"reward-endpoint": ENDPOINT | {"url": "http://me:pw@x"}}, "name it in key_env"),
        ({"reward-endpoint": ENDPOINT | {"url": "http://x?key=1"}}, "name it in key_env"),
        ({"reward-endpoint": ENDPOINT | {"input": "chat"}}, "endpoint: input chat .* needs `tok"),
        ({"reward-endpoint": ENDPOINT | {"input": "messages"}}, "takes no messages; set input"),
        ({"reward-endpoint": ENDPOINT | {"input": "pair"}}, "takes no pairs; set input"),
        ({"reward-endpoint": ENDPOINT | {"max_tokens": 99}}, "count tokens and need `tokenizer`"),
        ({"reward-endpoint": ENDPOINT | {"shape": "vllm"}}, "shape: Input should be"),
        ({"reward-endpoint": ENDPOINT | {"key": "s3cret"}}, "did you mean 'key_env'"),
        ({"reward-endpoint": ENDPOINT | {"key_env": "sk-s3cret"}}, "key_env: String should match"),
        ({"reward-model": {"path": "x"}}, "with `folder`"),
        ({"reward-model": {"folder": "x", "nam": "y"}}, "did you mean 'name'"),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_the_cure(spec, message):
    with pytest.raises(PalateError, match=message) as caught:
        open_judge(spec)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_trivial_judges_need_no_torch():
    code = (
        "import sys\nfrom palate.judges import open_judge\n"
        "[open_judge(name) for name in ('random', 'longer', 'shorter', 'first')]\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
