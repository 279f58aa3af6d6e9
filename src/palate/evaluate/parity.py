"""One model scored by every backend that can run it: do the numbers agree? (pitfalls 24 and 30)

A backend is a function from conversations to scores: our engine's paths, transformers' class and
pipeline, an ONNX graph, an adapter that is not merged, a server. All are compared with the first,
the reference: differences in units of the reference's standard deviation, and pairs that flip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import httpx2
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from palate.engines.base import Engine, Reading, RefusedError, Setup, Way
from palate.engines.environment import Environment
from palate.engines.session import Session, running
from palate.judges import sequence_classifier_spec
from palate.judges.baselines import better
from palate.judges.options import SequenceClassifierSpec
from palate.judges.reward_model import OnnxScorer, RewardScorer, encode
from palate.judges.sequence_classifier import SequenceClassifier
from palate.model.backbone import load_config, quiet
from palate.model.device import autocast, native_bfloat16
from palate.model.loading import open_adapter, read_value_head, value_head_of
from palate.model.packing import Tokens, group, microbatches
from palate.model.reward_model import state_width
from palate.model.templates import RefusedTurnsError, render_messages
from palate.model.tokenizer import ChatTokens, Encoded
from palate.process import temporary_folder
from palate.types import Candidates, Message, PalateError, Scorer, is_text

Floats = NDArray[np.float64]
Scoring = Callable[[Sequence[Candidates]], Floats]
Kind = Literal["float32", "float16", "bfloat16", "rounded"]
# In standard deviations of the rewards. float32: what an export must keep (rounding of another
# order of sums stays near 1e-5). bfloat16, computed here: 8 bits of mantissa; tiny models reach
# 0.11. rounded: bfloat16 that is not computed here, but stored, or computed by a server. float16,
# stored or computed by a server: 3 bits more.
TOLERANCE: Mapping[Kind, float] = MappingProxyType(
    {"float32": 1e-3, "float16": 0.2 / 8, "bfloat16": 0.2, "rounded": 0.2}
)
EMULATED = "this device emulates bfloat16; ask for it with --emulated, or run it on a GPU"


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to score; `score` gives [R], one number a response, NaN where there is none.

    `asks` says of which responses, [R], where it cannot be asked all: the others are no difference.
    A backend that is not `promised` is shown, and breaks nothing. `details` are facts for a reader.
    """

    name: str
    kind: Kind
    score: Scoring
    asks: Callable[[Sequence[Candidates]], NDArray[np.bool_]] | None = None
    promised: bool = True
    details: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the backend named `way` differs from the reference, or `not_run` with the reason.

    `largest` and `mean` are |difference| in rewards; `relative` is `largest` in standard
    deviations of the reference's rewards. `unequal` counts responses that only one of the two
    scored. `flips` are the pairs, as (candidates, response, response), that changed sides.
    `refused` is what an engine said that cannot be asked so.
    """

    way: str
    kind: Kind
    tolerance: float
    responses: int = 0
    pairs: int = 0
    largest: float = 0.0
    mean: float = 0.0
    relative: float = 0.0
    unequal: int = 0
    flips: tuple[tuple[int, int, int], ...] = ()
    not_run: str = ""
    refused: str = ""
    promised: bool = True
    details: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def holds(self) -> bool:
        """Whether the scores are the same within the tolerance; True where not run."""
        return not self.refused and not self.unequal and self.relative <= self.tolerance


def parity(
    backends: Iterable[Backend],
    candidates: Sequence[Candidates],
    *,
    tolerance: Mapping[Kind, float] = TOLERANCE,
    progress: Callable[[str], None] = lambda _: None,
    emulated: bool = True,
    device: torch.device | None = None,
) -> list[Agreement]:
    """Score `candidates` by every backend and compare each with the first.

    Args:
        backends: at least two; those that hold an engine open come one by one.
        tolerance: of each number format, in standard deviations of the rewards; `TOLERANCE` of
            those that it does not name.
        progress: called with the name of each backend before it runs.
        emulated: False leaves bfloat16 out where `device` has no hardware for it.

    Raises:
        PalateError: the reference gives no two different scores, so that nothing can be compared.
    """
    others = iter(backends)
    reference = next(others)
    progress(reference.name)
    expected = reference.score(candidates)
    spread = float(np.nanstd(expected)) if np.isfinite(expected).any() else 0.0
    if not spread:
        raise PalateError(
            f"{reference.name}: gives no two different rewards to {expected.size} responses, so "
            "no other way can be compared with it; give more --items"
        )
    agreements = []
    for backend in others:
        limit = tolerance.get(backend.kind, TOLERANCE[backend.kind])
        slow = device is not None and backend.kind == "bfloat16" and not native_bfloat16(device)
        if slow and not emulated:
            agreements.append(Agreement(backend.name, backend.kind, limit, not_run=EMULATED))
            continue
        progress(backend.name)
        described = partial(
            Agreement,
            backend.name,
            backend.kind,
            limit,
            promised=backend.promised,
            details=backend.details,
        )
        try:
            scores = backend.score(candidates)
        except RefusedError as refusal:
            agreements.append(described(refused=str(refusal)))
            continue
        asked = np.full(expected.size, True) if backend.asks is None else backend.asks(candidates)
        scored, scored_too = np.isfinite(expected) & asked, np.isfinite(scores) & asked
        pairs, flips, start = 0, [], 0
        for index, shown in enumerate(candidates):
            rows = range(start, start + len(shown.responses))
            start = rows.stop
            for a, b in combinations([r for r in rows if scored[r] and scored_too[r]], 2):
                pairs += 1
                if better(expected[a], expected[b]) != better(scores[a], scores[b]):
                    flips.append((index, a - rows.start, b - rows.start))
        gap = np.abs(scores - expected)[scored & scored_too]
        largest = float(gap.max(initial=0.0))
        agreement = described(
            responses=gap.size,
            pairs=pairs,
            largest=largest,
            mean=float(gap.mean()) if gap.size else math.nan,
            relative=largest / spread,
            unequal=int((scored != scored_too).sum()),
            flips=tuple(flips),
        )
        agreements.append(agreement)
    return agreements


TOKENS_PER_MICROBATCH, ROWS_PER_BATCH = 4_096, 16


def scorer_backend(name: str, scorer: Scorer, kind: Kind = "float32") -> Backend:
    """Any scorer as a backend: a server, another program's model."""
    return Backend(name, kind, partial(_rewards, scorer))


