"""How to install what a part of Palate needs beyond a plain install."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from importlib import metadata

EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "otel": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}


def missing(extra: str) -> list[str]:
    """The modules of an extra that cannot be found here; nothing is imported but their parents."""
    return [name for name in EXTRAS[extra] if not _found(name)]


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # Its parent is missing.
        return False


def install_command(extra: str) -> str:
    """The pip command that installs an extra's packages beside this Palate, wherever it came from.

    Palate's own name is not in it: an index that does not have Palate has these packages.
    """
    try:
        requirements = metadata.requires("palate") or []
    except metadata.PackageNotFoundError:  # Run from its source, which was never installed.
        return f"pip install -e '.[{extra}]' in Palate's own folder"
    asked = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    packages = [r.partition(";")[0].strip() for r in requirements if asked.search(r)]
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
