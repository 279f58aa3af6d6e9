"""From YAML to a dictionary: `extends`, `--set`, and mistakes told in one line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from palate.data.sources.files import ending
from palate.types import PalateError
from palate.validation import did_you_mean

BUILT_IN = Path(__file__).parents[1] / "recipes"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads `on` and `1e-5` as YAML 1.2 does.

    Plain PyYAML silently keeps the last of two, takes `on` for true and `1e-5` for text.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise PalateError(f"{_place(loader, key_node)}: expected a name, got {key!r}")
        if key in seen:
            raise PalateError(f"{_place(loader, key_node)}: {key!r} is given twice; keep one")
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


def read(name_or_path: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's dictionary with everything it `extends` laid underneath."""
    if not isinstance(name_or_path, Mapping):
        return _read(find(name_or_path), ())
    own = copy.deepcopy(dict(name_or_path))
    parent = own.pop("extends", None)
    return own if parent is None else merge(_read(find(parent), ()), own)


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    here = path.resolve()
    if here in above:
        chain = " -> ".join(p.name for p in (*above, here))
        raise PalateError(f"{path}: extends itself ({chain}); break the circle")
    own = _parse(path)
    parent = own.pop("extends", None)
    own.setdefault("name", path.stem)
    if parent is None:
        return own
    return merge(_read(find(parent, beside=path.parent), (*above, here)), own)


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
        raise PalateError(f"{path}: expected keys and values, got {type(value).__name__}")
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


def override(recipe: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=c` assignments in order; values are YAML, so lists and null work."""
    result = dict(recipe)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(keys := path.strip().split(".")):
            raise PalateError(f"--set {assignment!r}: expected KEY.KEY=VALUE")
        try:
            value = _yaml(text, "--set")
        except yaml.YAMLError:
            raise PalateError(f"--set {assignment!r}: {text!r} is not a YAML value") from None
        result = merge(result, nested(keys, value))
    return result


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """`a`, `b` and a value as `{a: {b: value}}`."""
    for key in reversed(keys):
        value = {key: value}
    result: dict[str, Any] = value
    return result