def _rewards(scorer: Scorer, candidates: Sequence[Candidates]) -> Floats:
    """The scores of every response, [R]; NaN where there is none."""
    scores = scorer.score(iter(candidates))
    values = [math.nan if s.value is None else s.value for row in scores for s in row]
    return np.array(values, dtype=np.float64)


def kind_of(dtype: str) -> Kind:
    """The kind of a backend by the number format that is stored, or that a server computes in."""
    name = dtype.removeprefix("torch.")
    if name == "float16":
        return "float16"
    return "rounded" if name == "bfloat16" else "float32"


def served_dtype(url: str) -> str:
    """The number format that a server says it computes in: Palate's /v1/models, TEI's /info.

    float32 where it does not say (vLLM's and SGLang's do not).
    """
    for path in ("v1/models", "info"):
        with suppress(httpx2.HTTPError, ValueError, LookupError, TypeError):
            reply = httpx2.get(f"{url.rstrip('/')}/{path}", timeout=10).json()
            dtype = reply["model_dtype"] if path == "info" else reply["data"][0]["dtype"]
            if dtype in ("float32", "float16", "bfloat16"):
                return str(dtype)
    return "float32"


def reward_model_backends(scorer: RewardScorer) -> list[Backend]:
    """Every path of our own engine; the first is the one that trains, judges and scores."""
    model = scorer.model

    shared = partial(_rewards, scorer)

    def in_bfloat16(candidates: Sequence[Candidates]) -> Floats:
        before, model.dtype = model.dtype, torch.bfloat16
        try:
            return shared(candidates)
        finally:
            model.dtype = before

    def packed(rows: Sequence[Tokens]) -> Floats:
        rewards = np.empty(len(rows))
        groups = [group([row], shared=False) for row in rows]
        for indices, chosen in microbatches(groups, TOKENS_PER_MICROBATCH):
            rewards[indices] = model(chosen).reward.float().cpu().numpy()
        return rewards

    def padded(rows: Sequence[Tokens], count: int) -> Floats:
        starts = range(0, len(rows), count)
        rewards = (model.forward_padded(rows[start : start + count]).reward for start in starts)
        return np.concatenate([reward.float().cpu().numpy() for reward in rewards])

    def by_rows(reward: Callable[[Sequence[Tokens]], Floats]) -> Scoring:
        return lambda candidates: _by_rows(model.chat, candidates, reward)

    def alone(candidates: Sequence[Candidates]) -> Floats:
        return np.concatenate([shared([shown]) for shown in candidates])

    return [
        Backend(f"Palate: {model.path}", "float32", shared),
        Backend("Palate: one prompt at a time", "float32", alone),
        Backend("Palate: packed, prompts not shared", "float32", by_rows(packed)),
        Backend(
            f"Palate: padded, {ROWS_PER_BATCH} rows a batch",
            "float32",
            by_rows(lambda rows: padded(rows, ROWS_PER_BATCH)),
        ),
        Backend(
            "Palate: padded, one row at a time", "float32", by_rows(lambda rows: padded(rows, 1))
        ),
        Backend("Palate: bfloat16", "bfloat16", in_bfloat16),
    ]


