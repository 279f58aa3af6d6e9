"""Rows of the field's benchmarks in their published forms, made by hand."""

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def write_rows(path: Path, rows: list[Json]) -> Path:
    """A JSON array, or an object a line by the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows), encoding="utf-8")
    return path


def rewardbench(subset: str = "hep-go", number: int = 0, **over: Any) -> Json:
    return {
        "prompt": f"Write a loop, {subset} {number}.",
        "chosen": f"for {number}",
        "chosen_model": "human",
        "rejected": f"four {number} and more",
        "rejected_model": "buggy",
        "subset": subset,
        "id": number,
    } | over


def rewardbench_2(subset: str = "Math", id: str = "7", right: int = 1, wrong: int = 3) -> Json:
    return {
        "id": id,
        "prompt": f"What is {subset} {id}?",
        "chosen": [f"right {n} of {subset} {id}" for n in range(right)],
        "rejected": [f"wrong {n} of {subset} {id}" for n in range(wrong)],
        "num_correct": right,
        "num_incorrect": wrong,
        "total_completions": right + wrong,
        "models": [f"model-{n}" for n in range(right + wrong)],
        "subset": subset,
    }


def rm_bench(number: int = 3, domain: str | None = "chat", **over: Any) -> Json:
    row = {
        "id": number,
        "prompt": f"Drawers for clothes, {number}?",
        "chosen": [f"yes {style} {number}" for style in "abc"],
        "rejected": [f"no {style} {number}" for style in "abc"],
    }
    return row | ({} if domain is None else {"domain": domain}) | over


def judgebench(label: str = "B>A", pair: str = "p1", **over: Any) -> Json:
    return {
        "pair_id": pair,
        "original_id": 1,
        "source": "livebench-math",
        "question": f"Two and two, {pair}?",
        "response_model": "gpt-4o-2024-05-13",
        "response_A": "Five.",
        "response_B": "Four.",
        "label": label,
    } | over


def llmbar(label: int = 2, number: int = 0) -> Json:
    return {"input": f"Count to {number}.", "output_1": "A", "output_2": "Bee", "label": label}


def vote(winner: str, judge: str = "expert_1", turn: int = 1, question: int = 81) -> Json:
    def talk(model: str) -> list[Json]:
        said = ["Go?", f"{model} goes.", "And then?", f"{model} stops."]
        return [
            {"role": "user" if n % 2 == 0 else "assistant", "content": text}
            for n, text in enumerate(said)
        ]

    return {
        "question_id": question,
        "model_a": "alpaca",
        "model_b": "vicuna",
        "winner": winner,
        "judge": judge,
        "conversation_a": talk("alpaca"),
        "conversation_b": talk("vicuna"),
        "turn": turn,
    }


def pandalm(votes: tuple[int, int, int], number: int = 0, **over: Any) -> Json:
    return {
        "idx": number,
        "instruction": f"Say it, {number}.",
        "input": "",
        "response1": "one",
        "response2": "two and more",
        "cmp_key": "bloom_cerebras",
        **{f"annotator{n}": vote for n, vote in enumerate(votes, 1)},
    } | over


def ppe(scores: list[bool], pairs: list[list[int]], number: int = 0) -> Json:
    responses = {f"response_{n}": f"response {n} to {number}" for n in range(1, len(scores) + 1)}
    return {
        "question_id": f"q{number}",
        "prompt": f"Prove {number}.",
        "model_name": "m",
        "scores": scores,
        "sampled_conflict_pairs": pairs,
        **responses,
    }


def rmb(path: str, **over: Any) -> Json:
    return {
        "pair_uid": "1",
        "conversation_input": [{"role": "user", "content": "Hi?", "language": "English"}],
        "chosen": {"llm_name": "a", "answer": "Hello."},
        "reject": {"llm_name": "b", "answer": "What."},
        "category_path": path,
    } | over


def rmb_list(path: str, losers: int = 2) -> Json:
    return {
        "bon_uid": "9",
        "conversation_input": [{"role": "user", "content": "Hi?", "language": "English"}],
        "bon_best": {"llm_name": "a", "answer": "Hello."},
        "loser_list": [{"llm_name": f"b{n}", "answer": f"What {n}."} for n in range(losers)],
        "category_path": path,
    }
