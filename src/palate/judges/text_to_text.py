"""SteamSHP and its like: an encoder-decoder that reads both responses and names one of them.

Nothing is generated: one step of the decoder gives the logits from which greedy generation would
take the one token of its answer. Shape letters: B questions, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSeq2SeqLM

from palate.judges.batching import batched_answers, batched_scores, by_batches, padded
from palate.judges.huggingface import open_checkpoint, open_device
from palate.judges.options import TextToTextSpec
from palate.judges.prompting import NOTHING, Encoded, PairPrompt, Refused
from palate.judges.scorer import NON_FINITE
from palate.types import Candidates, Message, Pair, PalateError, Preference, Score


@dataclass(frozen=True, slots=True)
class Reading:
    """What the first step gives.

    `token` is the likeliest of all; `of_two` is P(A) / (P(A) + P(B)), `of_all` is P(A).
    """

    token: int
    of_two: float
    of_all: float


class TextToText:
    """A judge of pairs and a scorer of responses; `spec.reading` is what its protocol names.

    `judge` chooses by the letter that greedy generation would answer; one that is neither A nor B
    is unscored. `score` gives P(A) over the whole vocabulary, response B being ".".
    """

    sees_both: ClassVar[bool] = True

    def __init__(self, spec: TextToTextSpec) -> None:
        """Load the checkpoint.

        Raises:
            PalateError: no such checkpoint, no safetensors, needs remote code, no
                encoder-decoder, no single token for A or B.
        """

        def check(config: Any) -> None:
            if not config.is_encoder_decoder:
                raise PalateError(
                    f"{spec.model}: is a {config.model_type}, expected an encoder-decoder such as "
                    "T5; a decoder is a `generation` judge, a one-label model a "
                    "`sequence-classifier`"
                )

        opened = open_checkpoint(
            AutoModelForSeq2SeqLM,
            spec.model,
            "a text-to-text judge",
            check=check,
            revision=spec.revision,
            attention=spec.attention,
        )
        self.name = spec.name or Path(spec.model).name
        self._spec = spec
        self._tokenizer = opened.tokenizer
        self._prompt = PairPrompt(opened.tokenizer, spec.max_tokens, spec.prefixes)
        self._letters: dict[str, int] = {}
        for letter in ("A", "B"):
            ids = opened.tokenizer(letter, add_special_tokens=False)["input_ids"]
            if len(ids) != 1 or ids[0] == opened.tokenizer.unk_token_id:
                raise PalateError(
                    f"{spec.model}: its tokenizer writes {letter!r} as {ids}, expected one known "
                    "token; a text-to-text judge answers A or B in one token"
                )
            self._letters[letter] = int(ids[0])
        self._device = open_device(spec.device)
        self._model = opened.model.to(self._device)
        self._start = opened.config.decoder_start_token_id
        if self._start is None:
            raise PalateError(
                f"{spec.model}: config.json states no decoder_start_token_id (T5's is 0); add it"
            )
        answer = "the likeliest of all tokens; neither A nor B is unscored"
        reward = f"P(A) over the vocabulary, response B is {NOTHING!r}"
        self.protocol: Mapping[str, Any] = {
            "judge": "text-to-text",
            "model": spec.model,
            **opened.identity,
            **self._prompt.protocol,
            "letters": self._letters,
            "dtype": "float32",
            "attention": self._model.config._attn_implementation,
            "device": self._device.type,
            "reading": spec.reading,
            **({"answer": answer} if spec.reading == "pair" else {"reward": reward}),
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """Preferences in the order asked; reads ahead one window of `pairs`."""
        sides: dict[int, Any] = {self._letters["A"]: "first", self._letters["B"]: "second"}

        def encode(pair: Pair) -> list[Encoded | Refused]:
            return [self._prompt.encode(pair.prompt, pair.first, pair.second)]

        window, most = self._spec.window, self._spec.batch_tokens
        read_all = by_batches(self._read, most)
        for pair, (answer,) in batched_answers(pairs, encode, read_all, window, most):
            if isinstance(answer, Refused):
                yield Preference(pair.id, None, reason=answer.reason)
                continue
            question, reading = answer
            if not math.isfinite(reading.of_two):
                yield Preference(pair.id, None, reason=NON_FINITE, truncated=question.truncated)
                continue
            choice = sides.get(reading.token)
            yield Preference(
                pair.id,
                choice,
                reading.of_two,
                1 - reading.of_two,
                reason="" if choice else "unparsed",
                truncated=question.truncated,
                answer=self._tokenizer.decode([reading.token]),
            )

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked; reads ahead one window of `candidates`."""

        def encode(prompt: Sequence[Message], response: str) -> Encoded | Refused:
            return self._prompt.encode(prompt, response, NOTHING)

        def rewards(batch: list[Encoded]) -> list[float]:
            return [reading.of_all for reading in self._read(batch)]

        window, most = self._spec.window, self._spec.batch_tokens
        run = by_batches(rewards, most)
        return batched_scores(candidates, encode, run, window, most)

    @torch.inference_mode()
    def _read(self, batch: list[Encoded]) -> list[Reading]:
        ids, mask = padded([row.ids for row in batch], self._tokenizer.pad_token_id or 0)
        logits = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            decoder_input_ids=torch.full((len(batch), 1), self._start, device=self._device),
            use_cache=False,
        ).logits[:, 0]  # [B, V]
        letters = list(self._letters.values())
        # In float64, so that near 1 two absolute scores still differ.
        of_two = logits[:, letters].double().softmax(-1)[:, 0]
        of_all = logits.double().softmax(-1)[:, letters[0]]
        columns = (logits.argmax(-1).tolist(), of_two.tolist(), of_all.tolist())
        return [Reading(*row) for row in zip(*columns, strict=True)]
