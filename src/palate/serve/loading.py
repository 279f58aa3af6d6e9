"""From what the command line names to models that are ready to be served."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from transformers import PretrainedConfig

from palate import __version__
from palate.cpus import cores
from palate.model.backbone import folder_digest
from palate.model.device import default_device, keep_memory
from palate.model.export import IDENTITY
from palate.model.loading import load_reward_model
from palate.model.options import Dtype
from palate.model.precision import compute_dtype
from palate.model.reward_model import RewardModel
from palate.serve.combined import Combined, SafetyWords, read_combination
from palate.serve.engine import Engine, Worker
from palate.serve.service import ServedModel
from palate.serve.settings import CACHE_BYTES
from palate.serve.tokenize import Reader
from palate.types import PalateError, digest

LOG = logging.getLogger("palate.serve")


def named(models: Sequence[str]) -> dict[str, str]:
    """`NAME=MODEL` or `MODEL`, which is named after its folder, as name -> model.

    Raises:
        PalateError: two models of one name.
    """
    locations: dict[str, str] = {}
    for model in models:
        name, equals, location = model.partition("=")
        if not equals or "/" in name:
            name, location = Path(model).name, model
        if name in locations:
            raise PalateError(
                f"two models are named {name!r}; name them apart: first={locations[name]} "
                f"second={location}"
            )
        locations[name] = location
    return locations


def chosen_dtype(name: str) -> Dtype:
    """A number format by name; raises `PalateError` where there is none of that name."""
    for dtype in get_args(Dtype):
        if name == dtype:
            return dtype
    raise PalateError(f"--dtype {name}: expected {', '.join(get_args(Dtype))}")


def open_models(
    models: Mapping[str, str],
    *,
    dtype: Dtype = "float32",
    tokens_per_microbatch: int = 4_096,
    max_waiting_tokens: int = 262_144,
    cache_bytes: int = CACHE_BYTES,
    max_tokens: int | None = None,
    max_characters: int = 1 << 18,
    device_lock: threading.Lock | None = None,
    workers: int = 0,
) -> tuple[dict[str, ServedModel], list[Engine]]:
    """Load every model, each with an engine that is not started yet.

    Each computes in this process, or in as many `workers`, processes of their own on the machine's
    GPUs in turn. What shares a device, or a part of the cores, takes turns by one lock:
    `device_lock` in this process, and one for all models' first workers, one for all second, ...
    Prompts are kept in up to `cache_bytes` of each model, shared out among its workers.

    Raises:
        PalateError: a model that is not there or is no reward model.
    """
    keep_memory()
    device, device_lock = default_device(), device_lock or threading.Lock()
    worker_locks = [threading.Lock() for _ in range(workers)]
    compute = compute_dtype(dtype, device)
    served: dict[str, ServedModel] = {}
    engines: list[Engine] = []
    for name, location in models.items():
        load = partial(load_reward_model, location, compute, max_tokens=max_tokens)
        # Where others compute, this one only says what the model is.
        model = load(device="cpu" if workers else device)
        engine = Engine(
            model,
            name=name,
            tokens_per_microbatch=tokens_per_microbatch,
            max_waiting_tokens=max_waiting_tokens,
            cache_bytes=cache_bytes,
            device_lock=device_lock,
            workers=_workers(load, worker_locks, cache_bytes),
        )
        folder = Path(location).expanduser()
        commit = getattr(model.backbone.config, "_commit_hash", None)
        facts = {
            "revision": folder_digest(folder) if folder.is_dir() else commit or "",
            "dtype": str(compute).removeprefix("torch."),
            "device": device.type,
            "attention": model.path,
            "terminal_token": model.chat.terminal,
            "reward_read_at": model.chat.read_at,
            "reward": "raw",
            "version": __version__,
        }
        LOG.info("%s: the reward is read at %s", name, model.chat.read_at)
        fingerprint = digest(facts["revision"], model.chat.fingerprint, facts["dtype"])
        reader = Reader(model.chat, engine.vocabulary, max_characters)
        served[name] = ServedModel(
            name, engine, reader, fingerprint, facts, location, _is_raw(model.backbone.config)
        )
        engines.append(engine)
    return served, engines


def _is_raw(config: PretrainedConfig) -> bool:
    """Whether a checkpoint's configuration asks for its one label as it is.

    As vLLM reads it (`get_act_fn` of 0.33): by `problem_type`, else by the activation that
    sentence-transformers keeps there, else a sigmoid.
    """
    if problem := getattr(config, "problem_type", None):
        return bool(problem == "regression")
    name = (getattr(config, "sentence_transformers", None) or {}).get("activation_fn")
    return (name or getattr(config, "sbert_ce_default_activation_function", None)) == IDENTITY


def _workers(
    load: Callable[..., RewardModel], locks: Sequence[threading.Lock], cache_bytes: int
) -> list[Worker]:
    """A process for each lock, on a GPU or on an equal part of the cores."""
    gpus = torch.cuda.device_count()
    threads = None if gpus or not locks else max(1, cores() // len(locks))
    devices = [f"cuda:{i % gpus}" if gpus else "cpu" for i in range(len(locks))]
    return [
        Worker(
            partial(load, device=device),
            threads=threads,
            cache_bytes=cache_bytes // len(locks),
            device_lock=lock,
        )
        for device, lock in zip(devices, locks, strict=True)
    ]


def add_combined(
    served: dict[str, ServedModel],
    stored: Path,
    *,
    safety: str = "safety",
    helpfulness: str = "helpfulness",
    words: Path | None = None,
    name: str = "combined",
) -> None:
    """Add the two models' combined reward, as a model of its own.

    `stored` is what `palate combine` wrote, `words` a list of what makes a prompt one about safety.

    Raises:
        PalateError: no model of such a name, or others than `stored` was measured with.
    """
    for role in (safety, helpfulness):
        if role not in served:
            raise PalateError(
                f"--combined: no served model is named {role!r} (there are {', '.join(served)}); "
                "name them with --safety and --helpfulness"
            )
    parts = served[safety], served[helpfulness]
    if name in served:
        raise PalateError(f"--combined: a served model is named {name!r}; name it otherwise")
    revisions = [str(part.facts["revision"]) for part in parts]
    combination = read_combination(stored, safety=revisions[0], helpfulness=revisions[1])
    engines = [part.source for part in parts]
    assert isinstance(engines[0], Engine)
    assert isinstance(engines[1], Engine)
    source = Combined(engines[0], engines[1], combination, name=name)
    served[name] = ServedModel(
        name,
        source,
        parts[1].reader.sharing(SafetyWords.read(words) if words else None),
        digest([part.fingerprint for part in parts], asdict(combination)),
        {**parts[1].facts, "reward": "combined and whitened", "threshold": combination.threshold},
    )
