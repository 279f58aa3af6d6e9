"""The engines that people serve and run reward models with, run as they are.

An engine is a file here and a line of `ENGINES`. The file makes an `Engine` (`base.py`): what pip
installs, the command that starts it, and its setups with the ways in which users ask it. A server
is asked by `session.post`; a library by `workers/NAME.py`, which runs in the library's own
environment and gives a function for each way. `palate parity MODEL --engine NAME` then holds each
way against Palate's own rewards, and `docs/engines.md` is made of such a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from palate.engines.base import Engine
from palate.engines.environment import Environment, find, install, root
from palate.engines.infinity import INFINITY
from palate.engines.llama_cpp import LLAMA_CPP
from palate.engines.onnxruntime import ONNXRUNTIME
from palate.engines.openvino import OPENVINO
from palate.engines.sentence_transformers import SENTENCE_TRANSFORMERS
from palate.engines.transformers import TRANSFORMERS
from palate.engines.vllm import VLLM
from palate.types import PalateError

ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        engine.name: engine
        for engine in (
            VLLM,
            LLAMA_CPP,
            SENTENCE_TRANSFORMERS,
            INFINITY,
            TRANSFORMERS,
            ONNXRUNTIME,
            OPENVINO,
        )
    }
)

__all__ = ["ENGINES", "Engine", "Environment", "find", "install", "named", "root"]


def named(argument: str) -> tuple[Engine, Path | None]:
    """The engine of NAME or NAME=PATH, and the path.

    Raises:
        PalateError: an engine that is not known, or nothing after the `=`.
    """
    name, equals, path = argument.partition("=")
    if name not in ENGINES:
        raise PalateError(f"{argument}: no engine; expected one of {', '.join(ENGINES)}")
    if equals and not path:  # A variable of the shell that is not set.
        raise PalateError(
            f"{argument}: no path after =; name an environment, or {name} alone for the one that "
            f"palate engines install {name} makes"
        )
    return ENGINES[name], Path(path).expanduser() if path else None
