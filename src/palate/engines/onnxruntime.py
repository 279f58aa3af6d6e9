"""ONNX Runtime without torch: the graph of an ONNX export, and the tokenizer beside it."""

from __future__ import annotations

from pathlib import Path

from palate.engines.base import Engine, Setup, Way
from palate.engines.session import ask_worker, worker_command
from palate.model.onnx import check_packages, export_onnx, is_onnx


def _command(program: Path, model: Path, _port: int, setup: Setup) -> list[str]:
    return worker_command(program, "onnxruntime", model, setup)


def _graph(model: Path, folder: Path) -> Path:
    """The ONNX export of a checkpoint."""
    if is_onnx(model):
        return model
    check_packages()
    export_onnx(model, folder / "onnx")
    return folder / "onnx"


ONNXRUNTIME = Engine(
    name="onnxruntime",
    title="ONNX Runtime",
    distribution="onnxruntime",
    requirements=("onnxruntime==1.32.0", "transformers==5.24.0", "jinja2"),
    oldest="1.20",
    written="InferenceSession(GRAPH), GRAPH by palate export MODEL --format onnx",
    command=_command,
    setups=lambda _limit: (
        Setup(
            (),
            (
                Way("InferenceSession.run", "rendered texts, one at a time", ask_worker("alone")),
                Way("InferenceSession.run", "batches of 8 texts, padded", ask_worker("batch")),
            ),
        ),
    ),
    server=False,
    torch=False,
    form=_graph,
)
