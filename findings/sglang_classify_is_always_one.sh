#!/bin/bash
# SGLang serves a reward model (a sequence classifier of one label) and answers POST /v1/classify in OpenAI's shape,
# {"data": [{"label", "probs", "num_classes"}]}, as vLLM does under /classify. A good engineer expects the reward
# in probs, or its sigmoid, as vLLM gives by itself for one label. SGLang takes a softmax over the labels, which over one
# label is 1: every text of every reward model has probs [1.0], with status 200 and no word of it.
# Who is hurt: who ranks, filters or trains by /v1/classify of SGLang: all rewards are equal.
# Cure: SGLang's native POST /classify ({"text": ...} -> [{"embedding": [reward]}]), or /v1/score without
# apply_softmax.
# What is run: the function that builds the answer, as the wheel has it, on what its engine hands it; the engine
# itself wants a GPU.
# Versions: sglang 0.5.23, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$folder" sglang==0.5.23
cat > "$folder/classify.py" <<'PY'
import ast
import glob
import logging
import sys
import time
import types
import uuid
import zipfile

import torch
import torch.nn.functional as F

(wheel,) = glob.glob(f"{sys.argv[1]}/sglang-*.whl")
source = zipfile.ZipFile(wheel).read("sglang/srt/entrypoints/openai/serving_classify.py").decode()
build = next(
    node
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.FunctionDef) and node.name == "_build_classify_response"
)
names = {
    "torch": torch, "F": F, "time": time, "uuid": uuid, "logger": logging.getLogger("sglang"),
    "ClassifyResponse": types.SimpleNamespace,
}
code = "from __future__ import annotations\nfrom typing import *\n" + ast.unparse(build)
exec(compile(code, "serving_classify.py", "exec"), names)
server = types.SimpleNamespace(
    id2label={0: "reward"}, model_name="reward-model", _request_id_prefix=lambda: "classify-"
)
rewards = (-7.5, 0.0, 3.25)
engine = [{"embedding": [reward], "meta_info": {"prompt_tokens": 9}} for reward in rewards]
answer = names["_build_classify_response"](server, engine)
found = [row["probs"] for row in answer.data]
print(f"rewards {rewards}: probs {found}")
assert found == [[1.0]] * 3, "probs are not all 1 any more"
assert {row["num_classes"] for row in answer.data} == {1}
PY
"$folder/venv/bin/python" "$folder/classify.py" "$folder"
