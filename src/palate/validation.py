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
BEGUN = 4
"""Characters from which a name that begins so is nearer than one that is alike: `mtbench`."""
NAMED_BY_FORM = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list, as in [a, b]"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "keys and values"),
}
"""What was expected by pydantic's type of error, where its own words name a type of Python."""
EXPECTED = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    "string_type": "text",
}
"""The same where several members of a union speak and one line has to say what all would take."""


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
    typed = _letters(name[:SHOWN])
    begun = [one for one in names if len(typed) >= BEGUN and _letters(one).startswith(typed)]
    near = get_close_matches(name[:SHOWN], names, n=most, cutoff=cutoff)
    if near := [*dict.fromkeys((*begun, *near))][:most]:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"{else_say}: {', '.join(names) or 'none'}"


def _letters(name: str) -> str:
    """A name as people remember it: without case, dashes and dots."""
    return "".join(c for c in name.casefold() if c.isalnum())


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
    found = _mistakes(errors, model)
    found.sort(key=lambda one: one[0]["type"] != "extra_forbidden")
    lines = "; ".join(_line(one, model, root, show_input) for one in found[:most])
    return f"{lines} (and {len(found) - most} more)" if len(found) > most else lines


def _mistakes(
    errors: Sequence[Mapping[str, Any]], model: type[BaseModel] | None
) -> list[list[Mapping[str, Any]]]:
    """Errors by what they are of: a union gives one a member, all of one value.

    Where a member found its mistake inside the value, the value is of that member's kind, and what
    the others say of the whole is left out.
    """
    by_path: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for error in errors:
        location = error["loc"]
        path = tuple(_path(model, location)[0] if model else map(str, location))
        by_path.setdefault(path, []).append(error)
    return [
        group
        for path, group in by_path.items()
        if len(path) == 0
        or not any(other[: len(path)] == path for other in by_path if len(other) > len(path))
    ]


def _line(
    errors: Sequence[Mapping[str, Any]],
    model: type[BaseModel] | None,
    root: str,
    show_input: bool,
) -> str:
    """The line of one mistake, from what every member of a union says of it."""
    from pydantic import BaseModel

    error = errors[0]
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
        expected = [*dict.fromkeys(filter(None, map(_expected, errors)))]
        message = error["msg"].removeprefix("Value error, ")
        if len(expected) == len(errors) > 1 or error["type"] in NAMED_BY_FORM:
            message = f"expected {' or '.join(expected)}"
        # A check across keys sees the whole object, which would not fit in a line; one that quotes
        # what came has said it, and what is nearest to it.
        came = error["input"]
        quoted = isinstance(came, str) and repr(came) in message
        if show_input and not quoted and not isinstance(came, dict | BaseModel):
            message += f", got {came!r:.{SHOWN}}"
    return f"{where}: {message}" if where else message


def _expected(error: Mapping[str, Any]) -> str | None:
    """What one member of a union would have taken, in words."""
    kind: str = error["type"]
    if kind == "literal_error":
        return str(error["ctx"]["expected"])
    return NAMED_BY_FORM.get(kind) or EXPECTED.get(kind)


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
