"""`palate export`, `push` and `parity`: one model, written, uploaded, and scored every way."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import Format, FormatOption, emit, progress
from palate.process import temporary_folder

if TYPE_CHECKING:
    from palate.engines.base import Engine
    from palate.engines.environment import Environment
    from palate.evaluate.parity import Backend, Kind
    from palate.model.gguf import GgufType


class ExportFormat(StrEnum):
    """What is written."""

    HF = "hf"
    ONNX = "onnx"
    ADAPTER = "adapter"
    GGUF = "gguf"


class Dtype(StrEnum):
    """The number format of the written weights; the head stays float32."""

    STORED = "stored"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    Q8_0 = "q8_0"


def export(
    model: Annotated[str, typer.Argument(help="Folder or hub id; a PEFT adapter's folder too.")],
    to: Annotated[Path, typer.Option("--to", help="Folder that is made, or replaced.")],
    kind: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="hf: safetensors for transformers, vLLM, SGLang. onnx: CPU. adapter: a trained "
            "LoRA adapter with its head, without the base. gguf: llama.cpp's server.",
        ),
    ] = ExportFormat.HF,
    dtype: Annotated[
        Dtype, typer.Option(help="Of the weights; onnx is float32, q8_0 is for gguf.")
    ] = Dtype.STORED,
    max_shard_size: Annotated[
        str, typer.Option(help="Split the weights into files of at most this size.")
    ] = "5GB",
    base: Annotated[
        str | None, typer.Option("--base", help="Where an adapter's base model is now.")
    ] = None,
    member: Annotated[
        int | None,
        typer.Option("--member", min=1, help="Of an ensemble: this member alone, from 1."),
    ] = None,
    average: Annotated[
        bool,
        typer.Option(
            "--average", help="Of an ensemble: the one model whose weights are the members' mean."
        ),
    ] = False,
) -> None:
    """Write a reward model for other programs: same rewards, head inside, adapters merged.

    docs/exports.md has the command lines of vLLM, SGLang, TEI and others. Check with palate parity.
    Example: [bold]palate export runs/demo/models/safety --to safety-onnx --format onnx[/bold]
    Example: [bold]palate export my-lora --base Qwen/Qwen3-0.6B --to merged --dtype bfloat16[/bold]
    Example: [bold]palate export runs/demo/models/safety --to my-lora --format adapter[/bold]
    Example: [bold]palate export runs/demo/models/safety --to q8 --format gguf --dtype q8_0[/bold]
    Example: [bold]palate export runs/mine/models/five --to one --average[/bold]
    """
    import torch

    from palate.model.backbone import load_config
    from palate.model.export import export as write
    from palate.model.export import export_adapter
    from palate.model.gguf import check_family, export_gguf
    from palate.model.loading import is_adapter, one_of, reopen
    from palate.model.onnx import check_packages, check_target, export_onnx
    from palate.types import PalateError

    check_target(model, to)
    if (dtype is Dtype.Q8_0) > (kind is ExportFormat.GGUF):
        raise PalateError(f"--dtype {dtype}: a number format of GGUF; say --format gguf too")
    if kind is ExportFormat.GGUF and dtype is Dtype.FLOAT16:
        raise PalateError(
            f"--dtype {dtype}: --format gguf writes float32, bfloat16 or q8_0, for the scales that "
            "stand in for norms do not fit float16"
        )
    if kind is ExportFormat.ONNX and dtype not in (Dtype.STORED, Dtype.FLOAT32):
        raise PalateError(f"--dtype {dtype}: an ONNX export is float32; leave it out")
    if average and member is not None:
        raise PalateError("--member and --average: one model each; leave one of them out")
    if kind is ExportFormat.ADAPTER and (average or member is not None):
        raise PalateError(
            "--format adapter: an adapter is kept as trained, the whole ensemble; leave --member "
            "and --average out"
        )
    if kind is ExportFormat.ADAPTER:
        if dtype is not Dtype.STORED:
            raise PalateError(f"--dtype {dtype}: an adapter is kept as trained; leave it out")
        export_adapter(Path(model), to, base=base)
        progress()(f"exported: {to}")
        return
    if kind is ExportFormat.ONNX:
        check_packages()
    stored = dtype is Dtype.STORED and kind is ExportFormat.HF
    name = dtype.value if kind is ExportFormat.HF else "float32"
    opened, card = reopen(model, base=base, weights=None if stored else getattr(torch, name))
    if average or member is not None:
        card = one_of(opened, card, model, None if average else member)
    if kind is ExportFormat.HF:
        write(opened, to, card=card, max_shard_size=max_shard_size)
        progress()(f"exported: {to}")
        return
    if kind is ExportFormat.GGUF:
        check_family(opened.backbone.config, opened.chat.max_tokens, model)
    with temporary_folder("palate-export-") as folder:
        checkpoint = write(opened, Path(folder) / "checkpoint", card=card)
        del opened
        if kind is ExportFormat.GGUF:
            if dtype is Dtype.STORED and not is_adapter(model):
                dtype = Dtype(str(load_config(model).dtype or "float32").removeprefix("torch."))
            written: GgufType = "F32"  # float16 too, which it holds.
            if dtype in (Dtype.BFLOAT16, Dtype.Q8_0):
                written = "BF16" if dtype is Dtype.BFLOAT16 else "Q8_0"
            export_gguf(checkpoint, to, written)
            progress()(f"exported: {to}/model.gguf, {written}")
            return
        progress()("tracing the graph: half a minute for a small model ...")
        largest = export_onnx(checkpoint, to)
    progress()(f"exported: {to}; rewards differ from torch's by at most {largest:.2g}")


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
    form: FormatOption = Format.TABLE,
) -> None:
    """Upload an exported model to the Hugging Face hub: weights, tokenizer and card, nothing else.

    Private unless you say --public. The token is HF_TOKEN, or what `hf auth login` stored;
    HF_ENDPOINT names another hub.
    Example: [bold]palate push runs/demo/models/safety me/safety-rm --dry-run[/bold]
    """
    from palate.model.export import check_name, files_of, folder_named
    from palate.model.export import push as upload

    check_name(repo)
    files, log = files_of(model), progress()
    if named := folder_named(model):
        log(f"note: config.json and perhaps the card name {named}, a folder of this machine")
    if dry_run:
        rows = [{"file": path.name, "bytes": path.stat().st_size} for path in files]
        emit(rows, form, f"would push to {repo}, {'public' if public else 'private'}")
        return
    done = upload(model, repo, files, public=public, revision=revision, message=message)
    log(f"pushed: {done.url}, commit {done.commit[:12]}")


# `palate parity`: one model, scored every way that it can be.


def parity(
    model: Annotated[str, typer.Argument(help="Folder or hub id; a PEFT adapter's folder too.")],
    items: Annotated[
        str | None,
        typer.Option(
            "--items",
            metavar="FILE|NAME[=PATH]",
            help="JSONL or Parquet as `palate score` takes, comparisons, or a benchmark of the "
            "field such as rewardbench-2, every response once.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--n", min=2, help="Prompts that are scored.")] = 64,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FORMAT=]SD",
            help="In SD of the rewards, for ways in float32; for others bfloat16=SD (computed "
            "here), rounded=SD (stored, or a server's), float16=SD. "
            "Default: 0.001, 0.2, 0.2, 0.025.",
        ),
    ] = None,
    form_of: Annotated[
        str, typer.Option("--input", help="Input of a foreign model: chat, pair or plain.")
    ] = "chat",
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", help="Another export of it, compared too: checkpoint, ONNX, GGUF."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Where an adapter's base model is now.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Server of the same model, compared too.")
    ] = None,
    shape: Annotated[
        str, typer.Option(help="What it speaks: vllm-classify, tei-predict, ... (docs/judges.md).")
    ] = "vllm-classify",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="NAME[=PATH]",
            help="A real engine that serves it, started and asked as its users do: `palate engines "
            "list`; all: those installed. PATH: its environment, if not Palate's. Repeatable.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Markdown file with a section an engine, as docs/engines.md."),
    ] = None,
    emulated: Annotated[
        bool, typer.Option("--emulated", help="Run bfloat16 where the device emulates it: slow.")
    ] = False,
    save: Annotated[Path | None, typer.Option("--save", help="JSON file with all of it.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Score the same responses every way the model can be scored; exit 1 if the numbers part.

    Alone and in batches, padded, packed, with shared prompts, in bfloat16, by transformers' class
    and pipeline and on its template as it stands, as other exports (--with), as an adapter merged
    and not, by a server (--url). With --engine by real engines instead, of which only the ways that
    are said to give the reward count for the exit code.
    Without --items: a simulated campaign's responses.
    Example: [bold]palate parity runs/demo/models/safety --with safety-onnx[/bold]
    Example: [bold]palate parity runs/demo/models/safety --items rewardbench-2[/bold]
    Example: [bold]palate parity runs/demo/models/safety --engine sentence-transformers[/bold]
    """
    from itertools import chain

    from palate.cli.sources import candidates_in
    from palate.data.simulation import CampaignOptions, simulate
    from palate.evaluate.parity import (
        adapter_backend,
        engine_backends,
        export_backend,
        gguf_backend,
        kind_of,
        onnx_backend,
        scorer_backend,
        served_dtype,
    )
    from palate.evaluate.parity import parity as compare
    from palate.judges import ScorerJudge, open_judge
    from palate.model.backbone import find_checkpoint
    from palate.model.device import default_device
    from palate.model.gguf import is_gguf
    from palate.model.loading import ensemble_of, load_chat
    from palate.model.onnx import is_onnx
    from palate.records import write_json, write_text
    from palate.types import Candidates, PalateError

    log, tolerances = progress(), _tolerances(tolerance or [])
    engines = _engines(engine or [], form_of)
    if page is not None and not engines:
        raise PalateError("--page: is of engines; name them with --engine")
    if of := ensemble_of(model):
        raise PalateError(
            f"{model}: an ensemble of {of}, whose reward is the mean of its members', which no "
            f"other reader computes; compare one model: palate export {model} --average --to FOLDER"
        )
    # Before the model, which may have to be fetched.
    if items is None:
        campaign = simulate(CampaignOptions(weeks=1, comparisons_per_week=count), seed=0)
        candidates = [Candidates(c.prompt, (c.chosen, c.rejected)) for c in campaign]
    else:
        candidates = candidates_in(items, count)
    with _merged(model, base) as merged, ExitStack() as opened:
        backends = _backends(merged, form_of)
        if engines:  # Palate's own ways are asked without them.
            backends = backends[:1]
        elif merged != model:
            adapter = adapter_backend(Path(model), base, load_chat(Path(merged)))
            backends.insert(1, adapter)
        for folder in others or []:
            if is_onnx(folder):
                backends.append(onnx_backend(folder))
            elif is_gguf(folder):
                backends.append(gguf_backend(folder))
            else:
                backends.append(export_backend(folder, form_of))
        if url is not None:
            options = {"url": url, "shape": shape, "input": form_of, "tokenizer": merged}
            judge, number_format = open_judge({"reward-endpoint": options}), served_dtype(url)
            assert isinstance(judge, ScorerJudge)
            name = f"served: {shape} at {url}"
            if number_format != "float32":
                name += f", in {number_format}"
            backends.append(scorer_backend(name, judge.scorer, kind_of(number_format)))
        served: list[Generator[Backend]] = []
        if engines:
            folder = Path(find_checkpoint(merged).path)
            if not folder.is_dir():
                raise PalateError(
                    f"{model}: engines are started on a folder; palate export {model} --to FOLDER"
                )
            chat = load_chat(folder)
            for chosen, place in engines:
                way = engine_backends(chosen, place, folder, chat, say=log)
                served.append(opened.enter_context(closing(way)))
        agreements = compare(
            chain(backends, *served),
            candidates,
            tolerance=tolerances,
            progress=lambda name: log(f"{name} ..."),
            emulated=emulated,
            device=default_device(),
        )
    rows: list[dict[str, Any]] = []
    for one in agreements:
        verdict = "same" if one.holds else "differs"
        if not one.promised and not one.holds:
            verdict += ", as docs/engines.md says"
        if one.refused:
            verdict = f"refused: {one.refused}"
        if one.unequal:
            verdict = f"{one.unequal} responses scored by one of the two only"
        row = {
            "way": one.way,
            "responses": one.responses,
            "largest": one.largest,
            "in SD": one.relative,
            "tolerance": one.tolerance,
            "flips": f"{len(one.flips)} of {one.pairs}",
        }
        if one.not_run:
            verdict = f"not run: {one.not_run}"
        if one.not_run or one.refused:
            row = dict.fromkeys(row) | {"way": one.way}
        rows.append({**row, "verdict": verdict})
    reference = backends[0].name
    emit(rows, form, f"{model}: against {reference}")
    if save is not None:
        ways = [asdict(agreement) for agreement in agreements]
        write_json(save, {"model": model, "reference": reference, "ways": ways})
        log(f"saved: {save}")
    if page is not None:
        from palate.cli.engines import page_of

        asked = Path(items).name if items is not None else "a simulated campaign"
        about = f"Of {Path(model).name}: {len(candidates)} prompts of {asked}, on the CPU."
        write_text(page, page_of(agreements, [one for one, _ in engines], about))
        log(f"written: {page}")
    if broken := [one.way for one in agreements if one.promised and not one.holds]:
        raise PalateError(
            f"{model}: not the same scores by {'; '.join(broken)}; do not mix them, or allow the "
            "difference with --tolerance"
        )


