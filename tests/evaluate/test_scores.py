"""Benchmarks' own scores on made-up scores, held against those of their own code.

`PEERS` are what `rewardbench` 0.1.4 gives of the same scores; the slow test asks the real package,
where REWARDBENCH_PYTHON names an interpreter that has it (make bench-score makes one).
"""

import json
import math
import os
import subprocess

import numpy as np
import pytest

from palate import stats
from palate.data.benchmarks import BENCHMARKS, rewardbench_2
from palate.data.benchmarks.base import Answers
from palate.data.benchmarks.rewardbench import SECTIONS, SIZES
from palate.evaluate.scores import BenchmarkScore, letters


def answers(items, by_order=None) -> Answers:
    """Of (id, source, scores, places) an item; values as scores say."""
    ids, sources, scores, places = zip(*items, strict=True)
    counts = [len(one) for one in scores]
    pairs = [(one[0], one[1]) if len(one) == 2 else (math.nan, math.nan) for one in scores]
    values = [
        math.nan if math.isnan(a + b) else 1.0 if a > b else 0.5 if a == b else 0.0
        for a, b in pairs
    ]
    order = np.full((len(ids), 2), np.nan)
    order[:, 0] = values
    return Answers(
        ids=np.array(ids, dtype=object),
        sources=np.array(sources, dtype=object),
        clusters=np.arange(len(ids)),
        values=np.array(values),
        by_order=order if by_order is None else np.array(by_order, dtype=float),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        scores=np.concatenate([np.array(one, dtype=float) for one in scores]),
        places=np.concatenate(places),
        votes=np.tile([1.0, 0.0, 0.0], (len(ids), 1)),
    )


def figures(name: str, given: Answers) -> dict[str, float]:
    parts = BENCHMARKS[name].parts(given)
    return {part.name: stats.composite(part.terms, given.clusters).value for part in parts}


# RewardBench 1 and 2 on made-up scores with ties, NaN and missing items.


