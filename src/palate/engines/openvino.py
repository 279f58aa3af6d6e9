"""OpenVINO on the CPU, from the ONNX export."""

from __future__ import annotations

from pathlib import Path

from palate.engines.base import Engine, Setup, Way
from palate.engines.session import ask_worker, worker_command


def _command(program: Path, model: Path, _port: int, setup: Setup) -> list[str]:
    return worker_command(program, "openvino", model, setup)


def _form(export: Path, into: Path) -> Path:
    from palate.model.onnx import export_onnx

    export_onnx(export, into / "onnx")
    return into / "onnx"


def _way(note: str, *, promised: bool = True) -> tuple[Way, ...]:
    return (Way("compile_model", "token ids", ask_worker("ids"), promised=promised, note=note),)


FLOAT32 = "INFERENCE_PRECISION_HINT=f32"
OPENVINO = Engine(
    name="openvino",
    title="OpenVINO",
    distribution="openvino",
    requirements=("openvino==2026.4.1", "nncf==3.4.0"),
    oldest="2026.4",
    command=_command,
    form=_form,
    setups=lambda _limit: (
        Setup(
            (),
            _way("a float32 graph is computed in bfloat16 on a CPU with AMX", promised=False),
        ),
        Setup((FLOAT32,), _way("exact")),
        Setup(
            ("weights=int8", FLOAT32),
            _way("weights of 8 bits, by nncf, held to what bfloat16 may differ"),
            "bfloat16",
        ),
    ),
    server=False,
    torch=False,
    missing=("Heads beside the reward: the graph gives the reward alone.",),
)
