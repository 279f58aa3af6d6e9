#!/bin/bash
# Ask lm-evaluation-harness how often a model gives the right answer the highest log-likelihood, and let one
# likelihood be NaN, as float16 gives where a product overflows. A good engineer expects the question to be wrong, left
# out, or an error. The harness takes numpy's argmax, to which NaN is the highest of all: an answer WITHOUT a
# likelihood is the model's choice, and where it is the right one the model is right, in acc and acc_norm alike, with
# no word of it. A model that is NaN everywhere answers "the first" each time: its accuracy is the share of questions
# whose right answer stands first, which is all of them where a benchmark lists it first.
# Who is hurt: who evaluates a model in float16 that overflows on some texts, and reward models wrapped as likelihoods.
# Cure: count NaN among the logged samples' `resps`; return -inf for an answer that has no likelihood.
# Versions: lm_eval 0.4.13, numpy as it installs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check lm_eval==0.4.13
cat > "$folder/nan.py" <<'PY'
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask

# Four answers; the right one stands first in half of 40 questions, second in the other half.
items = [{"q": f"question {n}", "answers": ["a", "b", "c", "d"], "right": n % 2} for n in range(40)]
path = Path(sys.argv[1]) / "items.jsonl"
path.write_text("".join(json.dumps(item) + "\n" for item in items))


class Likelihoods(LM):
    def __init__(self, of):
        super().__init__()
        self.of = of

    def loglikelihood(self, requests):
        return [(self.of(request.args[1].strip()), False) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def asked(of):
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")]
    task = ConfigurableTask(config={
        "task": "four", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "q", "doc_to_choice": "answers",
        "doc_to_target": "right", "metric_list": metrics,
    })
    found = lm_eval.simple_evaluate(Likelihoods(of), tasks=[task], num_fewshot=0, bootstrap_iters=0)["results"]["four"]
    return found["acc,none"], found["acc_norm,none"]


print("lm_eval", version("lm_eval"), "numpy", version("numpy"))
likely = {"a": -5.0, "b": -6.0, "c": -1.0, "d": -2.0}  # It prefers c, which is never right.
models = {
    "never right": likely.__getitem__,
    "the same, b is NaN": lambda answer: math.nan if answer == "b" else likely[answer],
    "NaN everywhere": lambda answer: math.nan,
    "the same, b is -inf": lambda answer: -math.inf if answer == "b" else likely[answer],
}
found = {name: asked(of) for name, of in models.items()}
for name, figures in found.items():
    print(f"{name:22} acc, acc_norm", figures)
assert found["never right"] == (0.0, 0.0) == found["the same, b is -inf"]
assert found["the same, b is NaN"] == (0.5, 0.5), "NaN is no longer chosen"
assert found["NaN everywhere"] == (0.5, 0.5), "NaN everywhere is no longer the first answer"
PY
HF_HOME="$folder/hf" "$folder/venv/bin/python" "$folder/nan.py" "$folder" 2>"$folder/log" || {
  tail -3 "$folder/log" >&2
  exit 1
}
