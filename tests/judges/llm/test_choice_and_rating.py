"""A chat judge that names the best of K, or rates one response at a time, against a real server."""

import math
import re

import pytest

from answering import Reply, endpoint, message, pair, says
from palate.data.benchmarks import import_benchmark
from palate.data.sources.base import Request
from palate.evaluate.benchmark import Benchmark, order_for
from palate.evaluate.run import evaluate
from palate.evaluate.scores import read_score
from palate.judges import chat_spec, open_judge
from palate.judges.llm.cost import estimate
from palate.judges.options import Criterion
from palate.judges.scorer import scorer_of
from palate.records import read_verdicts
from palate.types import Candidates, Message, PalateError, digest
from published import rewardbench_2, write_rows

NOWHERE = "http://127.0.0.1:9/v1"  # Nothing listens there, and nothing need.
RUBRIC = {"truth": {"text": "It is true.", "weight": 3}, "tone": "It is kind."}


def shown(*worth: int, number: int = 0, rated: bool = False) -> Candidates:
    """An item of K whose responses say what they are worth."""
    texts = tuple(f"answer {n} worth {value}" for n, value in enumerate(worth))
    return Candidates((Message("user", f"Question {number}?"),), texts, rated)


def honest(body: dict, _before: int) -> Reply:
    """It names the response that is worth most, or says what the one it is shown is worth."""
    worth = [int(value) for value in re.findall(r"worth (\d+)", message(body))]
    if "<criteria>" in message(body):
        return says(f"truth: {worth[0]}\ntone: 1")
    if "<answer>" in message(body):
        return says(str(worth[0]))
    return says("ABCDEFGH"[worth.index(max(worth))])


def test_best_of_k_is_one_question_an_item_and_one_letter_its_answer(options):
    items = [shown(1, 9, 3, 4, number=0), shown(2, 1, number=1), shown(1, 2, 3, number=2)]
    with endpoint(honest) as server:
        judge = open_judge({"chat": options(server.url, preset="best-of-k")})
        assert judge.sees_both
        found = list(scorer_of(judge).score(iter(items)))
        assert server.asked.total() == 3
    assert [tuple(score.value for score in scores) for scores in found] == [
        (0, 1, 0, 0), (1, 0), (0, 0, 1),
    ]  # fmt: skip


def test_best_of_two_is_a_judge_of_pairs_too(options):
    def good(body: dict, _before: int) -> Reply:
        return says(
            "A" if message(body).index("good answer") < message(body).index("bad answer") else "B"
        )

    with endpoint(good) as server:
        judge = open_judge({"chat": options(server.url, preset="best-of-k")})
        found = list(judge.judge([pair(n) for n in range(4)]))
    assert [one.choice for one in found] == ["first", "second"] * 2
    assert order_for(judge, "auto") == "both"


def test_logprobs_of_the_letters_are_the_scores(options):
    def unsure(body: dict, _before: int) -> Reply:
        assert body["top_logprobs"] == 20
        return says("C", top={"C": -0.5, "A": -1.5, "B": -2.5, "D": -3.5})

    with endpoint(unsure) as server:
        judge = open_judge({"chat": options(server.url, preset="best-of-k")})
        (scores,) = scorer_of(judge).score([shown(1, 2, 3, 4)])
    values = [score.value for score in scores]
    assert sum(values) == pytest.approx(1)
    assert sorted(values, reverse=True) == [values[n] for n in (2, 0, 1, 3)]


def test_what_cannot_be_chosen_among_is_unscored_and_not_asked(options):
    with endpoint(honest) as server:
        judge = open_judge({"chat": options(server.url, preset="best-of-k")})
        many, alone, three = scorer_of(judge).score([shown(*[1] * 27), shown(5), shown(1, 2, 3)])
        assert server.asked.total() == 1
    assert {score.reason for score in many} == {"more than 26 responses"}
    assert [(score.value, score.reason) for score in alone] == [
        (None, "no other response to choose from")
    ]
    assert [score.value for score in three] == [0, 0, 1]


