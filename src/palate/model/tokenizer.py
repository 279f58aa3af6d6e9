"""From a conversation to tokens: the only place that tokenises for a model of Palate's own.

Foreign judges have their trainers' formats, in `judges/prompting.py`.

A reward is a pure function of (prompt, response): whatever else is in the batch, and whether it
is trained, evaluated or served, one response gets the same tokens.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from palate.model.markers import markers
from palate.model.options import BaseOptions
from palate.model.packing import Tokens
from palate.model.templates import choose_template, render, render_messages, unwritten_parts
from palate.records import write_json
from palate.types import Message, PalateError, content_of, digest

TOO_LONG = "the response alone exceeds max_tokens"
# Where a conversation ends, which is where its reward is read. `terminal`: after the token that
# ends the response, what a template writes behind it (a newline) cut off; every model that Palate
# trains. `template`: where the template's whole text ends, which stock code reads (TRL, ms-swift).
Ending = Literal["terminal", "template"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as tokens, the last of which is read; what was cut from its prompt."""

    ids: Tokens
    cut_turns: int = 0
    cut_tokens: int = 0

    @property
    def truncated(self) -> bool:
        """Whether any of the prompt was cut."""
        return bool(self.cut_turns or self.cut_tokens)


class ChatTokens:
    """A tokenizer, its chat template, where its text ends and a limit, as one fixed rule."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: BaseOptions,
        *,
        ending: Ending = "terminal",
        terminal: str | None = None,
        skipped: int | None = None,
    ) -> None:
        """Fix the rule; raises `PalateError` where the template cannot give a stable reward.

        `terminal` is meant where the template writes several special tokens behind a response.
        `skipped` is the id that stock code takes for padding: with `ending` "template" it reads
        the last token that is another one, though the template itself may end in it.
        """
        self.tokenizer, self.location = tokenizer, options.model
        self.max_tokens = options.max_tokens
        self.ending: Ending = ending
        self._skipped = skipped if ending == "template" else None
        self.template = choose_template(tokenizer.chat_template, options)
        self._markers = markers(tokenizer, self.template)
        # Among these are the end of a turn and what to pad with.
        self._special = sorted(
            {str(t) for t in tokenizer.get_added_vocab()} | set(tokenizer.all_special_tokens),
            key=len,
            reverse=True,
        )
        # Whether the template itself ends the last turn: one that ends only those before it would
        # lose the response where text is cut after the last end.
        self.terminal, self.closes = self._find_terminal(terminal)
        self.terminal_id = int(tokenizer.convert_tokens_to_ids(self.terminal))
        self.pad_id = self._find_pad()
        # What the template writes between a user's turn and the response, such as a header. Turns
        # of other roles may stand before a response too, so without the user's own end.
        turns = [{"role": "user", "content": "\x01"}, {"role": "assistant", "content": "\x00"}]
        between = self._apply(turns).rpartition("\x00")[0].rpartition("\x01")[2]
        self.opening = between.rpartition(self.terminal)[2]
        # The fingerprint needs nothing of it: it follows from the template.
        self.unwritten = unwritten_parts(options.model, tokenizer, self.template)

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides the tokens of a conversation."""
        sample = self.tokenizer("The 21 quick\n\nfoxes — naïve?", add_special_tokens=False)
        rule = [self.template, self.terminal, self.max_tokens, list(sample["input_ids"])]
        # All added tokens were broken once; where that was another set, tokens were others.
        if set(self._markers) != set(self._special):
            rule.append(self._markers)
        if self.ending == "template":  # Left out where it is the rule of every model before.
            rule += [self.ending, self._tail.tolist()]
        return digest(*rule)

    @property
    def read_at(self) -> str:
        """The token whose hidden state becomes the reward, in words."""
        if self.ending == "terminal":
            return f"the terminal token {self.terminal!r}"
        tail = self._tail
        last = repr(self.tokenizer.decode([tail[-1]])) if len(tail) else "the response's last"
        passed = "" if self._skipped is None else self.tokenizer.decode([self._skipped])
        passed = f", passing over {passed!r}" if passed == self.terminal else ""
        return f"the last token of the template's text, {last}{passed}"

    def check_rows(self, rows: int) -> None:
        """Refuse an embedding of `rows` that lacks one for a token that text or template gives.

        What cannot come is no fault: Gemma 3's image token is broken in text, and has no row.
        """
        written = {self.terminal_id, self.pad_id, *self.sample.tolist()}
        check_rows(self.location, self.tokenizer, self._markers, rows, written)

    def encode(
        self, prompt: Sequence[Message], response: str, *, most: int | None = None
    ) -> Encoded | None:
        """Tokens of the conversation, cut to `most` (default `max_tokens`) at its oldest end.

        Whole oldest turns go first (tools and a leading system turn stay), then the oldest tokens
        of the first kept turn's text; never the response or its terminal token, and no result of a
        tool stays without its call. None where the response alone is too long.
        """
        limit = min(most or self.max_tokens, self.max_tokens)
        ids = self._ids(prompt, response)
        if len(ids) <= limit:
            return Encoded(ids)
        count = sum(1 for _ in takewhile(lambda turn: turn.role in ("tools", "system"), prompt[:2]))
        system, turns = tuple(prompt[:count]), tuple(prompt[count:])

        def from_turn(start: int) -> Tokens:
            return self._ids((*system, *turns[start:]), response)

        # It may begin at any user message, where templates start, or at its last turn. Bisected: a
        # client's ten thousand short turns must not be tokenised ten thousand times.
        # A result of a tool cannot: templates refuse one without its call.
        ends = {0, max(0, len(turns) - 1)} - {
            i for i, turn in enumerate(turns) if turn.role == "tool"
        }
        starts = [i for i, turn in enumerate(turns) if i in ends or turn.role == "user"]
        first, *fewer = starts or [0]
        fits = bisect_left(fewer[:-1], True, key=lambda s: len(from_turn(s)) <= limit)
        cut_turns = fewer[fits] if fewer else first
        ids = from_turn(cut_turns)
        if len(ids) <= limit:
            return Encoded(ids, cut_turns)
        if not turns:
            return None
        oldest, *rest = turns[cut_turns:]
        text, fields = oldest.text, oldest.fields
        offsets = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        starts = [start for start, _ in offsets] + [len(text)]

        def without(tokens: int) -> Tokens:
            turn = Message(oldest.role, content_of(text[starts[tokens] :], fields))
            return self._ids((*system, turn, *rest), response)

        cut = 0
        # At the seam a cut may cost a token more, so repeat until it fits.
        while cut < len(offsets) and (excess := len(without(cut)) - limit) > 0:
            cut = min(len(offsets), cut + excess)
        ids = without(cut)
        return Encoded(ids, cut_turns, cut) if len(ids) <= limit else None

    def encode_text(self, text: str, *, most: int | None = None) -> Encoded | None:
        """Tokens of a conversation that a client's template has already written.

        They are those of `encode`, if it is the same template: special tokens are read as such,
        padding at both ends goes, BOS is there once if the template writes one, and what ends a
        conversation once, whether the text had it or not. Over `most` tokens (default
        `max_tokens`) the oldest of the prompt are cut; None where the response alone is too long.
        """
        ids = self._framed(self._tokenise(text))
        limit = min(most or self.max_tokens, self.max_tokens)
        excess = len(ids) - limit
        if excess <= 0:
            return Encoded(ids)
        kept, first = len(self._tail), int(self._writes_bos)
        if self.opening and self.opening in text:
            # Else nothing tells prompt and response apart.
            kept += len(self._tokenise(text.rpartition(self.opening)[2]))
        if kept + first > limit:
            return None
        return Encoded(np.concatenate((ids[:first], ids[first + excess :])), 0, excess)

    def encode_ids(self, ids: Sequence[int]) -> Encoded:
        """Token ids that a client has made, as they stand, up to the last that is not padding.

        Never cut, since where the prompt ends is not known, and never mended: see `fits`.

        Raises:
            PalateError: padding in front, which the tokens behind it would attend to.
        """
        tokens = np.asarray(ids, np.int32)
        padded = self.pad_id if self.ending == "terminal" else self._skipped
        kept = _without_last(tokens, padded)
        if not len(kept):
            raise PalateError("nothing but padding; send the conversation's token ids")
        if kept[0] == padded != self.sample[0]:
            raise PalateError(
                f"begins with padding (token {padded}); send token ids without it, or padded at "
                "the end"
            )
        return Encoded(kept)

    def fits(self, ids: Tokens) -> bool:
        """Whether `ids` begin and end as the template makes a conversation begin and end.

        Where they do not, the reward is read at a token where the model never learnt to be read.
        """
        tail = self._tail
        begins = not self._writes_bos or ids[0] == self.sample[0]
        return begins and (not len(tail) or np.array_equal(ids[-len(tail) :], tail))

    def render(self, prompt: Sequence[Message], response: str) -> str:
        """The conversation as the template writes it, up to where it ends."""
        turns = [*prompt, Message("assistant", response)]
        text = render_messages(
            self.tokenizer, self.template, turns, self._markers, name=self.location
        )
        if self.ending == "template":
            return text
        end = text.rfind(self.terminal) if self.closes else -1
        return text[: end + len(self.terminal)] if end >= 0 else text + self.terminal

    def _ids(self, prompt: Sequence[Message], response: str) -> Tokens:
        ids = self._tokenise(self.render(prompt, response))
        bos = self.tokenizer.bos_token_id
        if len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
            raise PalateError("the template and the tokenizer both write a BOS token")
        if self.ending == "template":
            return _without_last(ids, self._skipped)
        if ids[-1] != self.terminal_id:
            raise PalateError(f"a conversation must end in {self.terminal!r}; check the template")
        return ids

    def _tokenise(self, text: str) -> Tokens:
        # verbose: no warning about lengths, which are cut to max_tokens here and not by the model.
        encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return np.asarray(encoded["input_ids"], np.int32)

    def _framed(self, ids: Tokens) -> Tokens:
        """`ids` without padding, with the template's BOS before and its end behind."""
        tokenizer, tail = self.tokenizer, self._tail
        if not len(tail) or tail[0] != self.terminal_id:
            return _without_last(ids, self._skipped)  # Nothing tells an end from the response.
        ends = [self.terminal_id, tokenizer.pad_token_id, tokenizer.eos_token_id]
        ends = [token for token in ends if token is not None]
        start, stop = 0, len(ids)
        while start < stop and (ids[start] in ends or ids[start] == tokenizer.bos_token_id):
            start += 1
        while stop > start:
            # Templates write a newline after the terminal token; the reward is read before it.
            last = next((i for i in range(stop - 1, max(start, stop - 5), -1) if ids[i] in ends), 0)
            if not last or tokenizer.decode(ids[last + 1 : stop]).strip():
                break
            stop = last
        bos = [tokenizer.bos_token_id] if self._writes_bos else []
        return np.array([*bos, *ids[start:stop], *tail], np.int32)

    def _apply(self, turns: list[dict[str, str]]) -> str:
        return render(self.tokenizer, self.template, turns)

    def _find_terminal(self, meant: str | None) -> tuple[str, bool]:
        """The special token that ends the template's assistant turn, else the EOS token."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\x00"}]
        tail = self._apply(turns).rpartition("\x00")[2]
        ends = [t for t in self._special if t in tail]
        if ends:
            return (meant if meant and meant in ends else min(ends, key=tail.find)), True
        if self.tokenizer.eos_token is None:
            raise PalateError("neither the template nor the tokenizer has an end-of-turn token")
        return str(self.tokenizer.eos_token), False

    @cached_property
    def sample(self) -> Tokens:
        """A short conversation."""
        return self._ids((Message("user", "x"),), "y")

    @cached_property
    def _tail(self) -> Tokens:
        """What stands behind every response, up to the token that is read."""
        if self.ending == "terminal":
            return np.array([self.terminal_id], np.int32)
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "\x00"}]
        return _without_last(
            self._tokenise(self._apply(turns).rpartition("\x00")[2]), self._skipped
        )

    @cached_property
    def _writes_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and bool(self.sample[0] == bos)

    def _find_pad(self) -> int:
        """A padding id that differs from the token that is read (pitfall 3)."""
        if self._skipped is not None:
            return self._skipped
        read = self.terminal_id if self.ending == "terminal" else int(self.sample[-1])
        named = [self.tokenizer.pad_token_id, self.tokenizer.unk_token_id]
        others = self.tokenizer.convert_tokens_to_ids(sorted(self._special))
        for candidate in [*named, *others]:
            if candidate is not None and candidate not in (self.terminal_id, read):
                return int(candidate)
        raise PalateError(
            f"{self.location}: the tokenizer has no token to pad with but {self.terminal!r}, which "
            "ends a response; set backbone.pad_token to a new one, such as <|pad|>, for which the "
            "embedding gets a row"
        )


def check_rows(
    location: str, tokenizer: Any, markers: Sequence[str], rows: int, written: Collection[int] = ()
) -> None:
    """Refuse a tokenizer with tokens beyond an embedding of `rows`, which text would come to.

    `markers` are broken in text, so that their tokens come only where they are in `written`.
    """
    if len(tokenizer) <= rows:
        return
    without_row = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (number in written or token not in markers)
    )
    if without_row:
        raise PalateError(
            f"{location}: the tokenizer has {len(tokenizer)} tokens and the embedding {rows} rows, "
            f"none for {without_row[0][1]!r} (token {without_row[0][0]}); save the model after "
            "resize_token_embeddings(len(tokenizer)), or take the tokenizer that it was made with"
        )


def _without_last(ids: Tokens, skipped: int | None) -> Tokens:
    """`ids` up to the last that is not `skipped`."""
    others = np.flatnonzero(ids != skipped)
    return ids if skipped is None else ids[: others[-1] + 1 if others.size else 0]


# Saving a tokenizer so that it is read back as the same tokenizer.
#
# transformers saves the arguments that a tokenizer was made with, and not all of them: sides that
# were set afterwards are lost, so is `legacy` of Llama 2's, and its class then builds another
# pre-tokenizer than the one in tokenizer.json. What is read back is compared, not assumed.

CONFIG = "tokenizer_config.json"
# Its readers take everything from tokenizer.json; both generations of transformers know it.
FAST = "PreTrainedTokenizerFast"
# Blank edges and runs, which pre-tokenizers split differently, and letters of several bytes.
SAMPLES = (
    "x",
    " The  21 quick\n\nfoxes — naïve?\n",
    "\tdef f(x):\n    return '東京' + x  \r\n",
    "...🎨e\u0301",
)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write `tokenizer` to `folder`; what `AutoTokenizer` makes of it gives the same tokens.

    It pads and truncates on the same sides, to the same length, and declares the same BOS.

    Raises:
        PalateError: its class gives other tokens whatever is written.
    """
    tokenizer.save_pretrained(folder)
    path, expected = folder / CONFIG, _behaviour(tokenizer)
    config = json.loads(path.read_text(encoding="utf-8")) | {
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        # Where the key is missing, a class with a BOS of its own declares that again.
        "bos_token": tokenizer.bos_token,
    }
    write_json(path, config)
    if _behaviour(AutoTokenizer.from_pretrained(folder)) != expected:
        write_json(path, config | {"tokenizer_class": FAST})
        if _behaviour(AutoTokenizer.from_pretrained(folder)) != expected:
            raise PalateError(
                f"{type(tokenizer).__name__}: other tools would read it back with other tokens or "
                "settings, and score something else; use a base model with a plain tokenizer.json"
            )


def _behaviour(tokenizer: Any) -> tuple[Any, ...]:
    """How it splits text, what it adds, and on which side it pads and cuts; to be compared."""
    marked = [f"{mark}{text}{mark}" for mark in tokenizer.all_special_tokens for text in SAMPLES]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*SAMPLES, *marked)],
        tokenizer(SAMPLES[0])["input_ids"],
        tokenizer.padding_side,
        tokenizer.truncation_side,
        tokenizer.model_max_length,
        tokenizer.bos_token,
        # Samples cannot show everything: what comes before the vocabulary is the same.
        backend and (repr(backend.normalizer), repr(backend.pre_tokenizer)),
    )
