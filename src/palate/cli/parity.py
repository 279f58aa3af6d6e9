"""`palate parity`: one model, scored every way that it can be."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.output import Format, FormatOption, emit, progress

if TYPE_CHECKING:
    from palate.evaluate.parity import Agreement, Kind, Way
    from palate.types import Candidates


def parity(
    model: Annotated[str, typer.Argument(help="Folder or hub id; a PEFT adapter's folder too.")],
    items: Annotated[
        Path | None,
        typer.Option("--items", help="JSONL or Parquet as `palate score` takes, or comparisons."),
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
        typer.Option("--with", help="Another export of it, compared too: checkpoint or ONNX."),
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
    emulated: Annotated[
        bool, typer.Option("--emulated", help="Run bfloat16 where the device emulates it: slow.")
    ] = False,
    save: Annotated[Path | None, typer.Option("--save", help="JSON file with all of it.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Score the same responses every way the model can be scored; exit 1 if the numbers part.

    Alone and in batches, padded, packed, with shared prompts, in bfloat16, by transformers' class
    and pipeline and on its template as it stands, as other exports (--with), as an adapter merged
    and not, by a server (--url).
    Without --items: a simulated campaign's responses.
    Example: [bold]palate parity runs/demo/models/safety --with safety-onnx[/bold]
    """
    from palate.evaluate.parity import parity as compare
    from palate.model.device import default_device
    from palate.records import write_json
    from palate.types import PalateError

    say, allowed = progress(), _tolerance(tolerance or [])
    with _whole(model, base) as whole:
        ways = _ways(whole, form_of)
        if whole != model:
            ways.insert(1, _unmerged(model, base, whole))
        ways += [_other(folder, form_of) for folder in others or []]
        if url is not None:
            ways.append(_served(whole, url, shape, form_of))
        found = compare(
            ways,
            _candidates(items, count),
            tolerance=allowed,
            told=lambda name: say(f"{name} ..."),
            emulated=emulated,
            device=default_device(),
        )
    emit([_row(agreement) for agreement in found], form, f"{model}: against {ways[0].name}")
    if save is not None:
        write_json(save, {"model": model, "reference": ways[0].name, "ways": [*map(asdict, found)]})
        say(f"saved: {save}")
    if broken := [agreement.way for agreement in found if not agreement.holds]:
        raise PalateError(
            f"{model}: not the same scores by {'; '.join(broken)}; do not mix them, or allow the "
            "difference with --tolerance"
        )


def _tolerance(given: Sequence[str]) -> dict[Kind, float]:
    """SD by number format, of `SD` (of float32) and `FORMAT=SD`."""
    from palate.evaluate.parity import TOLERANCE
    from palate.types import PalateError

    found: dict[Kind, float] = {}
    for words in given:
        name, _, number = words.rpartition("=")
        kind = next((known for known in TOLERANCE if known == (name or "float32")), None)
        try:
            allowed = float(number)
        except ValueError:
            allowed = math.nan
        if kind is None or not allowed >= 0:
            raise PalateError(
                f"--tolerance {words}: expected a number of at least 0, alone or as FORMAT=NUMBER "
                f"with FORMAT one of {', '.join(TOLERANCE)}"
            )
        found[kind] = allowed
    return found


@contextmanager
def _whole(model: str, base: str | None) -> Generator[str]:
    """The model's own folder or id; of an adapter, a checkpoint with it merged, for a while."""
    from palate.model.loading import is_adapter
    from palate.types import PalateError

    if not is_adapter(model):
        if base is not None:
            raise PalateError(f"{model}: a whole model, not an adapter; leave --base out")
        yield model
        return
    from palate.model.export import export
    from palate.model.loading import reopen

    with TemporaryDirectory(prefix="palate-parity-") as folder:
        merged, card = reopen(model, base=base)
        yield str(export(merged, Path(folder) / "merged", card=card))


def _ways(model: str, form: str) -> list[Way]:
    """Our engine where it can open the model, transformers' own class and its pipeline."""
    from palate.evaluate.parity import (
        classifier_ways,
        pipeline_way,
        reward_model_ways,
        template_way,
    )
    from palate.judges import sequence_classifier_spec
    from palate.judges.reward_model import RewardScorer
    from palate.model.backbone import load_config
    from palate.model.loading import MAKERS, maker_of
    from palate.types import PalateError

    spec = sequence_classifier_spec({"model": model, "format": form, "over_limit": "unscored"})
    stock = classifier_ways(spec)
    if form != "chat":
        return stock
    try:
        scorer = RewardScorer(model, dtype="float32")
    except PalateError as error:
        progress()(f"Palate's engine is left out: {error}")
        return stock
    ways = reward_model_ways(scorer)
    maker = maker_of(load_config(model), model)
    if maker in ("openrlhf", "llama-factory"):
        progress()(f"transformers' own ways are left out: {model} is read as {MAKERS[maker]}")
        return ways
    ways += [*stock, template_way(model, scorer.model.chat.max_tokens)]
    # Of a foreign tokenizer the pipeline may add a second BOS to the template's.
    return [*ways, pipeline_way(model)] if maker == "palate" else ways


def _unmerged(model: str, base: str | None, merged: str) -> Way:
    from palate.evaluate.parity import adapter_way
    from palate.model.loading import load_chat

    return adapter_way(Path(model), base, load_chat(Path(merged)))


def _other(folder: Path, form: str) -> Way:
    """Another export: an ONNX graph, or a checkpoint, which may hold its weights in bfloat16."""
    from palate.evaluate.parity import export_way, onnx_way
    from palate.model.onnx import is_onnx

    return onnx_way(folder) if is_onnx(folder) else export_way(folder, form)


def _served(model: str, url: str, shape: str, form: str) -> Way:
    from palate.evaluate.parity import kind_of, scorer_way, served_dtype
    from palate.judges import ScorerJudge, open_judge

    options = {"url": url, "shape": shape, "input": form, "tokenizer": model}
    judge = open_judge({"reward-endpoint": options})
    assert isinstance(judge, ScorerJudge)
    dtype = served_dtype(url)
    name = f"served: {shape} at {url}" + ("" if dtype == "float32" else f", in {dtype}")
    return scorer_way(name, judge.scorer, kind_of(dtype))


def _candidates(items: Path | None, count: int) -> list[Candidates]:
    from itertools import islice

    from palate.evaluate.scoring import SHAPES, requests
    from palate.types import Candidates

    if items is None:
        from palate.data.simulation import CampaignOptions, simulate

        campaign = simulate(CampaignOptions(weeks=1, comparisons_per_week=count), seed=0)
        return [Candidates(c.prompt, (c.chosen, c.rejected)) for c in campaign]
    takes = tuple(SHAPES)
    return [request.candidates for request in islice(requests(items, takes), count)]


def _row(agreement: Agreement) -> dict[str, Any]:
    found = agreement
    if found.not_run:
        blank = dict.fromkeys(("responses", "largest", "in SD", "tolerance", "flips"))
        return {"way": found.way, **blank, "verdict": f"not run: {found.not_run}"}
    return {
        "way": found.way,
        "responses": found.responses,
        "largest": found.largest,
        "in SD": found.relative,
        "tolerance": found.tolerance,
        "flips": f"{len(found.flips)} of {found.pairs}",
        "verdict": "same" if found.holds else _why(found),
    }


def _why(agreement: Agreement) -> str:
    if agreement.unequal:
        return f"{agreement.unequal} responses scored by one of the two only"
    return "differs"
