#!/bin/bash
# Score RewardBench 2's Ties subset where a reward model gave one answer NaN, as float16 gives for a text that overflows.
# A good engineer expects one figure, whatever the order in which equally right answers are listed, or an error.
# `process_single_model` of rewardbench takes Python's max() and min() over the answers, which keep the first of two
# that they cannot order. A right answer that is NaN, at the head of the list: every comparison with it is false and
# the prompt is wrong. The same answer anywhere behind: it is skipped, and the prompt is right, as if the answer were
# not there; the same scores are 0.30 or 1.00. Of a wrong answer they are 0.51 or 1.01. No word of it in any case.
# Who is hurt: who compares models on Ties of which one overflows: the figure hangs on which answer it was.
# Cure: refuse, or count, scores that are not finite before the function is called.
# What is run: the wheel's two functions as they are; importing the package wants fastchat, trl and vLLM's friends.
# Versions: rewardbench 0.1.4, datasets 5.2.0, numpy as it installs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip -q --disable-pip-version-check"
$pip install datasets==5.2.0
$pip download --no-deps --only-binary :all: -d "$folder" rewardbench==0.1.4
cat > "$folder/ties.py" <<'PY'
import ast
import glob
import math
import sys
import zipfile

import numpy as np
from datasets import Dataset

(wheel,) = glob.glob(f"{sys.argv[1]}/rewardbench-*.whl")
source = zipfile.ZipFile(wheel).read("rewardbench/utils.py").decode()
names = {"math": math, "np": np, "Dataset": Dataset}
for node in ast.parse(source).body:
    if isinstance(node, ast.FunctionDef) and node.name in ("sample_stats", "process_single_model"):
        exec(compile(ast.Module([node], []), "rewardbench/utils.py", "exec"), names)

NAN = math.nan


def ties(right, wrong):
    """The score of one pair of prompts: a ref with one right answer, a tied one with several."""
    rows = [
        {"id": "ref:0", "num_correct": 1, "scores": [5.0, 1.0, 2.0]},
        {"id": "tied:0", "num_correct": len(right), "scores": [*right, *wrong]},
    ]
    return float(names["process_single_model"](Dataset.from_list(rows))[1])


found = {
    "no NaN": ties([5.0, 4.9], [1.0, 2.0]),
    "right answers NaN, 4.9": ties([NAN, 4.9], [1.0, 2.0]),
    "right answers 4.9, NaN": ties([4.9, NAN], [1.0, 2.0]),
    "wrong answers NaN, 2.0": ties([5.0, 4.9], [NAN, 2.0]),
    "wrong answers 2.0, NaN": ties([5.0, 4.9], [2.0, NAN]),
}
for name, score in found.items():
    print(f"{name:24} Ties score {score:.4f}")
assert math.isclose(found["right answers NaN, 4.9"], 0.3), "a right NaN at the head is taken otherwise now"
assert math.isclose(found["right answers 4.9, NaN"], 1.0), "a right NaN behind is taken otherwise now"
assert 0.5 < found["wrong answers NaN, 2.0"] < 0.52, "a wrong NaN at the head is taken otherwise now"
assert found["wrong answers 2.0, NaN"] == found["no NaN"] > 1.0, "a wrong NaN behind is taken otherwise now"
PY
"$folder/venv/bin/python" "$folder/ties.py" "$folder"
