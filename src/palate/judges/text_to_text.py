"""SteamSHP and its like: an encoder-decoder that reads both responses and names one of them.

Nothing is generated: one step of the decoder gives the logits from which greedy generation would
take the one token of its answer. Shape letters: B questions, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSeq2SeqLM

from palate.judges.huggingface import batches, open_checkpoint, open_device, padded
from palate.judges.options import TextToTextSpec
from palate.judges.prompting import NOTHING, Encoded, PairPrompt, Refused
from palate.judges.scalar import NON_FINITE
from palate.types import Candidates, Pair, PalateError, Preference, Score

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the first step says.

    `token` is the likeliest of all; `of_two` is P(A) / (P(A) + P(B)), `of_all` is P(A).
    """

    token: int
    of_two: float
    of_all: float


class Reader:
    """Puts questions to the checkpoint, in batches of like length; equal ones are asked once."""

    def __init__(self, spec: TextToTextSpec) -> None:
        opened = open_checkpoint(
            AutoModelForSeq2SeqLM,
            spec.model,
            "a text-to-text judge",
            check=lambda config: _check_encoder_decoder(spec, config),
            revision=spec.revision,
            attention=spec.attention,
        )
        self.spec = spec
        self.name = spec.name or Path(spec.model).name
        self.tokenizer = opened.tokenizer
        self.prompt = PairPrompt(opened.tokenizer, spec.max_tokens, spec.prefixes)
        self.letters = {letter: _letter(spec, opened.tokenizer, letter) for letter in ("A", "B")}
        self._device = open_device(spec.device)
        self._model = opened.model.to(self._device)
        self._start = _start(spec, opened.config)
        self.protocol: Mapping[str, Any] = {
            "judge": "text-to-text",
            "model": spec.model,
            **opened.identity,
            **self.prompt.protocol,
            "letters": self.letters,
            "dtype": "float32",
            "attention": self._model.config._attn_implementation,
            "device": self._device.type,
        }

    def read(self, questions: Sequence[Encoded | Refused]) -> dict[Ids, Reading]:
        """The readings by token ids; refused questions are passed over."""
        unique = list(dict.fromkeys(q.ids for q in questions if isinstance(q, Encoded)))
        found: dict[Ids, Reading] = {}
        for batch in batches(unique, len, self.spec.batch_tokens):
            found.update(zip(batch, self._read(batch), strict=True))
        return found

    @torch.inference_mode()
    def _read(self, batch: Sequence[Ids]) -> list[Reading]:
        longest = len(batch[0])
        logits = self._model(
            input_ids=padded(batch, longest, self.tokenizer.pad_token_id or 0).to(self._device),
            attention_mask=padded([(1,) * len(ids) for ids in batch], longest, 0).to(self._device),
            decoder_input_ids=torch.full((len(batch), 1), self._start, device=self._device),
            use_cache=False,
        ).logits[:, 0]  # [B, V]
        letters = list(self.letters.values())
        # In float64, so that near 1 two absolute scores still differ.
        of_two = logits[:, letters].double().softmax(-1)[:, 0]
        of_all = logits.double().softmax(-1)[:, letters[0]]
        tokens = logits.argmax(-1)
        columns = (tokens.tolist(), of_two.tolist(), of_all.tolist())
        return [Reading(*row) for row in zip(*columns, strict=True)]


class TextToText:
    """Judges a pair by the letter that greedy generation would answer.

    An answer that is neither A nor B is unscored. Scores are P(A) and P(B) of the two letters.
    """

    sees_both: ClassVar[bool] = True

    def __init__(self, spec: TextToTextSpec) -> None:
        """Load the checkpoint.

        Raises:
            PalateError: no such checkpoint, no safetensors, needs remote code, no
                encoder-decoder, no single token for A or B.
        """
        self._reader = Reader(spec)
        self.name = self._reader.name
        self.protocol: Mapping[str, Any] = {
            **self._reader.protocol,
            "reading": "pair",
            "answer": "the likeliest of all tokens; neither A nor B is unscored",
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """Preferences in the order asked; reads ahead one window of `pairs`."""
        stream = iter(pairs)
        while window := list(islice(stream, self._reader.spec.window)):
            encode = self._reader.prompt.encode
            questions = [encode(pair.prompt, pair.first, pair.second) for pair in window]
            found = self._reader.read(questions)
            for pair, asked in zip(window, questions, strict=True):
                if isinstance(asked, Refused):
                    yield Preference(pair.id, None, reason=asked.reason)
                else:
                    yield self._preference(pair.id, found[asked.ids], asked.truncated)

    def _preference(self, pair_id: str, reading: Reading, truncated: bool) -> Preference:
        if not math.isfinite(reading.of_two):
            return Preference(pair_id, None, reason=NON_FINITE, truncated=truncated)
        letters = self._reader.letters
        said = self._reader.tokenizer.decode([reading.token])
        sides = {letters["A"]: "first", letters["B"]: "second"}
        choice: Any = sides.get(reading.token)
        return Preference(
            pair_id,
            choice,
            reading.of_two,
            1 - reading.of_two,
            reason="" if choice else "unparsed",
            truncated=truncated,
            answer=said,
        )


class TextToTextScorer:
    """Scores one response by P(A) over the whole vocabulary, response B being "."."""

    def __init__(self, spec: TextToTextSpec) -> None:
        """Load the checkpoint; raises `PalateError` as `TextToText` does."""
        self._reader = Reader(spec)
        self.name = self._reader.name
        self.protocol: Mapping[str, Any] = {
            **self._reader.protocol,
            "reading": "absolute",
            "reward": f"P(A) over the vocabulary, response B is {NOTHING!r}",
        }

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked; reads ahead one window of `candidates`."""
        stream = iter(candidates)
        while window := list(islice(stream, self._reader.spec.window)):
            encode = self._reader.prompt.encode
            rows = [[encode(c.prompt, r, NOTHING) for r in c.responses] for c in window]
            found = self._reader.read([asked for row in rows for asked in row])
            for row in rows:
                yield tuple(_score(asked, found) for asked in row)


def _score(asked: Encoded | Refused, found: Mapping[Ids, Reading]) -> Score:
    if isinstance(asked, Refused):
        return Score(None, asked.reason, tokens=asked.tokens)
    value, tokens = found[asked.ids].of_all, len(asked.ids)
    if not math.isfinite(value):
        return Score(None, NON_FINITE, asked.truncated, tokens)
    return Score(value, "", asked.truncated, tokens)


def _check_encoder_decoder(spec: TextToTextSpec, config: Any) -> None:
    if not config.is_encoder_decoder:
        raise PalateError(
            f"{spec.model}: is a {config.model_type}, expected an encoder-decoder such as T5; a "
            "decoder is a `generation` judge, a one-label model a `sequence-classifier`"
        )


def _letter(spec: TextToTextSpec, tokenizer: Any, letter: str) -> int:
    ids = tokenizer(letter, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise PalateError(
            f"{spec.model}: its tokenizer writes {letter!r} as {ids}, expected one known token; "
            "a text-to-text judge answers A or B in one token"
        )
    return int(ids[0])


def _start(spec: TextToTextSpec, config: Any) -> int:
    start = config.decoder_start_token_id
    if start is None:
        raise PalateError(
            f"{spec.model}: config.json states no decoder_start_token_id (T5's is 0); add it"
        )
    return int(start)
