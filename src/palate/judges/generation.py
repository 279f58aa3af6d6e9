"""The chat judge's question to a local checkpoint, so that a user without an API has its row.

Nothing is sampled: one forward pass gives the logits of the first token of the answer, and the
likelier of A and B is the choice. Shape letters: B questions, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from palate.judges.baselines import better
from palate.judges.batching import batched_answers, by_batches, padded
from palate.judges.options import GenerationSpec
from palate.judges.prompting import TOO_LONG, Encoded, Refused
from palate.judges.questions import load_prompt, presets
from palate.judges.scorer import NON_FINITE
from palate.model.backbone import load_backbone
from palate.model.device import autocast, default_device, keep_memory
from palate.model.markers import breaking, markers
from palate.model.options import BaseOptions
from palate.model.precision import compute_dtype
from palate.model.templates import choose_template
from palate.model.tokenizer import check_rows
from palate.types import Pair, PalateError, Preference, digest

FORMS = ("{}", "Ġ{}", "▁{}")  # A letter alone, and after a space in either kind of vocabulary.


class GenerationJudge:
    """Sees both responses at once; scores are A's and B's share of P(A) + P(B)."""

    sees_both: ClassVar[bool] = True

    def __init__(self, spec: GenerationSpec) -> None:
        """Load the checkpoint.

        Raises:
            PalateError: no such checkpoint or preset, no chat template, no single token for A or
                B, a limit beyond the checkpoint's.
        """
        keep_memory()
        self._spec, self._prompt, self._device = spec, load_prompt(spec.preset), default_device()
        if self._prompt.asks != "pair" or self._prompt.explained:
            raise PalateError(
                f"generation: preset {spec.preset}: one forward pass gives a letter, A or B; "
                f"expected one of {', '.join(presets('pair'))}, or a file that asks the same"
            )
        self._dtype = compute_dtype(spec.dtype, self._device)
        opened = load_backbone(spec.model, revision=spec.revision, keep_head=True)
        opened.log_unused()
        self._tokenizer, self._model = opened.tokenizer, opened.model.to(self._device)
        self._template = _template(spec, opened.tokenizer.chat_template)
        # The tokens that begin an answer with each letter.
        vocabulary = opened.tokenizer.get_vocab()
        self._letters: list[list[int]] = []
        for letter in "AB":
            forms = [form.format(letter) for form in FORMS]
            self._letters.append(sorted(vocabulary[form] for form in forms if form in vocabulary))
            if not self._letters[-1]:
                raise PalateError(
                    f"generation: {opened.location}: its vocabulary has no token {letter}; "
                    "expected a tokenizer with Latin letters"
                )
        text = opened.model.config.get_text_config()
        own = getattr(text, "max_position_embeddings", None) or opened.tokenizer.model_max_length
        if spec.max_tokens is not None and spec.max_tokens > own:
            raise PalateError(
                f"generation: {spec.model}: max_tokens {spec.max_tokens} is beyond its {own}"
            )
        self._limit = int(spec.max_tokens or own)
        self._markers = markers(opened.tokenizer, self._template)
        rows = self._model.get_input_embeddings().weight.shape[0]
        check_rows(spec.model, opened.tokenizer, self._markers, rows)
        self.name = spec.name or Path(spec.model).name
        self.protocol: Mapping[str, Any] = {
            "judge": "generation",
            "model": spec.model,
            "revision": opened.revision,
            "prompt": self._prompt.name,
            "prompt_fingerprint": self._prompt.fingerprint,
            "template": digest(self._template),
            "special_tokens_in_text": breaking(self._tokenizer, self._markers),
            "letters": self._letters,
            "max_tokens": self._limit,
            "truncation": "never",
            "dtype": str(self._dtype).removeprefix("torch."),
            "attention": self._model.config._attn_implementation,
            "device": self._device.type,
            "reading": "logits of A and B at the first position of the answer",
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One preference for each pair, in order; reads ahead one window.

        `answer` is the likeliest first token of all, `seconds` a question's part of its batch.
        """
        window, most = self._spec.window, self._spec.batch_tokens
        read_all = by_batches(self._read, most)
        rows = batched_answers(pairs, lambda pair: [self._encode(pair)], read_all, window, most)
        for pair, (read,) in rows:
            if isinstance(read, Refused):
                yield Preference(pair.id, None, reason=read.reason)
                continue
            _, (a, b, token, seconds) = read
            if not (math.isfinite(a) and math.isfinite(b)):
                yield Preference(pair.id, None, reason=NON_FINITE, answer=token, seconds=seconds)
                continue
            share = float(torch.sigmoid(torch.tensor(a - b, dtype=torch.float64)))
            yield Preference(
                pair.id, better(a, b), share, 1.0 - share, answer=token, seconds=seconds
            )

    def _encode(self, pair: Pair) -> Encoded | Refused:
        turn = {"role": "user", "content": self._prompt.ask(pair, self._markers)}
        text = self._tokenizer.apply_chat_template(
            [turn], chat_template=self._template, tokenize=False, add_generation_prompt=True
        )
        # verbose: no advice about lengths, which are checked here.
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) > self._limit:
            return Refused(TOO_LONG, len(ids))
        return Encoded(tuple(ids), None)

    @torch.inference_mode()
    def _read(self, batch: list[Encoded]) -> list[tuple[float, float, str, float]]:
        """Of each question the log weights of A and B, the likeliest token, and its seconds."""
        begun = time.perf_counter()
        # Padded on the left, so that every row's last token is at the same place. [B, T]
        ids, mask = padded([row.ids for row in batch], 0, left=True)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with autocast(self._dtype, self._device):
            logits: Tensor = self._model(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                position_ids=positions.to(self._device),
                logits_to_keep=1,
            ).logits[:, -1]
        logits = logits.float()  # [B, V]
        a, b = (logits[:, letter].logsumexp(-1).tolist() for letter in self._letters)
        tokens = [self._tokenizer.decode([token]) for token in logits.argmax(-1).tolist()]
        seconds = (time.perf_counter() - begun) / len(batch)
        return [(*row, seconds) for row in zip(a, b, tokens, strict=True)]


def _template(spec: GenerationSpec, own: str | Mapping[str, str] | None) -> str:
    if spec.template == "model" and not own:
        raise PalateError(
            f"generation: {spec.model} has no chat template, so it is not known how to ask it; "
            "set template to chatml or a Jinja file, or take the model's chat version"
        )
    options = BaseOptions(
        model=spec.model, template=spec.template, template_variables={"date_string": spec.date}
    )
    try:
        return choose_template(own, options)
    except PalateError as error:
        raise PalateError(str(error).replace("backbone.template", "generation.template")) from None
