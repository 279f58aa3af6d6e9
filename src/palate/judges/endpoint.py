"""A reward model behind HTTP as a scorer: in order, in bounded parallel, the raw reward."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from transformers import AutoTokenizer

from palate.http import Retry, Server, TransientError, bearer_key, error_line
from palate.judges.options import RewardEndpointSpec, SequenceClassifierSpec
from palate.judges.prompting import (
    NO_LIMIT,
    Encoded,
    InputFormat,
    Refused,
    labelled,
    question,
)
from palate.judges.scorer import NON_FINITE
from palate.model.backbone import quiet
from palate.model.markers import broken, untokenised_markers
from palate.types import Candidates, Message, PalateError, Score, digest, in_words, is_text

# What an endpoint is sent of a conversation: token ids, text, two texts, or messages.

Content = tuple[int, ...] | str | tuple[str, str] | tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EndpointInput:
    """One conversation as it is sent; `prompt` is its prompt alone, for shapes that want it."""

    content: Content
    prompt: str
    truncated: bool = False
    tokens: int = 0


class EndpointFormat:
    """From (prompt, response) to what is sent.

    With a tokenizer it is what `SequenceClassifier` reads of the same format, so that a server of
    the same model reads the same tokens.
    """

    def __init__(self, spec: RewardEndpointSpec, *, takes_ids: bool) -> None:
        """Open the tokenizer, if any; raises `PalateError` where it cannot be."""
        self._spec = spec
        self._takes_ids = takes_ids
        self._tokenizer: Any = None
        self._format: InputFormat | None = None
        if spec.tokenizer is None or spec.input == "messages":
            return
        try:
            with quiet():
                self._tokenizer = AutoTokenizer.from_pretrained(
                    spec.tokenizer, revision=spec.revision or "main", trust_remote_code=False
                )
        except Exception as error:  # Each tokenizer raises its own.
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise PalateError(
                f"{spec.tokenizer}: cannot be opened as a tokenizer ({first[:200]}); expected a "
                "hub id or folder"
            ) from None
        own_limit = self._tokenizer.model_max_length
        limit = spec.max_tokens or (int(own_limit) if 0 < own_limit < NO_LIMIT else NO_LIMIT)
        classifier = SequenceClassifierSpec(
            model=spec.tokenizer,
            format=spec.input,
            over_limit=spec.over_limit,
            prefixes=spec.prefixes,
            suffix=spec.suffix,
            date=spec.date,
        )
        self._format = InputFormat(self._tokenizer, classifier, limit)

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides what is sent, as JSON values."""
        if self._format is not None:
            sent = "token ids" if self._takes_ids else "text"
            return {**self._format.protocol, "sent": sent}
        spec = self._spec
        template: list[Any] = [dict(spec.prefixes), spec.suffix] if spec.input != "messages" else []
        return {
            "format": spec.input,
            "template": digest(template),
            "sent": spec.input,
            "special_tokens_in_text": "known ones broken by a zero-width space",
        }

    def encode(self, prompt: Sequence[Message], response: str) -> EndpointInput | Refused:
        """What is sent, or the reason why nothing is."""
        clean = [Message(m.role, self._broken(in_words(m.content))) for m in prompt]
        prompt_text = question(clean, self._spec.prefixes)
        if self._format is not None:
            encoded = self._format.encode(prompt, response)
            if isinstance(encoded, Refused):
                return encoded
            content: Content = encoded.ids if self._takes_ids else self._text(encoded)
            return EndpointInput(content, prompt_text, encoded.truncated, len(encoded.ids))
        turns = [*clean, Message("assistant", self._broken(in_words(response)))]
        match self._spec.input:
            case "messages" if not is_text(prompt, response):
                # A server's template may drop what it does not know, and would not say so.
                return Refused("tools, their calls and reasoning are not sent as messages")
            case "messages":
                content = tuple((turn.role, turn.content) for turn in turns)
            case "pair":
                content = prompt_text, turns[-1].content
            case _:
                content = labelled(turns, self._spec.prefixes) + self._spec.suffix
        return EndpointInput(content, prompt_text)

    def _broken(self, text: str) -> str:
        """`text` without what the server would read as the end of a turn."""
        if self._format is not None:
            return broken(text, self._format.markers)
        own_text = (*self._spec.prefixes.values(), self._spec.suffix)
        return broken(text, untokenised_markers(text, own_text))

    def _text(self, encoded: Encoded) -> Content:
        """The text that becomes `encoded` where the server adds special tokens (pitfall 4)."""
        if self._spec.input == "pair":
            return encoded.texts[0], encoded.texts[1]
        (text,) = encoded.texts
        without_bos = text.removeprefix(self._tokenizer.bos_token or "")
        for candidate in (text, without_bos):
            if tuple(self._tokenizer(candidate, verbose=False)["input_ids"]) == encoded.ids:
                return candidate
        raise PalateError(
            f"{self._spec.tokenizer}: as text, shape {self._spec.shape} would read other tokens "
            "than the template's; serve the model in a shape that takes ids (vllm-classify, "
            "sglang-classify)"
        )


