"""What an engine is: a program of others that people serve or run reward models with.

An `Engine` says how it is installed, how it is started on a model, and the ways in which its users
ask it for a reward. A `Setup` is one start (no flags; the flags that make it right), a `Way` one
way of asking it. Nothing here runs anything: `environment` installs, `session` starts and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from palate.types import Message

if TYPE_CHECKING:
    from palate.engines.session import Session

NumberFormat = Literal["float32", "float16", "bfloat16"]
TORCH = "torch==2.13.0"
"""Asked for alone and first, so that pip takes the index's smallest build (pyproject.toml)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One conversation that ends in a response, in every form in which an engine can be asked.

    `text` is what the model's own template makes of `messages`, `ids` [T] the tokens that Palate
    reads. `prompt` and `response` are for routes that take two texts; a conversation of more than
    one turn before the response cannot be asked there, and `single_turn` is False.
    """

    messages: tuple[Message, ...]
    text: str
    ids: tuple[int, ...]

    @property
    def single_turn(self) -> bool:
        return len(self.messages) == 2 and self.messages[0].role == "user"

    @property
    def prompt(self) -> str:
        return self.messages[0].content

    @property
    def response(self) -> str:
        return self.messages[-1].content


class RefusedError(Exception):
    """The engine cannot be asked in this way; the message is its own words, on one line."""


Ask = Callable[["Session", Sequence[Reading]], Sequence[float | None]]
"""The readings' rewards, in order; None where the engine gives none. May raise RefusedError."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which users ask an engine.

    `route` groups ways that differ only in what is set; `asked` is what a user writes. A way that
    is `promised` must give Palate's rewards; another is measured and shown, so that everybody sees
    what they would get. `pairs` leaves out conversations of several turns.
    """

    route: str
    asked: str
    ask: Ask
    promised: bool = True
    pairs: bool = False
    # What must be set, or why it cannot be had: a sentence for the page.
    note: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """One start of an engine: its flags, and the ways in which it is then asked.

    `number_format` is what it computes in; `session.number_format` wins where the engine tells.
    """

    flags: tuple[str, ...]
    ways: tuple[Way, ...]
    number_format: NumberFormat = "float32"
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        return " ".join(self.flags) or "no flags"


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that runs reward models, how to get it and how to ask it.

    Args:
        name: what is typed after `--engine`.
        title: how it writes itself.
        distribution: the package whose version is the engine's version.
        requirements: what pip installs, pinned; `torch` says that TORCH comes before them.
        without: packages that pip brings and that keep it from starting; removed again.
        oldest: the first version that is known to answer as `setups` say.
        written: the command, or the line of code, as its users write it.
        command: from (program, form of the model, port, setup) to the words that start it. The
            program is the environment's Python, or what `--engine NAME=PATH` names. Port 0: a
            worker, which is asked by lines of JSON (`workers/`), and no server.
        form: makes of an export what the engine reads, in a folder of its own; None: the export.
        health: the path that answers 200 once a server is ready.
        version: of a program that is no Python environment's, or None; where left out, the version
            is that of `distribution` in the environment.
        served: what a ready server says that it serves, or None; another model's is refused.
        number_format: what a session computes in, from its log; None where it does not say.
        cures: a pattern of its log's last lines, and what to do about it.
        missing: what cannot be had of it, in sentences for the page.
        server: whether it is one.
    """

    name: str
    title: str
    distribution: str
    requirements: tuple[str, ...]
    oldest: str
    command: Callable[[Path, Path, int, Setup], Sequence[str]]
    setups: Callable[[int], tuple[Setup, ...]]
    server: bool = True
    torch: bool = True
    without: tuple[str, ...] = ()
    form: Callable[[Path, Path], Path] | None = None
    health: str = "/health"
    version: Callable[[Path], str | None] | None = None
    served: Callable[[Session], str | None] | None = None
    number_format: Callable[[str], NumberFormat | None] | None = None
    cures: Mapping[str, str] = field(default_factory=dict[str, str])
    missing: tuple[str, ...] = ()
    written: str = ""
    # Variables of every start; those of a setup come on top.
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    start_seconds: float = 300.0