def classifier_backends(spec: SequenceClassifierSpec) -> list[Backend]:
    """The sequence classifier as transformers loads it; the first in rows of like length."""
    alone = spec.model_copy(update={"batch_tokens": 1})
    eager = spec.model_copy(update={"attention": "eager"})

    def stock(given: SequenceClassifierSpec) -> Scoring:
        # Opened when it runs, so that no two of the models are held at once.
        return lambda candidates: _rewards(SequenceClassifier(given), candidates)

    def in_bfloat16(candidates: Sequence[Candidates]) -> Floats:
        opened = SequenceClassifier(spec)
        with autocast(torch.bfloat16, opened.device):
            return _rewards(opened, candidates)

    return [
        Backend("transformers: batches of like length", "float32", stock(spec)),
        Backend("transformers: one row at a time", "float32", stock(alone)),
        Backend("transformers: eager attention", "float32", stock(eager)),
        Backend("transformers: bfloat16", "bfloat16", in_bfloat16),
    ]


@torch.inference_mode()
def _by_rows(
    chat: ChatTokens,
    candidates: Sequence[Candidates],
    reward: Callable[[Sequence[Tokens]], Floats],
) -> Floats:
    """Rewards of every response as a row of its own; NaN where it has no tokens."""
    encoded = [encode(chat, item.prompt, r) for item in candidates for r in item.responses]
    rows = [row.ids for row in encoded if isinstance(row, Encoded)]
    rewards = iter(reward(rows) if rows else ())
    return np.array([next(rewards) if isinstance(row, Encoded) else math.nan for row in encoded])


def pipeline_backend(folder: str) -> Backend:
    """Stock `pipeline("text-classification")` on rendered text, one at a time.

    What is longer than the limit has none: the pipeline would not cut it as we do.
    """

    def score(candidates: Sequence[Candidates]) -> Floats:
        with quiet():
            scored = pipeline(
                "text-classification", model=folder, device="cpu", dtype=torch.float32
            )
        tokenizer, rewards = scored.tokenizer, []
        for text in _templated(tokenizer, candidates):
            fits = text and len(tokenizer(text)["input_ids"]) <= tokenizer.model_max_length
            rewards.append(scored(text, function_to_apply="none")[0]["score"] if fits else math.nan)
        return np.array(rewards, dtype=np.float64)

    return Backend("transformers: text-classification pipeline", "float32", score)


def _templated(tokenizer: Any, candidates: Sequence[Candidates]) -> Iterator[str | None]:
    """Every conversation as the tokenizer's own template writes it; None where it refuses it."""
    template = tokenizer.get_chat_template()
    for item in candidates:
        for response in item.responses:
            conversation = [*item.prompt, Message("assistant", response)]
            try:
                yield render_messages(tokenizer, template, conversation)
            except RefusedTurnsError:
                yield None


def template_backend(folder: str, max_tokens: int) -> Backend:
    """Stock class and stock tokenizer: ids as `apply_chat_template` writes them, one at a time.

    Nothing of Palate's touches the tokens, so a reward that is read at another place shows here.
    What is over `max_tokens` has none: it would not be cut as we do.
    """

    def score(candidates: Sequence[Candidates]) -> Floats:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True
            ).eval()
        rows = [
            [] if text is None else tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in _templated(tokenizer, candidates)
        ]
        with torch.inference_mode():
            values = [
                _logits(model, [np.asarray(row)])[0] if 0 < len(row) <= max_tokens else math.nan
                for row in rows
            ]
        return np.array(values, dtype=np.float64)

    return Backend("transformers: the template as it stands", "float32", score)


def export_backend(folder: Path, form: str) -> Backend:
    """Another checkpoint of the model, as transformers opens it: in float32, whatever it stores."""
    dtype = getattr(load_config(str(folder)), "dtype", None)
    kind = kind_of(str(dtype or torch.float32))
    spec = sequence_classifier_spec(
        {"model": str(folder), "format": form, "over_limit": "unscored"}
    )
    name = f"transformers: {folder.name}" + ("" if kind == "float32" else f", stored as {dtype}")
    return Backend(name, kind, lambda shown: _rewards(SequenceClassifier(spec), shown))


