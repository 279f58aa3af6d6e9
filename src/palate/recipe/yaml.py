"""From YAML to a dictionary: `extends`, `--set`, renamed keys, and mistakes in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from palate.data.sources.files import ending
from palate.progress import warn
from palate.types import PalateError
from palate.validation import did_you_mean

BUILT_IN = Path(__file__).parents[1] / "recipes"
Keys = Mapping[tuple[str, ...], str]
"""A new word for the last key of each path; `*` is any name of the recipe's own."""
RENAMED: Keys = {
    ("base",): "backbone",
    ("models", "*", "base"): "backbone",
    ("models", "*", "watch"): "eval_sets",
    ("data", "holdout", "halves"): "fractions",
}
"""What recipes of before call these keys: both words are read, wherever a recipe is."""
FIRST_NAMES: Keys = {(*path[:-1], new): path[-1] for path, new in RENAMED.items()}
"""The first word of each renamed key. Fingerprints are made of it, so that a new one changes none.
"""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads `on` and `1e-5` as YAML 1.2 does.

    Plain PyYAML silently keeps the last of two, takes `on` for true and `1e-5` for text. And
    `{last_layers:2}` is a key of that name without a value, which would take away a key that
    nobody has: it is refused.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise PalateError(f"{_place(loader, key_node)}: expected a name, got {key!r}")
        if key in seen:
            raise PalateError(f"{_place(loader, key_node)}: {key!r} is given twice; keep one")
        name, colon, value = key.partition(":")
        if colon and loader.construct_object(value_node) is None:
            raise PalateError(
                f"{_place(loader, key_node)}: {key!r} is one word of YAML; write "
                f"'{name}: {value}', with a space after the colon"
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _place(loader: _Loader, node: yaml.Node) -> str:
    return f"{loader.name}:{node.start_mark.line + 1}"


_BOOLEAN, _FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile("^(true|false)$", re.IGNORECASE), list("tTfF"))
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _yaml(text: str, name: str) -> Any:
    loader = _Loader(text)
    loader.name = name
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def built_in() -> dict[str, Path]:
    """The recipes that come with Palate, by name."""
    return {p.stem: p for p in sorted(BUILT_IN.glob("*.yaml"), key=lambda p: p.stem)}


def find(name_or_path: str | Path, beside: Path | None = None) -> Path:
    """The file of a built-in recipe's name or of a path (relative to `beside`, else to here)."""
    text = str(name_or_path)
    if text in (known := built_in()):
        return known[text]
    path = (beside or Path()) / Path(text).expanduser()
    if path.is_file():
        return path
    files = [path.with_suffix(end) for end in (".yaml", ".yml")]
    near = next((f"did you mean {str(file)!r}?" for file in files if file.is_file()), None)
    hint = near or did_you_mean(text, known, else_say="built in")
    raise PalateError(f"no recipe {text!r}: neither a file nor a built-in name; {hint}")


def read(
    name_or_path: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """A recipe's dictionary: over what it `extends`, then `a.b=c` overrides, in order.

    Keys of before have today's words in it, and one warning says so.
    """
    renamed: dict[str, str] = {}
    if isinstance(name_or_path, Mapping):
        where = "recipe"
        values = rename_keys(name_or_path, RENAMED, where, renamed)
        if (parent := values.pop("extends", None)) is not None:
            values = merge(_read(find(parent), (), renamed), values)
    else:
        path = find(name_or_path)
        where, values = str(path), _read(path, (), renamed)
    for assignment in overrides:
        assigned = rename_keys(_assigned(assignment), RENAMED, f"--set {assignment}", renamed)
        values = merge(values, assigned)
    if renamed:
        words = ", ".join(f"`{old}` is now `{new}`" for old, new in sorted(renamed.items()))
        warn(f"{where}: {words}; the old word still works")
    return values


def _read(path: Path, above: tuple[Path, ...], renamed: dict[str, str]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(p.name for p in (*above, resolved))
        raise PalateError(f"{path}: extends itself ({chain}); break the circle")
    own = rename_keys(_parse(path), RENAMED, str(path), renamed)
    parent = own.pop("extends", None)
    own.setdefault("name", path.stem)
    if parent is None:
        return own
    return merge(_read(find(parent, beside=path.parent), (*above, resolved), renamed), own)


def _parse(path: Path) -> dict[str, Any]:
    if is_data(path):
        raise PalateError(
            f"{path}: expected a recipe in YAML, got a file of data; `palate train FILE --out "
            "FOLDER` trains on it, `palate data lint FILE` looks at it"
        )
    try:
        value = _yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PalateError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise PalateError(f"{where}: not YAML ({problem}); mind the indentation") from None
    if not isinstance(value, dict):
        got = "an empty file" if value is None else type(value).__name__
        raise PalateError(f"{path}: expected keys and values, got {got}")
    return value


def is_data(path: Path) -> bool:
    """Whether a path names data by its ending; a `.json` of one object of keys is a recipe too."""
    if ending(path) != ".json" or not path.is_file():
        return bool(ending(path))
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(value, dict) or "chosen" in value


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`: mappings join, anything else replaces, null takes a key away."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            result[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _assigned(assignment: str) -> dict[str, Any]:
    """`a.b=c` as `{a: {b: c}}`; values are YAML, so lists and null work."""
    path, equals, text = assignment.partition("=")
    if not equals or not all(keys := path.strip().split(".")):
        such_as = "" if equals else f", such as {path}=VALUE, without a space"
        raise PalateError(f"--set {assignment!r}: expected KEY.KEY=VALUE{such_as}")
    try:
        return nested(keys, _yaml(text, "--set"))
    except yaml.YAMLError:
        raise PalateError(f"--set {assignment!r}: {text!r} is not a YAML value") from None


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """`a`, `b` and a value as `{a: {b: value}}`."""
    for key in reversed(keys):
        value = {key: value}
    result: dict[str, Any] = value
    return result


def rename_keys(
    values: Mapping[str, Any], words: Keys, where: str = "", renamed: dict[str, str] | None = None
) -> dict[str, Any]:
    """A recipe's values with the keys that `words` renames; `renamed` takes old word to new.

    The levels of a study set dotted paths of the recipe; these are renamed too.

    Raises:
        PalateError: a key stands there under both words.
    """

    def rename(values: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
        level = above[:2] == ("study", "vary") and len(above) == 4
        result: dict[str, Any] = {}
        for key, value in values.items():
            at, path = (() if level else above), []
            for part in key.split(".") if level else [key]:
                at = (*at, part)
                path.append(next((words[keys] for keys in words if _matches(at, keys)), part))
                if path[-1] != part and renamed is not None:
                    renamed[part] = path[-1]
            new = ".".join(path)
            if new in result or (new != key and new in values):
                raise PalateError(f"{where}: {new} is given under its old word too; keep {new}")
            result[new] = rename(value, at) if isinstance(value, Mapping) else value
        return result

    return rename(values, ())


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(path) == len(pattern) and all(
        want in ("*", key) for want, key in zip(pattern, path, strict=True)
    )
