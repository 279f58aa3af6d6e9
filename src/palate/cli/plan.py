"""`palate plan`: memory and time of training a recipe, before it starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.cli.options import DataOption, Format, FormatOption, SetOption, emit
from palate.cli.recipes import OutOption, RecipeArgument
from palate.types import PalateError

if TYPE_CHECKING:
    from palate.recipe.forecast import Forecast, Machines


UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class PlanFormat(StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    JSON = "json"


def plan(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    out: OutOption = None,
    gpus: Annotated[
        int,
        typer.Option(
            "--gpus",
            metavar="N",
            min=0,
            max=1_000_000,
            help="GPUs to train on; 0 is this machine's CPU.",
        ),
    ] = 0,
    gpu: Annotated[str, typer.Option("--gpu", help="a100, h100, h200 or b200.")] = "h100",
    gpu_memory: Annotated[
        str, typer.Option("--gpu-memory", metavar="80G", help="Memory of one GPU.")
    ] = "80G",
    per_node: Annotated[
        int, typer.Option("--gpus-per-node", metavar="N", min=1, help="GPUs of one machine.")
    ] = 8,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape",
            help="Plan for llama2-70b, llama2-7b, llama3-1b or a folder with a config.json.",
        ),
    ] = None,
    comparisons: Annotated[
        str | None,
        typer.Option("--comparisons", metavar="3M", help="Default: the mixture's, once made."),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens-per-comparison", metavar="N", help="Prompt once and both responses."
        ),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(
            "--mfu", metavar="N", min=0.01, max=1, help="Model FLOPs over peak; assumed 0.4."
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a layer of the model here, for a CPU's hours.")
    ] = False,
    form: Annotated[PlanFormat, typer.Option("--format", help="How the plan is printed.")] = (
        PlanFormat.TABLE
    ),
) -> None:
    """Say whether a recipe's models fit into memory and how long they train; exit code 1 if not.

    Reads the backbone's config.json and no weights.
    Example: [bold]palate plan llama2-full --gpus 8 --gpu-memory 80G[/bold]
    """
    from palate.recipe import load_recipe
    from palate.recipe.forecast import Amounts, Machines, forecast
    from palate.train.cost import LAYER_FRACTION, MFU, PEAKS

    loaded = load_recipe(recipe, overrides or ())
    stated = Amounts(
        shape=shape,
        comparisons=None if comparisons is None else round(number(comparisons)),
        tokens=None if tokens is None else number(tokens),
    )
    memory = number(gpu_memory)
    if not gpus:
        machines = Machines(0, measures=measure, utilisation=mfu or LAYER_FRACTION)
    elif gpu not in PEAKS:
        raise PalateError(f"--gpu {gpu}: expected one of {', '.join(PEAKS)}")
    else:
        machines = Machines(gpus, per_node, round(memory), PEAKS[gpu], utilisation=mfu or MFU)
    folder = out or Path("runs") / loaded.name
    forecasts = [forecast(loaded, name, folder, machines, stated) for name in loaded.models]
    plans = [_figures(one, machines) for one in forecasts]
    if form is PlanFormat.JSON:
        sys.stdout.write(json.dumps(plans, indent=2) + "\n")
    else:
        for one, values in zip(forecasts, plans, strict=True):
            _print(one, values)
    if not all(values["fits"] for values in plans):
        raise typer.Exit(1)


def number(text: str) -> float:
    """A number with K, M, G or T behind it."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        return float(digits) * (UNITS[unit] if unit else 1)
    except (ValueError, KeyError):
        raise PalateError(f"{text!r}: expected a number such as 600, 3M or 80G") from None


