"""Which judges a run asks: those of its recipe, and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from palate.judges.llm.providers import PROVIDERS
from palate.recipe.schema import CHAT_JUDGE, TRIVIAL_JUDGES, Recipe
from palate.types import PalateError
from palate.validation import did_you_mean

JudgeSpec = str | dict[str, Any]

PAPER_JUDGES: Mapping[str, dict[str, Any]] = {
    "steamshp-xl": {"text-to-text": {"model": "stanfordnlp/SteamSHP-flan-t5-xl"}},
    "open-assistant": {
        "sequence-classifier": {
            "model": "OpenAssistant/reward-model-deberta-v3-large-v2",
            "format": "pair",
            "over_limit": "cut-oldest",  # It reads 512 tokens, and the paper scored every item.
        }
    },
}
"""Reward models of Llama 2's Table 7 that were not trained for it, by the names of `--judges`."""
CHAT, FORMER_CHAT = "chat", "gpt-4"
ALL = "all"


def chat_judge(recipe: Recipe) -> JudgeSpec:
    """The chat model that is asked where the paper asked GPT-4, which OpenAI no longer serves."""
    said = recipe.judging.chat
    given = said if isinstance(said, dict) else {"model": said}
    # A provider has a model and options of its own.
    return {"chat": given if "provider" in given else {**CHAT_JUDGE, **given}}


def with_judges(recipe: Recipe, wanted: str, say: Callable[[str], None] = lambda _: None) -> Recipe:
    """The recipe with the judges named in `wanted`, by commas.

    `all` means those of the recipe and the paper's. A name is a trivial judge's, a model's, one
    of `PAPER_JUDGES`, `chat` for the one of `judging.chat`, or that of a judge in the recipe.

    Raises:
        PalateError: no judge has that name.
    """
    own = {PurePosixPath(name_of(spec)).name: spec for spec in recipe.judges}
    known = {
        **{name: name for name in (*TRIVIAL_JUDGES, *recipe.models)},
        **PAPER_JUDGES,
        CHAT: chat_judge(recipe),
        **own,
    }
    judges: list[JudgeSpec] = []
    for name in (part.strip() for part in wanted.split(",")):
        if name == ALL:
            judges += [*recipe.judges, *PAPER_JUDGES.values(), known[CHAT]]
        elif name == FORMER_CHAT and name not in known:
            say(
                f"--judges: OpenAI ended {FORMER_CHAT} on 2026-10-23; {name_of(known[CHAT])} is "
                "asked, as by --judges chat (another: --set judging.chat=NAME)"
            )
            judges.append(known[CHAT])
        elif name in known:
            judges.append(known[name])
        else:
            hint = did_you_mean(name, [ALL, *known])
            raise PalateError(f"--judges: no judge {name!r}; {hint}")
    return recipe.model_copy(update={"judges": _distinct(judges)})


def _distinct(judges: Sequence[JudgeSpec]) -> tuple[JudgeSpec, ...]:
    return tuple(judge for n, judge in enumerate(judges) if judge not in judges[:n])


def refuse_one_name(judges: Sequence[JudgeSpec]) -> None:
    """Raise `PalateError` where two judges share a name, under which verdicts are kept."""
    named: dict[str, JudgeSpec] = {}
    for spec in judges:
        if isinstance(spec, dict) and len(spec) != 1:
            continue  # Said where it is opened.
        name = name_of(spec)
        if isinstance(spec, dict) and name in spec and name not in TRIVIAL_JUDGES:
            continue  # It has none of its own; its folder or server names it once it is opened.
        if named.setdefault(name, spec) != spec:
            raise PalateError(
                f"judges: two are called {name!r}, and the verdicts of one would replace the "
                "other's; leave one out, or give it a name of its own: {KIND: {name: NAME}}"
            )


def name_of(spec: JudgeSpec) -> str:
    """What a judge is called: by its own name, else its checkpoint's, else its kind's."""
    if isinstance(spec, str):
        return spec
    ((kind, options),) = spec.items()
    if isinstance(options, str):
        return options
    options = options or {}
    provider = PROVIDERS.get(str(options.get("provider")))
    own = provider.model if provider else kind
    return str(options.get("name") or options.get("model") or own)