def test_an_explanation_is_given_room_and_only_its_last_line_read(options):
    def explains(body: dict, _before: int) -> Reply:
        return says("D may seem the best: [[D]].\n\nB")

    with endpoint(explains) as server:
        judge = open_judge({"chat": options(server.url, preset="best-of-k-explained")})
        (scores,) = scorer_of(judge).score([shown(1, 2, 3, 4)])
        (body,) = server.bodies
    assert [score.value for score in scores] == [0, 1, 0, 0]
    assert body["max_tokens"] == judge.protocol["max_tokens"] == 2048
    assert "logprobs" not in body, "the first token is one of the explanation"
    with pytest.raises(PalateError, match="for which max_tokens 8 is no room; leave it out"):
        open_judge({"chat": options(NOWHERE, preset="best-of-k-explained", max_tokens=8)})


def test_ratings_decide_pairs_and_items_and_equal_ratings_tie(options):
    with endpoint(honest) as server:
        judge = open_judge({"chat": options(server.url, preset="rating")})
        (scores,) = scorer_of(judge).score([shown(7, 9, 9)])
        assert [score.value for score in scores] == [7, 9, 9]
        assert order_for(judge, "auto") == "seeded", "each response is read by itself"
        assert server.asked.total() == 3
    with endpoint(lambda body, _: says("8" if "good answer" in message(body) else "3")) as server:
        judge = open_judge({"chat": options(server.url, preset="rating")})
        (found,) = judge.judge([pair(1)])
        assert (found.choice, found.first_score, found.second_score) == ("second", 3, 8)
        assert found.answer == "first: 3\nsecond: 8"
        assert found.seconds > 0
    with endpoint(lambda body, _: says("6")) as server:
        given = options(server.url, preset="rating-ties")
        (found,) = open_judge({"chat": given}).judge([pair(1)])
        assert (found.choice, found.first_score) == ("tie", 6)


def test_a_response_without_a_rating_leaves_its_pair_and_its_item_unscored(options):
    def coy(body: dict, _before: int) -> Reply:
        return says("It depends." if "good answer" in message(body) else "3")

    with endpoint(coy) as server:
        judge = open_judge({"chat": options(server.url, preset="rating")})
        (found,) = judge.judge([pair(0)])
    assert (found.choice, found.reason) == (None, "unparsed")
    assert found.answer == "first: It depends.\nsecond: 3"


def test_a_rubric_is_asked_by_its_criteria_and_weighed(options):
    with endpoint(honest) as server:
        judge = open_judge({"chat": options(server.url, preset="rubric", criteria=RUBRIC)})
        (scores,) = scorer_of(judge).score([shown(4, 2)])
        body = server.bodies[0]
    assert [score.value for score in scores] == [(3 * 4 + 1) / 4, (3 * 2 + 1) / 4]
    assert scores[0].attributes == {"truth": 4.0, "tone": 1.0}
    assert "truth: It is true.\ntone: It is kind." in message(body)
    assert "3" not in message(body).split("<criteria>")[1].split("</criteria>")[0]
    assert body["max_tokens"] == 32
    assert judge.protocol["criteria"]["truth"] == {"text": "It is true.", "weight": 3.0}


