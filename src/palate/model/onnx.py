"""An exported checkpoint as one ONNX graph: token ids and mask in, raw rewards out.

Made by transformers' exporter, which traces the stock classifier; ONNX Runtime's answer on a
padded batch is compared with torch's before the folder appears.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from palate.extras import install_command, missing
from palate.model.backbone import first_line, quiet
from palate.model.export import onnx_card
from palate.records import atomic_folder, check_holds_model_or_nothing, write_json, write_text
from palate.types import PalateError

GRAPH = "model.onnx"  # With the name of the data beside it: what TEI and optimum look for.
DATA = "model.onnx_data"
ONE_FILE_BYTES = 1_900_000_000  # A protobuf holds 2 GiB; above, the weights lie beside it.
TOLERANCE = 1e-4  # Of rewards, or of a part of them where they are above 1.
CHATTY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


def is_onnx(folder: Path | str) -> bool:
    """Whether the folder holds an ONNX export."""
    return (Path(folder) / GRAPH).is_file()


def check_target(model: str, to: Path) -> None:
    """Raise `PalateError` where exporting `model` to `to` would destroy a model or other files."""
    if Path(model).exists() and to.exists() and Path(model).resolve() == to.resolve():
        raise PalateError(f"{to}: the export would replace its own model; name another folder")
    if is_onnx(model):
        raise PalateError(f"{model}: an ONNX graph; export the checkpoint that it was made of")
    check_holds_model_or_nothing(to)


def check_packages() -> None:
    """Raise `PalateError`, with the command that installs them, where packages are missing.

    Call it before a model is opened: it is minutes until they are needed.
    """
    if absent := missing("onnx"):
        raise PalateError(
            f"--format onnx: not installed: {', '.join(absent)}; run: {install_command('onnx')}"
        )


def export_onnx(checkpoint: Path, folder: Path) -> float:
    """Write the exported `checkpoint` to `folder` as ONNX in float32, any batch, any length.

    The graph takes `input_ids` and `attention_mask`, int64 [B, T], padded on the right, and gives
    `logits`, float32 [B, 1]. Returns the largest difference from torch on a padded batch.

    Raises:
        PalateError: the packages are missing, the architecture cannot be traced, the rewards
            differ by more than 1e-4.
    """
    check_packages()
    import onnx_ir

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
    program = _trace(model, checkpoint)
    with atomic_folder(folder) as partial:
        values = program.graph.initializers.values()
        size = sum(v.const_value.nbytes for v in values if v.const_value is not None)
        beside = DATA if size > ONE_FILE_BYTES else None
        onnx_ir.save(program, str(partial / GRAPH), external_data=beside)
        _copy_rest(checkpoint, partial)
        ids, mask = _sample(model.config)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        expected = logits[:, 0].numpy()
        difference = np.abs(run(open_session(partial), ids, mask) - expected)
        largest = float((difference / np.maximum(1.0, np.abs(expected))).max())
        if not largest <= TOLERANCE:
            raise PalateError(
                f"{checkpoint}: its ONNX graph gives rewards that differ by {largest:.2g}; use the "
                "checkpoint itself"
            )
    return largest


def open_session(folder: Path) -> Any:
    """ONNX Runtime's session on the CPU, with as many threads as torch has."""
    try:
        import onnxruntime
    except ImportError:
        raise PalateError(f"{folder}: needs ONNX Runtime; run: {install_command('onnx')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # Errors; its warnings are of fusions that it did not find.
    try:
        return onnxruntime.InferenceSession(
            str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own kinds have no common parent.
        raise PalateError(
            f"{folder}/{GRAPH}: cannot be opened ({first_line(error)}); export it again"
        ) from None


def run(session: Any, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rewards, [B], of token ids and their mask, [B, T]."""
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    rewards: NDArray[np.float32] = logits[:, 0]
    return rewards


def _trace(model: Any, checkpoint: Path) -> Any:
    """The classifier as an ONNX program."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    ids, mask = _sample(model.config)
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = {name: {0: batch, 1: length} for name in inputs}
    try:
        with _silent(), torch.no_grad():
            settings = OnnxConfig(dynamic=True, dynamic_shapes=shapes)
            return OnnxExporter().export(model, inputs, config=settings).program
    except Exception as error:  # Tracing fails in as many ways as there are architectures.
        raise PalateError(
            f"{checkpoint}: {type(model).__name__} cannot be traced to ONNX ({first_line(error)}); "
            "use the checkpoint itself"
        ) from error


def _sample(config: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Three rows of unequal length, padded on the right, and their mask."""
    lengths, longest = np.array([23, 5, 14]), 23
    rng = np.random.default_rng(0)
    pad = config.get_text_config().pad_token_id
    tokens = [i for i in range(min(1000, config.get_text_config().vocab_size)) if i != pad]
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return np.where(mask == 1, rng.choice(tokens, mask.shape), pad).astype(np.int64), mask


def _copy_rest(checkpoint: Path, folder: Path) -> None:
    """Configuration, tokenizer and card; heads beside the reward are not part of the graph."""
    for path in checkpoint.iterdir():
        weights = path.suffix == ".safetensors" or path.name.endswith(".index.json")
        if path.is_file() and not weights:
            shutil.copy2(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    ours = {**config.get("palate", {}), "safety_head": None}
    if attributes := ours.pop("attributes", None):
        logging.getLogger(__name__).warning(
            "%s: the graph gives the reward alone; its heads of %s stay in the checkpoint",
            folder, ", ".join(attributes),
        )  # fmt: skip
    if members := ours.pop("ensemble", None):
        logging.getLogger(__name__).warning(
            "%s: the graph gives the mean of %d members; their heads, and so the standard "
            "deviation, stay in the checkpoint", folder, members,
        )  # fmt: skip
    if own := ours.pop("members", None):
        logging.getLogger(__name__).warning(
            "%s: the graph is of the average of %d members' weights; their mean reward and its "
            "standard deviation stay with the checkpoint", folder, own["count"],
        )  # fmt: skip
    config["palate"] = ours
    write_json(folder / "config.json", config)
    card = folder / "README.md"
    if card.is_file():
        write_text(card, onnx_card(card.read_text(encoding="utf-8", errors="replace")))


@contextmanager
def _silent() -> Generator[None]:
    """Without the exporter's progress on stdout and its warnings of ops that no decoder has."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with quiet(), redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
