"""RewardBench 0.1.4 as a worker: its own command, `rewardbench.rewardbench.rewardbench(args)`.

The whole function runs for every window: it reads the data set, renders it with the tokenizer's
template, scores it batch by batch and writes its files. Three things are ours. The model is handed
out again instead of being loaded again. The clock runs from its pipeline's first call to the end of
the last, so that what it does before and after costs it nothing. Its pipeline moves its inputs to
"cuda" by name; where there is none, they stay where they are.

    --model DIR --dataset FILE --load_json --not_quantized --torch_dtype DTYPE --max_length 1024
"""

import argparse
import importlib
import json
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rewardbench.models.pipeline import RewardBenchPipeline
from transformers import BatchEncoding

from benchmarks.peers.worker import Facts, Requests, Window, read_rows

cli = importlib.import_module("rewardbench.rewardbench")  # The package's own name hides it.


class Clocked(RewardBenchPipeline):
    """Their pipeline, with a clock around its calls and a record of what it was given."""

    def __init__(self, task: str, model: Any, tokenizer: Any) -> None:
        super().__init__(task, model, tokenizer)
        self.facts: Facts = {}
        self.rewards: list[list[float]] = []
        self._window: Window | None = None
        self._tokens = [0, 0]
        Clocked.last = self

    def __call__(self, samples: list[str], **options: Any) -> torch.Tensor:
        if self._window is None:
            self._window = Window()
        logits, inputs = super().__call__(samples, return_inputs=True, **options)
        self._tokens[0] += int(inputs["attention_mask"].sum())
        self._tokens[1] += inputs["attention_mask"].numel()
        self.rewards.append(logits[:, 0].tolist())
        self.facts = self._window.close()
        return logits

    @property
    def tokens(self) -> Facts:
        """What it read, without and with padding."""
        return {"real_tokens": self._tokens[0], "computed_tokens": self._tokens[1]}

    @property
    def scores(self) -> list[list[float]]:
        """Chosen and rejected of each pair: its calls alternate between the two."""
        sides = [list(chain.from_iterable(self.rewards[side::2])) for side in (0, 1)]
        return [list(pair) for pair in zip(*sides, strict=True)]


def stay_on_cpu() -> None:
    """Leave tensors where they are when they are sent to a device that is not there."""
    if not torch.cuda.is_available():
        BatchEncoding.to = lambda self, _device, **_: self  # type: ignore[method-assign]


def keep_model(folder: str, dtype: str) -> None:
    """Load the model once, with RewardBench's own builder and arguments."""
    default = cli.REWARD_MODEL_CONFIG["default"]
    load = default["model_builder"]
    model = load(folder, device_map="auto", torch_dtype=getattr(torch, dtype))
    default["model_builder"] = lambda *_, **__: model
    default["pipeline_builder"] = Clocked


def arguments_for(folder: str, dataset: Path, output: Path, dtype: str) -> Any:
    """The command line above."""
    return cli.Args(
        dataset=str(dataset),
        model=folder,
        load_json=True,
        not_quantized=True,
        torch_dtype=dtype,
        max_length=1024,
        output_dir=str(output),
    )


def dataset_file(rows: list[dict[str, Any]], path: Path) -> Path:
    """A window's pairs as RewardBench reads them: two lists of messages a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            sides = [
                [*row["prompt"], {"role": "assistant", "content": response}]
                for response in row["responses"]
            ]
            lines.write(json.dumps({"chosen": sides[0], "rejected": sides[1]}) + "\n")
    return path


def main() -> None:
    """Serve windows of pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    output = Path(given.output)
    requests = Requests()
    stay_on_cpu()
    keep_model(given.model, given.dtype)
    windows = defaultdict(list)
    for row in read_rows(given.rows):
        windows[row["window"]].append(row)
    files = {n: dataset_file(rows, output / f"window-{n}.jsonl") for n, rows in windows.items()}
    requests.answer(ready=True)
    for request in requests:
        file = files[request["window"]]
        cli.rewardbench(arguments_for(given.model, file, output, given.dtype))
        pipe = Clocked.last
        scores = pipe.scores
        requests.answer(**pipe.facts, **pipe.tokens, pairs=len(scores), scores=scores)


if __name__ == "__main__":
    main()