def onnx_backend(folder: Path) -> Backend:
    """The ONNX export in `folder`, opened when it runs."""
    return Backend(
        f"ONNX Runtime: {folder.name}",
        "float32",
        lambda candidates: _rewards(OnnxScorer(folder), candidates),
    )


def gguf_backend(folder: Path) -> Backend:
    """The GGUF export in `folder`, dequantised and opened by Palate when it runs."""
    stored = load_config(str(folder)).palate["gguf"]
    return Backend(
        f"Palate: {folder.name}, stored as {stored}",
        "float32" if stored == "F32" else "rounded",
        lambda candidates: _rewards(RewardScorer(folder, dtype="float32"), candidates),
    )


def adapter_backend(folder: Path, base: str | None, chat: ChatTokens) -> Backend:
    """The adapter in `folder` beside its base, not merged, as peft runs it."""

    def score(candidates: Sequence[Candidates]) -> Floats:
        opened = open_adapter(folder, base=base)
        model = opened.model
        # Where the base model pads with its end of turn the stock class would read another token.
        model.config.get_text_config().pad_token_id = chat.pad_id
        path = value_head_of(folder)
        if path is None:
            return _by_rows(chat, candidates, lambda rows: _logits(model, rows))
        # LLaMA-Factory's: the last hidden state by its head, without the constant.
        weight = read_value_head(path, state_width(model.config)).weight[0]

        def value(row: Tokens) -> float:
            ids = torch.from_numpy(row.astype(np.int64))[None]
            hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
            return float(hidden.float() @ weight)

        return _by_rows(chat, candidates, lambda rows: np.array([value(row) for row in rows]))

    return Backend("peft: the adapter, not merged", "float32", score)


def _logits(model: Any, rows: Sequence[Tokens]) -> Floats:
    ids = (torch.from_numpy(row.astype(np.int64))[None] for row in rows)
    return np.array([float(model(input_ids=row).logits[0, 0]) for row in ids])


def engine_backends(
    engine: Engine,
    environment: Environment,
    model: Path,
    chat: ChatTokens,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Generator[Backend]:
    """Every way to ask a real engine that serves the export in `model`, one setup after the other.

    An engine runs from its first way to its last; closing the generator ends it. What Palate would
    cut, and what is more than text, is not asked: every engine cuts in its own way.

    Raises:
        PalateError: the engine does not start, or dies.
    """
    with temporary_folder("palate-form-") as folder:
        form = model if engine.form is None else engine.form(model, Path(folder))
        for setup in engine.setups(chat.max_tokens):
            with running(engine, environment, setup, form.absolute(), say=say) as session:
                for way in setup.ways:
                    yield _engine_backend(session, setup, way, chat)


def _engine_backend(session: Session, setup: Setup, way: Way, chat: ChatTokens) -> Backend:
    """One way of an engine that runs."""
    engine, number_format = session.engine, session.number_format()

    def readings(candidates: Sequence[Candidates]) -> list[Reading | None]:
        """One a response; None where it is not asked."""
        rows = (_reading(chat, c.prompt, r) for c in candidates for r in c.responses)
        return [row if row and (row.single_turn or not way.pairs) else None for row in rows]

    def score(candidates: Sequence[Candidates]) -> Floats:
        rows = readings(candidates)
        values = iter(way.ask(session, [row for row in rows if row is not None]))
        rewards = [None if row is None else next(values) for row in rows]
        return np.array([math.nan if r is None else r for r in rewards], dtype=np.float64)

    def asks(candidates: Sequence[Candidates]) -> NDArray[np.bool_]:
        return np.array([row is not None for row in readings(candidates)])

    return Backend(
        f"{engine.title}, {setup.name}: {way.route}, {way.asked}",
        "rounded" if number_format == "bfloat16" else number_format,
        score,
        asks,
        way.promised,
        {
            "engine": engine.title,
            "version": session.version,
            "flags": setup.name,
            "command": engine.written,
            "route": way.route,
            "asked": way.asked,
            "computes in": number_format,
            "note": way.note,
        },
    )


def _reading(chat: ChatTokens, prompt: Sequence[Message], response: str) -> Reading | None:
    """A conversation in the forms in which engines are asked, if it is plain text and fits."""
    if not is_text(prompt, response):
        return None
    encoded = encode(chat, prompt, response)
    if not isinstance(encoded, Encoded) or encoded.truncated:
        return None
    messages = (*prompt, Message("assistant", response))
    return Reading(messages, chat.render(prompt, response), tuple(map(int, encoded.ids)))
