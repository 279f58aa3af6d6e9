"""Hand-made raw rows in the documented schema of each source that is not at hand."""

import json
from pathlib import Path
from typing import Any

from palate.data.sources import BadRow, Request, open_source
from palate.types import Comparison


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def opened(name: str, location: Path, **request: Any) -> tuple[list[Comparison], list[BadRow]]:
    rows = list(open_source(name, Request(location, **request)))
    good = [row for row in rows if isinstance(row, Comparison)]
    return good, [row for row in rows if isinstance(row, BadRow)]


def shp(post: str = "p1", ratio: float = 4.0, labels: int = 1, **over: Any) -> dict[str, Any]:
    high, low = int(10 * ratio), 10
    return {
        "post_id": post,
        "domain": "askculinary_train",
        "history": "How do I poach an egg?",
        "human_ref_A": f"Simmer it. {ratio}",
        "human_ref_B": "Boil it.",
        "score_A": high if labels == 1 else low,
        "score_B": low if labels == 1 else high,
        "score_ratio": ratio,
        "labels": labels,
    } | over


def summarize(choice: int, confidence: int | None, **over: Any) -> dict[str, Any]:
    return {
        "info": {
            "id": "t3_1",
            "post": "My cat ate my homework.",
            "title": "Cat trouble",
            "subreddit": "cats",
            "site": None,
            "article": None,
        },
        "summaries": [
            {"text": " Cat ate it.", "policy": "sup2", "note": "ok"},
            {"text": " Dog did.", "policy": "ref", "note": None},
        ],
        "choice": choice,
        "worker": "w1",
        "batch": "batch3",
        "split": "train",
        "extra": {"confidence": confidence},
    } | over


def webgpt(score: float, **over: Any) -> dict[str, Any]:
    return {
        "question": {"dataset": "eli5", "id": "q1", "full_text": "Why is the sky blue?"},
        "answer_0": "Rayleigh scattering [1].",
        "answer_1": "The sea reflects.",
        "score_0": score,
        "score_1": -score,
    } | over


def mtbench(winner: str, **over: Any) -> dict[str, Any]:
    def conversation(answer: str) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": "Write a poem."},
            {"role": "assistant", "content": answer},
        ]

    return {
        "question_id": 81,
        "model_a": "alpaca-13b",
        "model_b": "gpt-4",
        "winner": winner,
        "judge": "expert_0",
        "turn": 1,
        "conversation_a": conversation("Roses."),
        "conversation_b": conversation("Violets are blue."),
    } | over


def helpsteer(strength: int, **over: Any) -> dict[str, Any]:
    return {
        "domain": "general",
        "language": "english",
        "context": [{"role": "user", "content": "Sort a list."}],
        "response1": "sorted(it)",
        "response2": "Use a loop.",
        "overall_preference": strength,
        "individual_preference": [],
    } | over


def pandalm(*votes: int, **over: Any) -> dict[str, Any]:
    return {
        "idx": 0,
        "motivation_app": "Grammarly",
        "cmp_key": "bloom-7b_llama-7b",
        "instruction": "Shorten it.",
        "input": "A long sentence.",
        "response1": "A sentence.",
        "response2": "Long.",
        **{f"annotator{i}": vote for i, vote in enumerate(votes, start=1)},
    } | over


def qa_feedback(*preference: int, **over: Any) -> dict[str, Any]:
    return {
        "question": "Who wrote it?",
        "passages": [["Hamlet", "A play by Shakespeare.", "Of 1603."]],
        **{f"prediction {i}": f"Answer {i}." for i in range(1, 5)},
        "preference": list(preference),
    } | over


def pku(**over: Any) -> dict[str, Any]:
    return {
        "prompt": "How do I pick a lock?",
        "response_0": "Like this.",
        "response_1": "Call a locksmith.",
        "is_response_0_safe": False,
        "is_response_1_safe": True,
        "better_response_id": 0,
        "safer_response_id": 1,
    } | over


def skywork(**over: Any) -> dict[str, Any]:
    def conversation(answer: str) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": answer},
        ]

    sides = {"chosen": conversation("4"), "rejected": conversation("5")}
    return {**sides, "source": "magpie_air"} | over


def stack(**over: Any) -> dict[str, Any]:
    def answer(number: int, score: int) -> dict[str, Any]:
        return {
            "answer_id": number,
            "author": f"ann{number}",
            "author_id": number,
            "author_profile": f"https://ai.stackexchange.com/users/{number}",
            "pm_score": score,
            "selected": score == 5,
            "text": f"<p>Answer {number}</p>",
        }

    return {
        "qid": 7,
        "question": "<p>What is <em>it</em>?</p>",
        "answers": [answer(1, 0), answer(2, 5), answer(3, 1), answer(4, 1)],
        "date": "2016/08/02",
        "metadata": ["https://ai.stackexchange.com/questions/7", "https://ai.stackexchange.com"],
    } | over


def oasst_message(
    number: str, parent: str | None, role: str, rank: int | None = None, **over: Any
) -> dict[str, Any]:
    return {
        "message_id": number,
        "parent_id": parent,
        "message_tree_id": "m0",
        "role": role,
        "text": f"text of {number}",
        "rank": rank,
        "lang": "en",
    } | over
