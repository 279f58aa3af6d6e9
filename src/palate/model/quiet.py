"""Loading checkpoints without transformers' progress bars and advice on the user's terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

HUB = logging.getLogger("huggingface_hub")


@contextmanager
def quiet() -> Generator[None]:
    """Silence the log, bars and warnings of transformers and the hub inside; put all back after.

    What must not go unseen (missing weights, a wrong shape) is checked by the caller from the
    loading info instead.
    """
    level, hub_level = transformers_logging.get_verbosity(), HUB.level
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    HUB.setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        HUB.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
