"""Loading checkpoints without transformers' progress bars and advice on the user's terminal."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager

from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging


@contextmanager
def quiet() -> Generator[None]:
    """Silence transformers' log, bars and warnings inside; put all back after.

    What must not go unseen (missing weights, a wrong shape) is checked by the caller from the
    loading info instead.
    """
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        (enable_progress_bars if hub_bars else disable_progress_bars)()