def _figures(one: Forecast, machines: Machines) -> dict[str, Any]:
    """All figures of a plan, in bytes, seconds and operations."""
    from palate.train.cost import (
        cures,
        fits,
        flops,
        largest_microbatch,
        memory_parts,
        microbatches,
        total_bytes,
    )

    model, setup, data = one.anatomy, one.setup, one.data
    work, memory, enough = flops(model, data, setup), memory_parts(model, setup), fits(model, setup)
    return {
        "model": one.name,
        "parameters": model.parameters,
        "trainable": model.trainable,
        "device": setup.device,
        "processes": setup.processes,
        "shards": setup.shards,
        "dtype": "bfloat16" if setup.bfloat16 else "float32",
        "activation_checkpointing": setup.checkpointing,
        "parts_bytes": {part.name: part.bytes for part in memory},
        "total_bytes": total_bytes(memory),
        "capacity_bytes": setup.capacity,
        "fits": enough,
        "cures": [] if enough else cures(model, setup),
        "tokens_per_microbatch": setup.microbatch,
        "largest_microbatch": largest_microbatch(model, setup),
        "comparisons": data.comparisons,
        "tokens_per_comparison": data.tokens,
        "trainings": one.trainings,
        "steps": data.steps,
        "warmup_steps": one.course.warmup,
        "warning": one.course.trouble or None,
        "microbatches_per_step": microbatches(data, setup),
        "flops": work.model * data.comparisons * data.epochs * one.trainings,
        "recomputed_flops": work.recomputed * data.comparisons * data.epochs * one.trainings,
        "rate_flops": one.rate,
        "utilisation": machines.utilisation,
        "compute_seconds_per_step": one.pace and one.pace.compute,
        "communication_seconds_per_step": one.pace and one.pace.communication,
        "hours": one.hours,
        "kept_states_bytes": one.kept if one.keeps else 0,
    }


def _print(one: Forecast, values: Mapping[str, Any]) -> None:
    from palate.train.cost import memory_parts

    where = "a GPU" if values["device"] == "cuda" else "this machine"
    rows: list[Mapping[str, Any]] = [
        {"memory": part.name, "GB": round(part.bytes / 1e9, 2), "how": part.why}
        for part in memory_parts(one.anatomy, one.setup)
    ]
    total, room = values["total_bytes"] / 1e9, values["capacity_bytes"] / 1e9
    rows.append({"memory": "total", "GB": round(total, 2), "how": f"of {room:.1f} GB of {where}"})
    emit(rows, Format.TABLE, f"{one.name}: memory of {where}")
    emit(_facts(one, values), Format.TABLE, f"{one.name}: time")
    if values["fits"]:
        sys.stdout.write(
            f"FITS: {total:.1f} of {room:.1f} GB; micro-batches could hold "
            f"{values['largest_microbatch']:,} tokens\n"
        )
    else:
        sys.stdout.write(
            f"DOES NOT FIT: {total:.1f} of {room:.1f} GB; cure: {', or '.join(values['cures'])}\n"
        )
    if values["warning"]:
        sys.stdout.write(f"WARNING: {one.name}: {values['warning']}\n")


def _facts(one: Forecast, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    from palate.recipe.run import spoken

    data, count, shards = one.data, values["processes"], values["shards"]
    facts = {
        "parameters": f"{values['parameters']:,}, {values['trainable']:,} learn",
        "devices": f"{count}, {count // shards} copies on compute.shards={shards}",
        "number format": f"{values['dtype']}, float32 weights",
        "comparisons": f"{data.comparisons:,} of {data.tokens:,.0f} tokens",
        "steps": f"{data.steps:,} of {data.pairs_per_step:,} comparisons, "
        f"{values['warmup_steps']:,} of them warm-up, "
        f"{values['microbatches_per_step']:,} micro-batches a device",
        "operations": f"{values['flops']:.3g}, and {values['recomputed_flops']:.3g} done again",
    }
    if one.trainings > 1:
        facts["trainings"] = f"{one.trainings}, one after another, each a member of an ensemble"
    if one.kept:
        facts["frozen layers"] = (
            f"{one.anatomy.layers - one.anatomy.layers_passed} of {one.anatomy.layers}, run once "
            f"for each conversation: {one.kept / 1e9:.1f} GB of disk until the training ends"
            if one.keeps
            else f"run each time: {one.kept / 1e9:.1f} GB of states, {one.free / 1e9:.1f} GB free"
        )
    if one.pace is None:
        facts["time"] = "not known: add --measure"
    else:
        facts["rate"] = f"{values['utilisation']:.0%} of {values['rate_flops'] / 1e12:,.3g} TFLOP/s"
        facts["a step"] = (
            f"{one.pace.compute:.2f} s, beside it {one.pace.communication:.2f} s of communication"
        )
        facts["time"] = (
            f"{spoken(one.seconds or 0)}, without evaluation, saving and what is beside training"
        )
    return [{"what": what, "figure": figure} for what, figure in facts.items()]


# `palate doctor`: what this machine can run.


def doctor(data: DataOption = None, form: FormatOption = Format.TABLE) -> None:
    """Check versions, device, memory, disk, data and the demo's model.

    Exit code 1 where something needed is missing. Example: [bold]palate doctor --format json[/bold]
    """
    from palate.doctor import examine

    findings = examine(data)
    emit((asdict(finding) for finding in findings), form, "This machine")
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)