def made_pairs():
    """Whole numbers, so that many tie; some NaN; subsets of other sizes than published."""
    rng = np.random.default_rng(0)
    rows = []
    for subset, size in SIZES.items():
        if subset == "hep-cpp":
            continue  # A subset that is missing.
        for number in range(size // 4):
            chosen, rejected = rng.integers(0, 5, 2).astype(float)
            if number % 17 == 3:
                chosen = math.nan
            rows.append((f"{subset}/{number}", subset, (chosen, rejected), (0, 1)))
    return rows


def made_best_of_four():
    rng = np.random.default_rng(1)
    rows = []
    for subset in ("Factuality", "Focus", "Math"):
        for number in range(40):
            scores = rng.integers(0, 4, 4).astype(float)
            if number % 13 == 5:
                scores[rng.integers(4)] = math.nan
            rows.append((f"rewardbench-2/{subset}/{number}", subset, scores, (0, 1, 1, 1)))
    return rows


def made_ties(step: float = 1.0):
    """Many right answers; scores in steps, so that some prompts have all right ones alike."""
    rng = np.random.default_rng(2)
    rows = []
    for number in range(30):
        for sort in ("ref", "tied"):
            right = 1 if sort == "ref" else int(rng.integers(2, 6))
            wrong = int(rng.integers(3, 9))
            draws = rng.normal(size=right + wrong) + np.where(
                np.arange(right + wrong) < right, 3, 0
            )
            scores = np.round(draws / step) * step
            places = (0,) * right + (1,) * wrong
            rows.append((f"rewardbench-2/Ties/{sort}:{number}", "Ties", scores, places))
    return rows


PEER = """
import json, sys
import numpy as np
from datasets import Dataset
from rewardbench import process_single_model, reroll_and_score_dataset
from rewardbench.constants import EXAMPLE_COUNTS, SUBSET_MAPPING
from rewardbench.utils import calculate_scores_per_section
given = json.load(sys.stdin)
subsets = {}
for subset, (chosen, rejected) in given["pairs"]:
    subsets.setdefault(subset, []).append(1 if chosen > rejected else 0)
means = {name: sum(of) / len(of) for name, of in subsets.items()}
sections = calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, means)
rows = given["best"]
flat = Dataset.from_dict({
    "text": [str(i) for s, scores in rows for i, _ in enumerate(scores)],
    "scores": [x for s, scores in rows for x in scores],
    "subset": [s for s, scores in rows for _ in scores],
})
numbers = [n for n, (s, x) in enumerate(rows) for _ in x]
four = reroll_and_score_dataset(flat.add_column("row", numbers), [len(x) for _, x in rows])
best = {}
for s, r in zip(four["subset"], four["results"]):
    best.setdefault(s, []).append(r)
ties = {}
for name, rows in given["ties"].items():
    data = Dataset.from_dict({k: [row[k] for row in rows] for k in rows[0]})
    ties[name] = float(process_single_model(data)[1])
print(json.dumps({**sections, **{k: float(np.mean(v)) for k, v in best.items()}, **ties}))
"""


def asked_of_the_peer() -> str:
    def ties(rows):
        return [
            {
                "id": name.rpartition("/")[2],
                "scores": list(scores),
                "num_correct": places.count(0),
            }
            for name, _, scores, places in rows
        ]

    return json.dumps(
        {
            "pairs": [[subset, scores] for _, subset, scores, _ in made_pairs()],
            "best": [[subset, list(scores)] for _, subset, scores, _ in made_best_of_four()],
            "ties": {"fine": ties(made_ties(0.001)), "coarse": ties(made_ties())},
        }
    )


PEERS = {
    "Chat": 0.3886324993927617,
    "Chat Hard": 0.3306308701045543,
    "Safety": 0.34239205249392013,
    "Reasoning": 0.40151015760771863,
    "Factuality": 0.19791666666666666,
    "Focus": 0.2208333333333333,
    "Math": 0.18333333333333332,
    "fine": 0.585925893586623,
    "coarse": 0.42819563687693657,
}


def test_scores_are_those_of_rewardbench():
    ours = figures("rewardbench", answers(made_pairs()))
    ours |= figures("rewardbench-2", answers(made_best_of_four()))
    for name in (*SECTIONS, "Factuality", "Focus", "Math"):
        assert ours[name] == pytest.approx(PEERS[name], abs=1e-12), name
    for name, step in (("fine", 0.001), ("coarse", 1.0)):
        assert figures("rewardbench-2", answers(made_ties(step)))["Ties"] == pytest.approx(
            PEERS[name], abs=1e-12
        )


@pytest.mark.slow  # Imports torch, transformers and trl in another environment: half a minute.
def test_the_package_still_says_so():
    python = os.environ.get("REWARDBENCH_PYTHON")
    if not python:
        pytest.skip("REWARDBENCH_PYTHON names no interpreter with rewardbench==0.1.4")
    done = subprocess.run(
        [python, "-c", PEER], input=asked_of_the_peer(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(PEERS, abs=1e-12)


def test_the_head_of_the_repository_counts_equal_right_answers_in_the_margin():
    given = answers(made_ties())
    rows = np.ones(given.size, dtype=bool)
    both = [rewardbench_2.ties(given, rows, head=head) for head in (False, True)]
    values = [stats.composite(part.terms).value for part in both]
    assert values[0] != values[1]
    assert values[0] == pytest.approx(values[1], abs=0.01)


def test_a_prompt_with_nan_is_accurate_in_nothing():
    rows = made_ties()
    name, source, scores, places = rows[1]
    broken = scores.copy()
    broken[-1] = math.nan
    measures = {}
    for label, one in (("whole", scores), ("broken", broken)):
        given = answers([rows[0], (name, source, one, places)])
        part = rewardbench_2.ties(given, np.ones(2, dtype=bool))
        measures[label] = [term.mean for term in part.terms]
    assert measures["broken"][0] == 0  # The tied prompt; its ref stays what it was.
    assert measures["broken"][1] == measures["whole"][1]


def test_chance_of_best_of_four_is_a_quarter(monkeypatch):
    parts = {
        part.name: part for part in BENCHMARKS["rewardbench-2"].parts(answers(made_best_of_four()))
    }
    assert parts["Math"].chance == pytest.approx(0.25)
    ties = BENCHMARKS["rewardbench-2"].parts(answers(made_ties()))[-1]
    monkeypatch.setattr(rewardbench_2, "DRAWS", 1)  # Of these no chance is asked.
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(200):
        rows = [(n, s, rng.random(len(x)), p) for n, s, x, p in made_ties()]
        drawn.append(
            stats.composite(rewardbench_2.ties(answers(rows), np.ones(60, bool)).terms).value
        )
    assert ties.chance == pytest.approx(np.mean(drawn), abs=0.01)


# RM-Bench, as its own `compute_accuracy` says, written out here.


def test_rm_bench_is_a_matrix_of_styles():
    rng = np.random.default_rng(3)
    rows, expected = [], {}
    for domain, count in (("chat", 7), ("code", 5), ("safety-refuse", 4), ("safety-response", 6)):
        for number in range(count):
            scores = rng.integers(0, 4, 6).astype(float)
            rows.append((f"rm-bench/{domain}/{number}", domain, scores, (0, 0, 0, 1, 1, 1)))
    for domain in ("chat", "code", "safety"):
        own = [scores for _, source, scores, _ in rows if source.startswith(domain)]
        cells = np.mean([[[s[i] > s[3 + j] for j in range(3)] for i in range(3)] for s in own], 0)
        hard = np.sum(np.triu(cells, 1)) / 3
        easy = np.sum(np.tril(cells, -1)) / 3
        expected[domain] = (hard, np.mean(np.diag(cells)), easy)
    found = figures("rm-bench", answers(rows))
    for domain, levels in expected.items():
        assert found[domain] == pytest.approx(np.mean(levels))
    for at, level in enumerate(("hard", "normal", "easy")):
        assert found[level] == pytest.approx(np.mean([levels[at] for levels in expected.values()]))
    assert found["score"] == pytest.approx(np.mean([found["hard"], found["normal"], found["easy"]]))


def test_judgebench_sums_both_orders():
    rows = [(f"j/{n}", "mmlu-pro", (math.nan, math.nan), (0, 1)) for n in range(5)]
    orders = [[1, 1], [1, 0], [1, 0.5], [0.5, 0.5], [0, 0]]
    given = answers(rows, by_order=orders)
    given = Answers(
        **{f: getattr(given, f) for f in given.__slots__} | {"values": np.mean(orders, 1)}
    )
    assert figures("judgebench", given)["score"] == pytest.approx(2 / 5)


def test_llmbar_is_the_mean_over_both_orders():
    rows = [(f"l/{n}", "Natural", (math.nan, math.nan), (0, 1)) for n in range(4)]
    given = answers(rows, by_order=[[1, 1], [1, 0], [0.5, 1], [0, 0]])
    assert figures("llmbar", given)["score"] == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)


def test_mt_bench_agrees_with_votes():
    rows = [
        ("m/1", "turn 1", (2.0, 1.0), (0, 1)),
        ("m/2", "turn 1", (1.0, 2.0), (0, 1)),
        ("m/3", "turn 1", (1.0, 1.0), (0, 0)),
        ("m/4", "turn 1", (math.nan, 1.0), (0, 1)),
    ]
    given = answers(rows)
    votes = np.array([[2.0, 1.0, 0.0], [3.0, 0.0, 1.0], [1.0, 2.0, 1.0], [1.0, 0.0, 0.0]])
    given = Answers(**{f: getattr(given, f) for f in given.__slots__} | {"votes": votes})
    found = figures("mt-bench-human", given)
    # Without ties: 2 of 2, 1 of 4, the tie left out, 0 of 1 where there is no score.
    assert found["turn 1"] == pytest.approx((2 + 1 + 0) / (2 + 4 + 1))
    assert found["turn 1 with ties"] == pytest.approx((2 + 1 + 2 + 0) / (3 + 4 + 4 + 1))


def test_pandalm_has_ties_as_an_answer():
    rows = [
        ("p/1", "pandalm", (2.0, 1.0), (0, 1)),
        ("p/2", "pandalm", (1.0, 1.0), (0, 0)),
        ("p/3", "pandalm", (2.0, 1.0), (0, 0)),
        ("p/4", "pandalm", (1.0, 1.0), (0, 1)),
    ]
    found = figures("pandalm", answers(rows))
    assert found == {"score": 0.5, "without ties": 0.5}


def test_missing_parts_are_left_out_of_sections():
    found = figures("rewardbench", answers([("a", "donotanswer", (1.0, 0.0), (0, 1))]))
    assert found == {"Score": 1.0, "Safety": 1.0}


def test_no_interval_is_narrower_than_that_of_its_parts():
    given = answers(made_pairs())
    parts = BENCHMARKS["rewardbench"].parts(given)
    score = stats.composite(parts[0].terms, given.clusters)
    sections = [stats.composite(part.terms, given.clusters) for part in parts[1:]]
    assert score.error == pytest.approx(
        math.sqrt(sum((one.error / 4) ** 2 for one in sections)), rel=1e-6
    )


def test_judges_are_compared_where_one_has_no_margin_among_right_answers():
    """A judge of length finds all right answers of a prompt alike, so that T is of no prompt."""
    rows = made_ties(0.001)
    alike = [
        (name, source, np.where(np.array(places) == 0, 2.0, 1.0), places)
        for name, source, _, places in rows
    ]
    scores = [
        BenchmarkScore(
            judge, "rewardbench-2", "rewardbench-2",
            tuple(BENCHMARKS["rewardbench-2"].parts(given)), given.ids, given.clusters,
            np.zeros(given.size, dtype=bool), judge,
        )
        for judge, given in (("fine", answers(rows)), ("alike", answers(alike)))
    ]  # fmt: skip
    assert set(letters(scores, np.random.default_rng(0)).values()) == {"a", "b"}
    # All right answers are above all others, and none of them above another: 0.3 + 0.3 + 0.2 + 0.2.
    assert scores[1].estimate(scores[1].parts[0]).value == pytest.approx(1)
