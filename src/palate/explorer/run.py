"""The runs that are open, and the rewards of responses that somebody types.

Each run is opened when first looked at, and its models are loaded when first asked.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from palate.data import transcript
from palate.data.sources.base import InvalidRecord, split_transcript
from palate.explorer.annotations import MARKS, Annotation, Annotations
from palate.explorer.index import Index, Mask, open_index
from palate.explorer.query import Query, Selection, Selector
from palate.types import Candidates, Message, PalateError, Score

if TYPE_CHECKING:
    from palate.judges.reward_model import RewardScorer


@dataclass(frozen=True, slots=True)
class Reward:
    """What one model gives each response; `problem` where it could not be asked."""

    model: str
    scores: tuple[Score, ...] = ()
    problem: str = ""

    @property
    def margin(self) -> float | None:
        """First minus second reward."""
        values = [score.value for score in self.scores]
        if len(values) != 2 or values[0] is None or values[1] is None:
            return None
        return values[0] - values[1]

    @property
    def probability(self) -> float | None:
        """P(the first is preferred) = sigmoid(first - second)."""
        margin = self.margin
        return None if margin is None else 0.5 + 0.5 * math.tanh(margin / 2)


@dataclass(slots=True)
class Rewards:
    """The models of a run, loaded when first asked, one after the other in one thread.

    torch uses all cores for one model.
    """

    folder: Path
    _loaded: dict[str, RewardScorer | str] = field(default_factory=dict)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="rewards")
    )

    @property
    def models(self) -> list[str]:
        """Names of the checkpoints under models/."""
        return sorted(path.parent.name for path in self.folder.glob("models/*/config.json"))

    def warm(self) -> None:
        """Begin to load the models, so that the first answer comes sooner."""
        for model in self.models:
            self._thread.submit(self._load, model)

    def submit(
        self, prompt: tuple[Message, ...], responses: tuple[str, ...], is_wanted: Callable[[], bool]
    ) -> Future[list[Reward]]:
        """Every model's rewards; none if nobody wants them any more when their turn comes."""
        candidates = Candidates(prompt, responses)
        return self._thread.submit(
            lambda: [self._score(model, candidates) for model in self.models if is_wanted()]
        )

    def close(self) -> None:
        """Drop what waits; what runs ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _score(self, name: str, candidates: Candidates) -> Reward:
        model = self._load(name)
        if isinstance(model, str):
            return Reward(name, problem=model)
        try:
            return Reward(name, next(model.score([candidates])))
        except PalateError as error:  # A template that refuses these turns.
            return Reward(name, problem=str(error))

    def _load(self, name: str) -> RewardScorer | str:
        """The model, or why it cannot be opened."""
        if name not in self._loaded:
            from palate.judges.reward_model import RewardScorer

            try:
                self._loaded[name] = RewardScorer(self.folder / "models" / name, name=name)
            except PalateError as error:
                self._loaded[name] = str(error)
        return self._loaded[name]


def read_prompt(text: str) -> tuple[Message, ...]:
    """The turns of a prompt as typed: one user turn, or those that are marked in the text.

    Beyond what a file's prompt may be, a lone `Human:` begins a transcript: `write_prompt` does so.
    """
    if not text.lstrip().startswith("Human:"):
        return transcript.read_prompt(text).turns
    try:
        turns, _ = split_transcript(f"\n\n{text.strip()}\n\nAssistant:", "prompt")
    except InvalidRecord as invalid:
        raise PalateError(invalid.reason) from None
    return turns


def write_prompt(prompt: Sequence[Message]) -> str:
    """The text that `read_prompt` reads back as these turns; system turns are left out."""
    if len(prompt) == 1 and not prompt[0].content.lstrip().startswith("Human:"):
        return prompt[0].content
    names = {"user": "Human", "assistant": "Assistant"}
    turns = [f"{names[m.role]}: {m.content}" for m in prompt if m.role in names]
    return "\n\n".join(turns)


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person at a browser: the name they annotate under, and whether labels are hidden.

    `forced` says that the server hides labels and scores whatever a person asks for.
    """

    annotator: str
    blind: bool
    forced: bool = False


class OpenRun:
    """A run's columns, texts, annotations and models; opened when first looked at."""

    def __init__(self, folder: Path, annotations: Path | None = None, name: str = "") -> None:
        self.folder, self.name = folder, name or folder.name or str(folder)
        self.annotations = Annotations(annotations or folder / MARKS)
        self.rewards = Rewards(folder)
        self._opening = threading.Lock()

    @property
    def index(self) -> Index:
        """The columns of the run."""
        return self.selector.index

    @property
    def selector(self) -> Selector:
        """What answers queries; two first visitors open the run once."""
        with self._opening:
            return self._selector

    @cached_property
    def _selector(self) -> Selector:
        return Selector(open_index(self.folder))

    def open(self) -> None:
        """Open the run now, so that the first visitor need not wait."""
        self.selector.texts.load()

    @cached_property
    def reach(self) -> dict[str, float]:
        """By judge, the margin that fills a bar."""
        return {name: columns.reach() for name, columns in self.index.judges.items()}

    def select(self, query: Query, viewer: Viewer, keep: int | None = None) -> Selection:
        """The items of a viewer's query; `keep` stays whether or not its annotation fits."""
        mask = self._marked(query.marked, viewer.annotator) if query.marked else None
        if mask is not None and keep is not None:
            mask[keep] = True
        return self.selector.select(query, mask)

    def _marked(self, wanted: str, annotator: str) -> Mask:
        choices = {"agree": "chosen", "disagree": "rejected"}
        ids = [
            annotation.comparison_id
            for annotation in self.annotations.by(annotator)
            if wanted not in choices or annotation.choice == choices[wanted]
        ]
        mask = self.index.mask_of(ids)
        if wanted in choices:  # With a tie nobody can agree.
            mask[list(self.index.ties_among(mask.nonzero()[0].tolist()))] = False
        return ~mask if wanted == "no" else mask

    def annotations_of(self, items: Sequence[int], annotator: str) -> dict[int, Annotation]:
        """A person's annotations of some items."""
        own = {
            annotation.comparison_id: annotation for annotation in self.annotations.by(annotator)
        }
        if not own:
            return {}
        ids = self.index.ids_of(items)
        return {item: own[id] for item, id in zip(items, ids, strict=True) if id in own}


def run_names(folders: Sequence[Path]) -> list[str]:
    """Names that tell runs apart: as many last parts of their paths as it takes.

    Every variant of a study ends in a seed: `none/seed-0`, `large/seed-0`.
    """
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(folder) for folder in folders]


@dataclass(frozen=True, slots=True)
class Explorer:
    """What one server shows: runs in the order given, a default name, blind for all or not.

    `newest` counts each person's requests for rewards, of which only the last is answered.
    """

    runs: tuple[OpenRun, ...]
    annotator: str
    blind: bool = False
    newest: dict[str, int] = field(default_factory=dict[str, int])

    def close(self) -> None:
        """Stop the threads of the models."""
        for run in self.runs:
            run.rewards.close()
