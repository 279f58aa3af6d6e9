"""`palate export` and `palate push`: one model, in the format that the reader wants."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from palate.cli.output import Format as Rows
from palate.cli.output import FormatOption, emit, progress


class Kind(StrEnum):
    """What is written."""

    HF = "hf"
    ONNX = "onnx"


class Dtype(StrEnum):
    """The number format of the written weights; the head stays float32."""

    STORED = "stored"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def export(
    model: Annotated[str, typer.Argument(help="Folder or hub id; a PEFT adapter's folder too.")],
    to: Annotated[Path, typer.Option("--to", help="Folder that is made, or replaced.")],
    kind: Annotated[
        Kind,
        typer.Option("--format", help="hf: safetensors for transformers, vLLM, SGLang. onnx: CPU."),
    ] = Kind.HF,
    dtype: Annotated[Dtype, typer.Option(help="Of the weights; onnx is float32.")] = Dtype.STORED,
    max_shard_size: Annotated[
        str, typer.Option(help="Split the weights into files of at most this size.")
    ] = "5GB",
    base: Annotated[
        str | None, typer.Option("--base", help="Where an adapter's base model is now.")
    ] = None,
) -> None:
    """Write a reward model for other programs: same rewards, head inside, adapters merged.

    docs/exports.md has the command lines of vLLM, SGLang, TEI and others. Check with palate parity.
    Example: [bold]palate export runs/demo/models/safety --to safety-onnx --format onnx[/bold]
    Example: [bold]palate export my-lora --base Qwen/Qwen3-0.6B --to merged --dtype bfloat16[/bold]
    """
    import torch

    from palate.model.export import export as write
    from palate.model.loading import reopen
    from palate.model.onnx import check_packages, export_onnx
    from palate.types import PalateError

    _check_target(model, to)
    if kind is Kind.ONNX and dtype not in (Dtype.STORED, Dtype.FLOAT32):
        raise PalateError(f"--dtype {dtype}: an ONNX export is float32; leave it out")
    if kind is Kind.ONNX:
        check_packages()
    stored = dtype is Dtype.STORED and kind is Kind.HF
    name = "float32" if kind is Kind.ONNX else dtype.value
    opened, card = reopen(model, base=base, weights=None if stored else getattr(torch, name))
    if kind is Kind.HF:
        write(opened, to, card=card, max_shard_size=max_shard_size)
        progress()(f"exported: {to}")
        return
    with TemporaryDirectory(prefix="palate-export-") as folder:
        checkpoint = write(opened, Path(folder) / "checkpoint", card=card)
        del opened
        progress()("tracing the graph: half a minute for a small model ...")
        largest = export_onnx(checkpoint, to)
    progress()(f"exported: {to}; rewards differ from torch's by at most {largest:.2g}")


def _check_target(model: str, to: Path) -> None:
    from palate.model.onnx import is_onnx
    from palate.types import PalateError

    if Path(model).exists() and to.exists() and Path(model).resolve() == to.resolve():
        raise PalateError(f"{to}: the export would replace its own model; name another folder")
    if is_onnx(model):
        raise PalateError(f"{model}: an ONNX graph; export the checkpoint that it was made of")
    weights = (*to.glob("*.safetensors"), *to.glob("*.onnx")) if to.is_dir() else ()
    ours = bool(weights) and (to / "config.json").is_file()
    empty = to.is_dir() and not any(to.iterdir())
    if to.exists() and not ours and not empty:
        raise PalateError(f"{to}: is something else than a model; name another or remove it")


def push(
    model: Annotated[Path, typer.Argument(help="Folder that training or palate export wrote.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; made where it is missing.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read it; default: private.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch; made where it is missing.")
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Of the commit.")
    ] = "Upload a reward model exported by Palate",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and stop; needs no network.")
    ] = False,
    form: FormatOption = Rows.TABLE,
) -> None:
    """Upload an exported model to the Hugging Face hub: weights, tokenizer and card, nothing else.

    Private unless you say --public. The token is HF_TOKEN, or what `hf auth login` stored;
    HF_ENDPOINT names another hub.
    Example: [bold]palate push runs/demo/models/safety me/safety-rm --dry-run[/bold]
    """
    from palate.model.export import check_name, files_of, folder_named
    from palate.model.export import push as upload

    check_name(repo)
    files, say = files_of(model), progress()
    if named := folder_named(model):
        say(f"note: config.json and perhaps the card name {named}, a folder of this machine")
    if dry_run:
        rows = [{"file": path.name, "bytes": path.stat().st_size} for path in files]
        emit(rows, form, f"would push to {repo}, {'public' if public else 'private'}")
        return
    done = upload(model, repo, files, public=public, revision=revision, message=message)
    say(f"pushed: {done.url}, commit {done.commit[:12]}")
