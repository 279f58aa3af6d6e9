import subprocess
import sys

import pytest

from palate.judges import JUDGES, open_judge
from palate.types import Message, Pair, PalateError

TRIVIAL = ("random", "longer", "shorter", "first")


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
    assert set(JUDGES) == {
        *TRIVIAL,
        "sequence-classifier",
        "reward-model",
        "chat",
        "generation",
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("longr", "unknown judge 'longr'; did you mean longer"),
        ({"random": {"sed": 3}}, "unknown option 'sed'; did you mean seed"),
        ({"longer": {"seed": 3}}, "it has no options"),
        ({"random": 3}, "expected a mapping"),
        ({"random": {}, "first": {}}, "expected one name"),
        ({"sequence-classifier": "x"}, "expected a mapping with `model` and `format`"),
        ({"sequence-classifier": {"model": "x"}}, "format: Field required"),
        ({"sequence-classifier": {"model": "x", "format": "text"}}, "format: Input should be"),
        (
            {"sequence-classifier": {"model": "x", "format": "chat", "max_token": 9}},
            "did you mean max_tokens",
        ),
        ({"reward-model": {"path": "x"}}, "with `folder`"),
        ({"reward-model": {"folder": "x", "nam": "y"}}, "did you mean name"),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_the_cure(spec, message):
    with pytest.raises(PalateError, match=message) as caught:
        open_judge(spec)
    assert "\n" not in str(caught.value)


def test_trivial_judges_need_no_torch():
    code = (
        "import sys\nfrom palate.judges import open_judge\n"
        "[open_judge(name) for name in ('random', 'longer', 'shorter', 'first')]\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
