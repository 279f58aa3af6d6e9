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
    "quantization": ("bitsandbytes",),
}


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed; nothing is imported but their parents."""
    modules = []
    for name in EXTRAS[extra]:
        try:
            installed = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # Its parent is missing.
            installed = False
        if not installed:
            modules.append(name)
    return modules


def install_command(extra: str) -> str:
    """The pip command that installs an extra's packages beside this Palate, wherever it came from.

    Palate's own name is not in it: an index that does not have Palate has these packages.
    """
    try:
        requirements = metadata.requires("palate") or []
    except metadata.PackageNotFoundError:  # Run from its source, which was never installed.
        return f"pip install -e '.[{extra}]' in Palate's own folder"
    of_extra = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    packages = [r.partition(";")[0].strip() for r in requirements if of_extra.search(r)]
    # An install in place keeps the requirements of its day, which may be older than an extra.
    packages = packages or [*EXTRAS[extra]]
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