def _engines(arguments: Sequence[str], form_of: str) -> list[tuple[Engine, Environment]]:
    """The engines of `--engine`, where each is; all: those that are installed."""
    from palate.engines import ENGINES, find, named
    from palate.types import PalateError

    if arguments and form_of != "chat":
        raise PalateError(
            f"--engine with --input {form_of}: engines are asked by the chat template; leave "
            "--input out"
        )
    found = []
    for argument in arguments:
        if argument != "all":
            engine, path = named(argument)
            found.append((engine, find(engine, path)))
            continue
        for engine in ENGINES.values():
            try:
                found.append((engine, find(engine)))
            except PalateError as missing:
                progress()(f"left out: {missing}")
    if arguments and not found:
        raise PalateError("--engine all: none is installed; palate engines list names them")
    return found


def _tolerances(arguments: Sequence[str]) -> dict[Kind, float]:
    """SD by number format, of `SD` (of float32) and `FORMAT=SD`."""
    from palate.evaluate.parity import TOLERANCE
    from palate.types import PalateError

    tolerances: dict[Kind, float] = {}
    for argument in arguments:
        name, _, number = argument.rpartition("=")
        kind = next((known for known in TOLERANCE if known == (name or "float32")), None)
        try:
            tolerance = float(number)
        except ValueError:
            tolerance = math.nan
        if kind is None or not tolerance >= 0:
            raise PalateError(
                f"--tolerance {argument}: expected a number of at least 0, alone or as "
                f"FORMAT=NUMBER with FORMAT one of {', '.join(TOLERANCE)}"
            )
        tolerances[kind] = tolerance
    return tolerances