def test_every_prompt_and_every_weight_is_part_of_the_protocol(options):
    def protocol(**changes):
        return digest(open_judge({"chat": options(NOWHERE, **changes)}).protocol)

    heavier = {**RUBRIC, "tone": {"text": "It is kind.", "weight": 2}}
    made = [
        protocol(preset=name)
        for name in ("rating", "rating-ties", "rating-explained", "best-of-k", "safety")
    ]
    made += [protocol(preset="rubric", criteria=one) for one in (RUBRIC, heavier)]
    made.append(protocol(preset="best-of-k", rated_preset="rating"))
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"preset": "rubric"}, "rates by criteria, and none is given"),
        ({"criteria": RUBRIC}, "has no place for criteria; set preset to rubric"),
        ({"preset": "rubric", "criteria": {"a:b": "x"}}, "criteria"),
        ({"preset": "rubric", "criteria": {"a": {"text": "x", "weight": 0}}}, "greater than 0"),
        ({"preset": "rubric", "criteria": {"a": {"text": "x", "wieght": 1}}}, "weight"),
        ({"preset": "rubric", "criteria": {"a": {"text": "x", "weight": math.inf}}}, "finite"),
        ({"preset": "rubric", "criteria": {"A b": "x", "a B": "y"}}, "A b and a B are read alike"),
        ({"preset": "rubric", "criteria": {"a-": "x"}}, "criteria"),
        (
            {"preset": "best-of-k", "rated_preset": "rating-explained", "max_tokens": 8},
            "preset rating-explained: asks for an explanation",
        ),
        ({"preset": "best-of-k", "rated_preset": "safety"}, "expected a prompt that rates one"),
        ({"preset": "rating", "rated_preset": "rating"}, "of a choice among K alone"),
        ({"preset": "rating", "api": "systemone"}, "answers A or B; preset rating asks for more"),
    ],
)
def test_options_that_do_not_fit_the_prompt_are_one_line(options, change, line):
    with pytest.raises(PalateError, match=line) as caught:
        open_judge({"chat": options(NOWHERE, **change)})
    assert "\n" not in str(caught.value)


def test_cost_counts_what_is_asked_of_each_form(options):
    def questions(preset: str, *asked) -> int:
        given = chat_spec(options(NOWHERE, preset=preset))
        return estimate(given, asked).questions

    both = [pair(0), pair(1)]
    assert questions("rating", *both) == 4
    assert questions("best-of-k", *both) == 2
    assert questions("llama2-zero-shot", shown(1, 2, 3, 4)) == 12, "every two, in both orders"
    assert questions("best-of-k", shown(1, 2, 3, 4)) == 1
    assert questions("best-of-k", shown(1, 2, 3, 4, rated=True)) == 4
    given = chat_spec(options(NOWHERE, preset="rubric", criteria=RUBRIC))
    assert estimate(given, both).completion_tokens == 4 * 32
    assert isinstance(given.criteria["tone"], Criterion)


# As RewardBench 2 has it: the best of four by name, Ties by ratings.


def test_rewardbench_2_is_asked_by_letters_and_its_ties_by_ratings(tmp_path, options):
    rows = [rewardbench_2("Math", str(n)) for n in range(6)]
    rows += [
        rewardbench_2("Ties", f"{sort}:0", right, 2) for sort, right in (("ref", 1), ("tied", 3))
    ]
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "test.jsonl", rows)
    file = tmp_path / "bench.parquet"
    import_benchmark("rewardbench-2", file, Request(location=str(folder)), partial=True)
    benchmark = Benchmark("rewardbench-2", file)
    right = {text for row in rows for text in row["chosen"]}

    def knows(body: dict, _before: int) -> Reply:
        blocks = re.findall(r"<answer(?:_[A-Z])?>\n(.*?)\n</answer", message(body), re.S)
        if "<answer>" in message(body):
            return says("10" if blocks[0] in right else "2")
        return says("ABCD"[next(n for n, text in enumerate(blocks) if text in right)])

    with endpoint(knows) as server:
        judge = open_judge({"chat": options(server.url, preset="best-of-k")})
        path = evaluate(judge, benchmark, tmp_path / "verdicts")
        assert server.asked.total() == 6 + 3 + 5
    verdicts = list(read_verdicts(path))
    assert [verdict.value for verdict in verdicts] == [1.0] * 8
    first = {verdict.chosen_first for verdict in verdicts}
    assert first == {True, False}, "the right one is not always the first: the order is seeded"
    score = read_score(path)
    parts = {part.name: score.estimate(part).value for part in score.parts}
    assert parts["Math"] == 1.0
    assert parts["Ties"] == pytest.approx(1.0)
