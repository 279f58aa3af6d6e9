"""A mistake in what somebody wrote, as one line: where it is, what is wrong, and the cure.

`explain` makes that line of pydantic's error, `did_you_mean` the hint for a mistyped name. Recipes,
judges, the clients and the server all speak through these two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

if TYPE_CHECKING:  # pydantic takes a fifth of a second, and a name can be mistyped without it.
    from pydantic import BaseModel, ValidationError

SHOWN = 80
"""Characters of a key or of a value that a line shows."""


def did_you_mean(
    name: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6, else_say: str = "known"
) -> str:
    """`did you mean 'epochs'?` of the nearest names, or `known: a, b` where none is near.

    Args:
        most: how many near names to give at most.
        cutoff: likeness from 0 to 1 (difflib's ratio) from which a name is near.
        else_say: the word before the list of all names.
    """
    names = list(known)
    if near := get_close_matches(name[:SHOWN], names, n=most, cutoff=cutoff):
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"{else_say}: {', '.join(names) or 'none'}"


def refuse_unknown(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ValueError` for the first of `names` that is not known; it says the nearest one."""
    listed = list(known)
    for name in names:
        if name not in listed:
            raise ValueError(f"{where}: no {name!r}; {did_you_mean(name, listed)}")


def explain(
    error: ValidationError | Sequence[Mapping[str, Any]],
    model: type[BaseModel] | None = None,
    *,
    root: str = "",
    most: int = 1,
    show_input: bool = True,
) -> str:
    """Pydantic's errors in one line: `train.epoch: unknown key; did you mean 'epochs'?`.

    An unknown key comes first: it often is why another one is missing.

    Args:
        error: pydantic's, or the list of its `errors()`.
        model: what was validated; with it unknown keys get a hint and unions no tag in the path.
        root: the path of a mistake that is not at one key.
        most: how many mistakes to give; the others are counted.
        show_input: whether the value may be shown; not where it can be a secret or a user's text.
    """
    errors = error if isinstance(error, Sequence) else error.errors(include_url=False)
    first = sorted(errors, key=lambda e: e["type"] != "extra_forbidden")[:most]
    lines = "; ".join(_line(e, model, root, show_input) for e in first)
    return f"{lines} (and {len(errors) - most} more)" if len(errors) > most else lines


def _line(
    error: Mapping[str, Any], model: type[BaseModel] | None, root: str, show_input: bool
) -> str:
    from pydantic import BaseModel

    location: Sequence[int | str] = error["loc"]
    path, owner = _path(model, location) if model else ([*map(str, location)], None)
    where = ".".join(part[:SHOWN] for part in path) or root
    if error["type"] == "extra_forbidden":
        message = "unknown key"
        if owner is not None:
            hint = did_you_mean(str(location[-1]), owner.model_fields, most=3, cutoff=0.5)
            message += f"; {hint}"
    elif error["type"] == "missing":
        message = "is required"
    else:
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] in ("tuple_type", "list_type"):
            message = "expected a list, as in [a, b]"
        elif error["type"] in ("dict_type", "mapping_type", "model_type"):
            message = "expected keys and values"
        # A check across keys sees the whole object, which would not fit in a line.
        if show_input and not isinstance(error["input"], dict | BaseModel):
            message += f", got {error['input']!r:.{SHOWN}}"
    return f"{where}: {message}" if where else message


def _path(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[list[str], type[BaseModel] | None]:
    """The keys of a location, and the model in which the last of them was looked for.

    Pydantic puts the tried member of a union into a location; what was written has no such key.
    """
    from pydantic import BaseModel

    path: list[str] = []
    annotation: Any = model
    owner = None
    for key in location:
        union = get_origin(annotation) in (Union, UnionType)
        members = [m for m in get_args(annotation) if m is not NoneType] if union else [annotation]
        models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
        owner = next(iter(models), None)
        if len(members) == 1 or any(key in m.model_fields for m in models):
            path.append(str(key))
        for member in members:
            if member in models and member.__name__ == key:
                annotation = member
            elif member in models and key in member.model_fields:
                annotation = member.model_fields[str(key)].annotation
            elif get_origin(member) in (list, tuple):
                annotation = get_args(member)[0]
            elif get_origin(member) in (dict, Mapping):
                annotation = get_args(member)[1]
            else:
                continue
            break
    return path, owner
