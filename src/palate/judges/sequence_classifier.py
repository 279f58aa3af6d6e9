"""Any Hugging Face sequence-classification checkpoint with one label, as a scorer.

Each checkpoint keeps its own input format (pitfall 27) and its own reading of the reward: a row
gets what the stock model gives it alone and unpadded, whatever shares its batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from palate.judges.batching import batched_scores, by_batches, padded
from palate.judges.huggingface import open_checkpoint, open_device
from palate.judges.options import SequenceClassifierSpec
from palate.judges.prompting import NO_LIMIT, Encoded, InputFormat
from palate.model.export import check_exportable
from palate.model.loading import MAKERS, maker_of
from palate.model.tokenizer import check_rows
from palate.types import Candidates, PalateError, Score


class SequenceClassifier:
    """Scores responses with the raw logit of a one-label checkpoint, in float32.

    Within a window rows are deduplicated, sorted by length and padded on the right, so equal
    texts get exactly equal scores. Nothing is truncated unless `over_limit` says so.
    """

    def __init__(self, spec: SequenceClassifierSpec) -> None:
        """Load the checkpoint.

        Raises:
            PalateError: no such checkpoint, no safetensors, needs remote code, not one label,
                no trained head, no chat template, a limit beyond the checkpoint's.
        """
        self._spec = spec
        self.name = spec.name or Path(spec.model).name
        opened = open_checkpoint(
            AutoModelForSequenceClassification,
            spec.model,
            "a reward model",
            check=lambda config: _check_labels(spec, config),
            revision=spec.revision,
            attention=spec.attention,
        )
        tokenizer = opened.tokenizer
        self.device = open_device(spec.device)
        self._model = opened.model.to(self.device)
        self._text_config = self._model.config.get_text_config()
        self._pad_id: int | None = self._text_config.pad_token_id
        self._tokenizer_pad_id: int | None = tokenizer.pad_token_id
        self._format = InputFormat(tokenizer, spec, _limit(spec, opened.config, tokenizer))
        rows = self._model.get_input_embeddings().weight.shape[0]
        check_rows(spec.model, tokenizer, self._format.markers, rows, self._format.sample)
        self.protocol: Mapping[str, Any] = {
            "judge": "sequence-classifier",
            "model": spec.model,
            **opened.identity,
            **self._format.protocol,
            "dtype": "float32",
            "attention": self._model.config._attn_implementation,
            "device": self.device.type,
            "reward": "raw logit",
            "pad_is_eos": self._pad_id is not None and self._pad_id == tokenizer.eos_token_id,
        }

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked; reads ahead one window of `candidates`."""
        window, most = self._spec.window, self._spec.batch_tokens
        logits = by_batches(self._logits, most)
        return batched_scores(candidates, self._format.encode, logits, window, most)

    @torch.inference_mode()
    def _logits(self, batch: list[Encoded]) -> list[float]:
        ids, mask = padded([row.ids for row in batch], self._pad_for(batch))
        inputs = {"input_ids": ids, "attention_mask": mask}
        if batch[0].types is not None:
            inputs["token_type_ids"], _ = padded([row.types or () for row in batch], 0)
        on_device = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        logits: torch.Tensor = self._model(**on_device).logits  # [B, 1]
        return [float(value) for value in logits[:, 0].float().cpu()]

    def _pad_for(self, batch: list[Encoded]) -> int:
        """A padding id under which the stock pooling reads each row where it would alone.

        Decoders read the last token that is not `pad_token_id`, or the last token where the
        config has none. A configured id is kept: alone and padded, the same token is read. Where
        there is none, an id that ends no row is chosen for the batch (pitfalls 3 and 8).
        """
        if self._pad_id is not None:
            return self._pad_id
        last = {row.ids[-1] for row in batch}
        named = self._tokenizer_pad_id
        free = named if named is not None and named not in last else None
        pad = free if free is not None else next(i for i in range(len(last) + 1) if i not in last)
        self._text_config.pad_token_id = pad
        return pad


def _check_labels(spec: SequenceClassifierSpec, config: Any) -> None:
    if (maker := maker_of(config, spec.model)) in ("openrlhf", "llama-factory"):
        raise PalateError(
            f"{spec.model}: {MAKERS[maker]}, which transformers' classifier does not; judge it as "
            f"{{reward-model: {spec.model}}}"
        )
    if maker == "palate":
        check_exportable(config)  # Registers the classifier of an architecture that lacks one.
    if config.num_labels != 1:
        raise PalateError(
            f"{spec.model}: has {config.num_labels} labels, a scalar reward model has 1; a base "
            "model must be trained first, a classifier's logits are not rewards"
        )


def _limit(spec: SequenceClassifierSpec, config: Any, tokenizer: Any) -> int:
    known = (
        getattr(config.get_text_config(), "max_position_embeddings", None),
        tokenizer.model_max_length,
    )
    own = min((int(n) for n in known if n is not None and 0 < n < NO_LIMIT), default=None)
    if own is None and spec.max_tokens is None:
        raise PalateError(f"{spec.model}: states no length limit; set max_tokens")
    if own is not None and spec.max_tokens is not None and spec.max_tokens > own:
        raise PalateError(
            f"{spec.model}: max_tokens {spec.max_tokens} is beyond the checkpoint's {own}"
        )
    return int(spec.max_tokens or own or 0)
