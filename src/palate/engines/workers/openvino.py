"""OpenVINO on an ONNX export: its CPU plugin compiles the graph as its users have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

Rows = Sequence[dict[str, Any]]


def open_model(
    folder: str, *, weights: str = "", **options: str
) -> dict[str, Callable[[Rows], Sequence[float]]]:
    """The ways to ask for a reward; `weights=int8` compresses them, the rest is OpenVINO's."""
    core = openvino.Core()
    model = core.read_model(str(Path(folder) / "model.onnx"))
    if weights == "int8":
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def ids(rows: Rows) -> list[float]:
        rewards = []
        for row in rows:  # One at a time: no padding to be wrong about.
            tokens = np.array([row["ids"]], dtype=np.int64)
            asked = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
            rewards.append(float(next(iter(request.infer(asked).values()))[0, 0]))
        return rewards

    return {"ids": ids}