# The shapes in which servers take conversations and give rewards; always the raw reward.
#
# Each is a path, a body for several conversations, and a way to read the answer. A server that
# squashes one label through a sigmoid by default is told not to (pitfall 30).

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """`read` gives the reward of each conversation that the answer has one for, by its number.

    It raises KeyError, TypeError, IndexError or ValueError where the answer is of another shape.
    """

    path: str
    takes_ids: bool
    body: Callable[[RewardEndpointSpec, Sequence[EndpointInput]], Body]
    read: Callable[[Any], Mapping[int, Any]]


def _vllm_body(spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    body: Body = {"use_activation": False}
    if spec.model is not None:
        body["model"] = spec.model
    if spec.input != "messages":
        return body | {"input": [_json(one.content) for one in inputs]}
    turns: Any = inputs[0].content  # Messages are of one conversation.
    return body | {"messages": [{"role": role, "content": text} for role, text in turns]}


def _sglang_body(_spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    key = "text" if isinstance(inputs[0].content, str) else "input_ids"
    return {key: [_json(one.content) for one in inputs]}


def _tei_body(_spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    # A list of two strings would be one pair, so each text is a list of its own.
    texts = [[one.content] if isinstance(one.content, str) else list(one.content) for one in inputs]
    return {"inputs": texts, "raw_scores": True, "truncate": False}


def _openrlhf_body(_spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    return {
        "query": [one.content for one in inputs],
        "prompts": [one.prompt for one in inputs],
        "labels": ["" for _ in inputs],
    }


def _json(content: Content) -> Any:
    return content if isinstance(content, str) else list(content)


def _vllm_rewards(key: str) -> Callable[[Any], Mapping[int, Any]]:
    def read(answer: Any) -> Mapping[int, Any]:
        rows = enumerate(answer["data"])
        return {int(row.get("index", number)): _only(row[key]) for number, row in rows}

    return read


def _sglang_rewards(answer: Any) -> Mapping[int, Any]:
    rows = [answer] if isinstance(answer, Mapping) else answer
    return {number: _only(row["embedding"]) for number, row in enumerate(rows)}


def _tei_rewards(answer: Any) -> Mapping[int, Any]:
    rows = [_only(row) for row in answer]
    return {number: row["score"] for number, row in enumerate(rows)}


def _openrlhf_rewards(answer: Any) -> Mapping[int, Any]:
    rewards = answer["rewards"]
    return dict(enumerate(map(_only, rewards if isinstance(rewards, list) else [rewards])))


def _only(value: Any) -> Any:
    """The only element of a list, or what is no list."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise ValueError(f"{len(value)} values for one text, expected 1")
    return value[0]


SHAPES: Mapping[str, Shape] = {
    "vllm-classify": Shape("/classify", True, _vllm_body, _vllm_rewards("probs")),
    "vllm-pooling": Shape("/pooling", True, _vllm_body, _vllm_rewards("data")),
    "sglang-classify": Shape("/classify", True, _sglang_body, _sglang_rewards),
    "tei-predict": Shape("/predict", False, _tei_body, _tei_rewards),
    "openrlhf": Shape("/get_reward", False, _openrlhf_body, _openrlhf_rewards),
}


NO_SCORE = "the endpoint gave no score"
UNACCEPTABLE_STATUSES = (400, 413, 422)  # The text's fault: asking again is vain.
REFUSED_FROM_THE_START = 8  # Texts; an endpoint that took none of them is set up wrongly.
WRONG_KEY = "name the environment variable of the right key in `key_env`"
CURES: Mapping[int, str] = {
    401: WRONG_KEY,
    403: WRONG_KEY,
    404: "check `url`, `shape` and `path`, and `model` where several are served",
    405: "check `url`, `shape` and `path`",
}
Row = tuple[EndpointInput | Refused, ...]
Reward = float | str
"""A number, or the reason why there is none."""
Post = Callable[[Body], Any]
"""Sends a body and returns the JSON that the server answers."""


class RefusedError(Exception):
    """The server will not score this text; the message says why, in its words."""


class RewardEndpoint:
    """Scores responses by asking a server, `concurrency` requests of `batch_size` texts at once.

    A text that the server refuses, and a score that is missing or not finite, is unscored with
    the reason. A server that fails is asked again, `attempts` times; then the run stops with one
    line, and every score given before it has been yielded.
    """

    def __init__(self, spec: RewardEndpointSpec) -> None:
        """Open the tokenizer and read the key; the server is first asked by `score`.

        Raises:
            PalateError: a tokenizer that cannot be opened or has no template, a key that is not
                in the environment.
        """
        self._spec = spec
        self._shape = SHAPES[spec.shape]
        self._format = EndpointFormat(spec, takes_ids=self._shape.takes_ids)
        path = self._shape.path if spec.path is None else f"/{spec.path.lstrip('/')}"
        key = bearer_key(spec.key_env, "reward-endpoint", spec.url) if spec.key_env else ""
        self._server = Server(spec.url + path, key, spec.timeout_seconds, spec.concurrency)
        self._retry = Retry(spec.attempts, spec.backoff_seconds, spec.longest_wait_seconds)
        self._accepted = self._refused = 0
        self.name = spec.name or (Path(spec.model).name if spec.model else "reward-endpoint")
        self.protocol: Mapping[str, Any] = {
            "judge": "reward-endpoint",
            # Whoever names the model may move it to another machine and keep its scores.
            **({"model": spec.model} if spec.model else {"url": self._server.url}),
            "revision": spec.revision,
            "shape": spec.shape,
            **self._format.protocol,
            "reward": "raw",
        }

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked, each as soon as all before it are there.

        Reads ahead twice as many requests as may be under way.
        """
        stop = threading.Event()
        pending: deque[Future[list[tuple[Score, ...]]]] = deque()
        with httpx2.Client(**self._server.client_options) as client:
            post = partial(self._post, client, stop)
            pool = ThreadPoolExecutor(self._spec.concurrency, thread_name_prefix="reward-endpoint")
            try:
                for rows in self._batches(candidates):
                    pending.append(pool.submit(self._scores, post, rows))
                    ahead = 2 * self._spec.concurrency
                    while pending and (pending[0].done() or len(pending) > ahead):
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
            finally:
                # Ends pauses; requests under way end by themselves, within `timeout_seconds`.
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _batches(self, candidates: Iterable[Candidates]) -> Iterator[list[Row]]:
        """Whole candidates together, up to `batch_size` texts and at least one candidate."""
        rows: list[Row] = []
        for candidate in candidates:
            encode = partial(self._format.encode, candidate.prompt)
            row = tuple(map(encode, candidate.responses))
            if rows and sum(map(len, rows)) + len(row) > self._spec.batch_size:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def _scores(self, post: Post, rows: Sequence[Row]) -> list[tuple[Score, ...]]:
        # Equal texts are asked once: a server's batching could give them unequal scores.
        inputs = [one for row in rows for one in row if isinstance(one, EndpointInput)]
        unique = {one.content: one for one in inputs}
        rewards = dict(zip(unique, self._rewards(post, list(unique.values())), strict=True))
        return [tuple(_score(one, rewards) for one in row) for row in rows]

    def _rewards(self, post: Post, inputs: Sequence[EndpointInput]) -> list[Reward]:
        """Rewards of texts; where the server refuses several together, of each half."""
        if not inputs:
            return []
        if self._spec.input == "messages" and len(inputs) > 1:
            return [reward for one in inputs for reward in self._rewards(post, [one])]
        try:
            answer = post(self._shape.body(self._spec, inputs))
        except RefusedError as refusal:
            if len(inputs) > 1:
                half = len(inputs) // 2
                return self._rewards(post, inputs[:half]) + self._rewards(post, inputs[half:])
            self._refused += 1
            if not self._accepted and self._refused >= REFUSED_FROM_THE_START:
                raise PalateError(
                    f"{self._server.url}: {refusal}; it took none of {self._refused} texts, so "
                    "check `shape`, `input`, `model` and `max_tokens`"
                ) from None
            return [str(refusal)]
        self._accepted += 1
        try:
            rewards = self._shape.read(answer)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise PalateError(
                f"{self._server.url}: answers in another shape than {self._spec.shape} "
                f"({type(error).__name__}: {str(error)[:80]}); check `shape`, and that a reward "
                "model with one label is served"
            ) from None
        if len(rewards) != len(inputs) and not self._spec.shape.startswith("vllm"):
            rewards = {}  # Which text a list that is too short belongs to cannot be known.
        return [_reward(rewards.get(number)) for number in range(len(inputs))]

    def _post(self, client: httpx2.Client, stop: threading.Event, body: Body) -> Any:
        """The JSON that the server answers.

        Raises:
            RefusedError: the server refuses the text.
            CancelledError: nobody waits for this answer any more.
            PalateError: it cannot be reached, or fails as often as `attempts` allows.
        """
        # Escaped, since data may hold half a surrogate pair, which has no UTF-8.
        content = json.dumps(body).encode()
        try:
            return self._retry.call(lambda: self._read(self._server.post(client, content)), stop)
        except TransientError as error:
            raise PalateError(
                f"{self._server.url}: {error}, {self._spec.attempts} times; start or relieve the "
                "server (`concurrency`, `timeout_seconds`, `attempts`) and run again, answers so "
                "far are kept"
            ) from None

    def _read(self, response: httpx2.Response) -> Any:
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except ValueError:
                raise TransientError("answers 200 with what is not JSON") from None
        if status in UNACCEPTABLE_STATUSES:
            # Without its numbers, equal reasons of unequal texts are counted together.
            reason = re.sub(r"\d+", "N", error_line(response, self._server.key))
            raise RefusedError(f"refused by the endpoint ({status}): {reason}")
        cure = CURES.get(status, "expected 200; check `url` and `shape`")
        raise PalateError(f"{self._server.url}: {self._server.status_line(response)}; {cure}")


def _reward(value: Any) -> Reward:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NO_SCORE
    try:
        return float(value) if math.isfinite(value) else NON_FINITE
    except OverflowError:  # JSON's integers have no end.
        return NON_FINITE


def _score(one: EndpointInput | Refused, rewards: Mapping[Any, Reward]) -> Score:
    if isinstance(one, Refused):
        return Score(None, one.reason, tokens=one.tokens)
    reward = rewards[one.content]
    if isinstance(reward, str):
        return Score(None, reward, one.truncated, one.tokens)
    return Score(reward, "", one.truncated, one.tokens)
