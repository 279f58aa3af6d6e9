"""RewardBench 0.1.4's version 2, end to end, in its environment.

The wheel has the functions and not `scripts/run_v2.py` of the repository, which is the loop around
them: read the file, unroll and render every response, 64 rows at a time through the pipeline in
the order of the file, roll up again, score. This does the same with the same functions and defaults
(batches of 64, at most 2,048 tokens), in float32 where the script has float16, which CPUs are slow
in. Its pipeline's `.to("cuda")` is left out where there is no GPU.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from rewardbench import REWARD_MODEL_CONFIG, load_bon_dataset_v2, process_single_model
from rewardbench.utils import reroll_and_score_dataset
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from benchmarks.score.rewardbench_cli import stay_on_cpu

PIPELINE = {
    "truncation": True,
    "padding": True,
    "max_length": 2048,
    "function_to_apply": "none",
    "return_token_type_ids": False,
}


def main() -> None:
    """Score the file, write scores and results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--torch_dtype", default="float32")
    given = parser.parse_args()
    stay_on_cpu()
    accelerator = Accelerator()
    config = REWARD_MODEL_CONFIG["default_v2"]
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    dataset, subsets, totals, right = load_bon_dataset_v2(
        dataset=given.dataset, tokenizer=tokenizer, logger=logging.getLogger("run_v2")
    )
    ids = dataset["id"]
    dataset = dataset.remove_columns("id")
    model = config["model_builder"](
        given.model,
        device_map="auto" if torch.cuda.is_available() else "cpu",
        torch_dtype=getattr(torch, given.torch_dtype),
    )
    pipe = config["pipeline_builder"]("text-classification", model=model, tokenizer=tokenizer)
    pipe.model = accelerator.prepare(pipe.model)
    scores = []
    for batch in DataLoader(dataset, batch_size=given.batch_size, shuffle=False):
        rewards = pipe(batch["text"], batch_size=given.batch_size, **PIPELINE)
        scores.extend(rewards.float().cpu().numpy().tolist())

    out = dataset.add_column("subset", subsets).add_column("id", ids).add_column("scores", scores)
    out = reroll_and_score_dataset(out, totals, cols_to_combine=["text", "scores"])
    out = out.add_column("num_correct", right)
    found = {}
    for subset in sorted(set(subsets)):
        rows = out.filter(lambda row, subset=subset: row["subset"] == subset)
        if subset.lower() == "ties":
            _, found[subset] = process_single_model(rows)
        else:
            found[subset] = sum(rows["results"]) / len(rows)
    items = [
        {
            "id": row["id"],
            "subset": row["subset"],
            "result": row["results"],
            "scores": [score for (score,) in row["scores"]],
        }
        for row in out
    ]
    Path(given.output).write_text(
        json.dumps(
            {"subsets": {k: float(v) for k, v in found.items()}, "items": items}, default=float
        )
    )


if __name__ == "__main__":
    main()
