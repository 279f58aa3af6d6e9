#!/bin/bash
# Quantize a reward model's ONNX file with onnxruntime's quantize_dynamic (int8, no calibration) and score several
# texts at once. A good engineer expects a text's score to be its own, a little off: in float32 it is the same to the
# last digit in any company. Dynamic quantization measures the range of an activation over the WHOLE tensor, all rows of
# the batch: one row with one large activation (the first tokens of language models have them) makes the steps coarser
# for every other row. Eight rows change by up to 0.1 of rewards between -1.5 and 1, and with it which is better.
# No warning, and per_channel=True does not help, for it is about weights.
# Who is hurt: who serves an int8 reward model in batches: the best of n hangs on whose texts came at the same time.
# Cure: batches of one row; static quantization, whose ranges are fixed by calibration; or 8 bits for weights alone.
# Versions: onnxruntime 1.32.0, onnx 1.23.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2
cat > "$folder/batches.py" <<'PY'
import logging
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)  # "Please consider to run pre-processing", which is about shapes.
folder = sys.argv[1]
rng = np.random.default_rng(0)
size = 64
inner, head = (rng.normal(size=(size, width)).astype(np.float32) / 8 for width in (size, 1))
graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["state", "inner"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["squashed"]),
        helper.make_node("MatMul", ["squashed", "head"], ["reward"]),
    ],
    "reward",
    [helper.make_tensor_value_info("state", TensorProto.FLOAT, ["rows", size])],
    [helper.make_tensor_value_info("reward", TensorProto.FLOAT, ["rows", 1])],
    [numpy_helper.from_array(inner, "inner"), numpy_helper.from_array(head, "head")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.save(model, f"{folder}/float.onnx")
for name, options in (("int8", {}), ("int8 per channel", {"per_channel": True})):
    quantize_dynamic(f"{folder}/float.onnx", f"{folder}/{name}.onnx", **options)


def rewards(name, rows):
    session = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"state": rows})[0][:, 0]


print("onnxruntime", onnxruntime.__version__)
rows = rng.normal(size=(8, size)).astype(np.float32)
rows[1:4] = rows[0] + 0.05 * rows[1:4]  # Four answers much alike.
loud = rows[:1].copy()
loud[0, 0] = 100.0
moved, order = {}, {}
for name in ("float", "int8", "int8 per channel"):
    alone = np.concatenate([rewards(name, row[None]) for row in rows])
    beside = rewards(name, np.concatenate([rows, loud]))[:-1]
    moved[name] = np.abs(alone - beside).max()
    order[name] = [np.argsort(-found, kind="stable").tolist() for found in (alone, beside)]
    print(f"{name}: one at a time, and beside a loud row")
    for found, best in zip((alone, beside), order[name]):
        print("  ", " ".join(f"{one:7.3f}" for one in found), " best first", best)
assert moved["float"] < 1e-5 and order["float"][0] == order["float"][1]
for name in ("int8", "int8 per channel"):
    assert moved[name] > 0.05, "a row's score is its own now"
    assert order[name][0] != order[name][1], "the order stays now"
PY
"$folder/venv/bin/python" "$folder/batches.py" "$folder"