@contextmanager
def _merged(model: str, base: str | None) -> Generator[str]:
    """The model's own folder or id; of an adapter, a checkpoint with it merged, for a while."""
    from palate.model.export import export
    from palate.model.loading import is_adapter, reopen
    from palate.types import PalateError

    if not is_adapter(model):
        if base is not None:
            raise PalateError(f"{model}: a whole model, not an adapter; leave --base out")
        yield model
        return
    with temporary_folder("palate-parity-") as folder:
        merged, card = reopen(model, base=base)
        yield str(export(merged, Path(folder) / "merged", card=card))


def _backends(model: str, form: str) -> list[Backend]:
    """Our engine where it can open the model, transformers' own class and its pipeline."""
    from palate.evaluate.parity import (
        classifier_backends,
        pipeline_backend,
        reward_model_backends,
        template_backend,
    )
    from palate.judges import sequence_classifier_spec
    from palate.judges.reward_model import RewardScorer
    from palate.model.backbone import find_checkpoint, load_config
    from palate.model.loading import MAKERS, maker_of
    from palate.types import PalateError

    find_checkpoint(model)  # A folder that is none is no way that is left out.
    spec = sequence_classifier_spec({"model": model, "format": form, "over_limit": "unscored"})
    stock = classifier_backends(spec)
    if form != "chat":
        return stock
    try:
        scorer = RewardScorer(model, dtype="float32")
    except PalateError as error:
        progress()(f"Palate's engine is left out: {error}")
        return stock
    ours = reward_model_backends(scorer)
    maker = maker_of(load_config(model), model)
    if maker in ("openrlhf", "llama-factory"):
        progress()(f"transformers' own ways are left out: {model} is read as {MAKERS[maker]}")
        return ours
    backends = [*ours, *stock, template_backend(model, scorer.model.chat.max_tokens)]
    # Of a foreign tokenizer the pipeline may add a second BOS to the template's.
    return [*backends, pipeline_backend(model)] if maker == "palate" else backends
