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
from pathlib import Path
from typing import Any

import httpx2
from transformers import AutoTokenizer

from palate.http import PASSING, REFUSED, bearer_key, error_line, one_line, retry_after
from palate.judges.options import RewardEndpointSpec, SequenceClassifierSpec
from palate.judges.prompting import (
    NO_LIMIT,
    Encoded,
    InputFormat,
    Refused,
    labelled,
    question,
)
from palate.judges.scalar import NON_FINITE
from palate.model.backbone import quiet
from palate.model.markers import broken, untokenised_markers
from palate.types import Candidates, Message, PalateError, Score, digest

# Requests that outlast a server's bad moments: bounded retries with backoff, then one line.

CURES: Mapping[int, str] = {
    401: "name the environment variable of the right key in `key_env`",
    403: "name the environment variable of the right key in `key_env`",
    404: "check `url`, `shape` and `path`, and `model` where several are served",
    405: "check `url`, `shape` and `path`",
}


class RefusedError(Exception):
    """The server will not score this text; the message says why, in its words."""


class StoppedError(Exception):
    """Nobody waits for this answer any more."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    said: str
    wait_seconds: float | None = None


class RetryingClient:
    """Posts JSON to one address, from any number of threads.

    The key is read from the environment, and is in no message: what a server says is stripped
    of it.
    """

    def __init__(self, spec: RewardEndpointSpec, path: str) -> None:
        """Raises `PalateError` where `key_env` names a variable that holds no key."""
        self.address = spec.url + (path if spec.path is None else f"/{spec.path.lstrip('/')}")
        self._spec = spec
        self._key = bearer_key(spec.key_env, "reward-endpoint", spec.url) if spec.key_env else ""
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        self._http = httpx2.Client(
            headers=headers,
            timeout=spec.timeout_seconds,
            limits=httpx2.Limits(max_connections=spec.concurrency),
        )
        self._stop = threading.Event()

    def post(self, body: Mapping[str, Any]) -> Any:
        """The JSON that the server answers.

        Raises:
            RefusedError: the server refuses the text.
            StoppedError: `stop` was called meanwhile.
            PalateError: it cannot be reached, or fails as often as `attempts` allows.
        """
        # Escaped, since data may hold half a surrogate pair, which has no UTF-8.
        content = json.dumps(body).encode()
        trouble = _Trouble("")
        for attempt in range(self._spec.attempts):
            if attempt and self._stop.wait(self._pause(attempt, trouble)):
                raise StoppedError
            answer = self._try(content)
            if not isinstance(answer, _Trouble):
                return answer
            trouble = answer
        raise PalateError(
            f"{self.address}: {trouble.said}, {self._spec.attempts} times; start or relieve the "
            "server (`concurrency`, `timeout_seconds`, `attempts`) and run again, answers so far "
            "are kept"
        )

    def stop(self) -> None:
        """End waits; requests under way end by themselves, within `timeout_seconds`."""
        self._stop.set()

    def close(self) -> None:
        """End connections, when no request is under way."""
        self._http.close()

    def _try(self, content: bytes) -> Any | _Trouble:
        if self._stop.is_set():
            raise StoppedError
        try:
            response = self._http.post(self.address, content=content)
        except httpx2.RequestError as error:
            late = isinstance(error, httpx2.TimeoutException)
            kind = "gives no answer in time" if late else "cannot be reached"
            return _Trouble(f"{kind} ({type(error).__name__}: {one_line(str(error), self._key)})")
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except ValueError:
                return _Trouble("answers 200 with what is not JSON")
        said = error_line(response, self._key)
        if status in PASSING:
            return _Trouble(f"answers {status} ({said})", retry_after(response.headers))
        if status in REFUSED:
            # Without its numbers, equal reasons of unequal texts are counted together.
            said = re.sub(r"\d+", "N", said)
            raise RefusedError(f"refused by the endpoint ({status}): {said}")
        cure = CURES.get(status, "expected 200; check `url` and `shape`")
        raise PalateError(f"{self.address}: answers {status} ({said}); {cure}")

    def _pause(self, attempt: int, trouble: _Trouble) -> float:
        doubled = self._spec.backoff_seconds * 2.0 ** (attempt - 1)
        return min(max(doubled, trouble.wait_seconds or 0.0), self._spec.longest_wait_seconds)


# What an endpoint is sent of a conversation: token ids, text, two texts, or messages.

Said = tuple[int, ...] | str | tuple[str, str] | tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One conversation as it is sent; `prompt` is its prompt alone, for shapes that ask for it."""

    said: Said
    prompt: str
    truncated: bool = False
    tokens: int = 0


class Wording:
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
        if spec.tokenizer is not None and spec.input != "messages":
            self._tokenizer = _open(spec, spec.tokenizer)
            self._format = _input_format(spec, spec.tokenizer, self._tokenizer)

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides what is sent, as JSON values."""
        if self._format is not None:
            sent = "token ids" if self._takes_ids else "text"
            return {**self._format.protocol, "sent": sent}
        spec = self._spec
        rule: list[Any] = [] if spec.input == "messages" else [dict(spec.prefixes), spec.suffix]
        return {
            "format": spec.input,
            "template": digest(rule),
            "sent": spec.input,
            "special_tokens_in_text": "known ones broken by a zero-width space",
        }

    def of(self, prompt: Sequence[Message], response: str) -> Asked | Refused:
        """What is sent, or the reason why nothing is."""
        clean = [Message(m.role, self._broken(m.content)) for m in prompt]
        alone = question(clean, self._spec.prefixes)
        if self._format is None:
            return Asked(self._untokenised(clean, self._broken(response), alone), alone)
        encoded = self._format.encode(prompt, response)
        if isinstance(encoded, Refused):
            return encoded
        said = encoded.ids if self._takes_ids else self._text(encoded)
        return Asked(said, alone, encoded.truncated, len(encoded.ids))

    def _broken(self, text: str) -> str:
        """`text` without what the server would read as the end of a turn."""
        if self._format is not None:
            return broken(text, self._format.markers)
        written = (*self._spec.prefixes.values(), self._spec.suffix)
        return broken(text, untokenised_markers(text, written))

    def _untokenised(self, prompt: Sequence[Message], response: str, alone: str) -> Said:
        turns = (*prompt, Message("assistant", response))
        match self._spec.input:
            case "messages":
                return tuple((turn.role, turn.content) for turn in turns)
            case "pair":
                return alone, response
            case _:
                return labelled(turns, self._spec.prefixes) + self._spec.suffix

    def _text(self, encoded: Encoded) -> Said:
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


def _open(spec: RewardEndpointSpec, name: str) -> Any:
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                name, revision=spec.revision or "main", trust_remote_code=False
            )
    except Exception as error:  # Each tokenizer raises its own.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PalateError(
            f"{name}: cannot be opened as a tokenizer ({first[:200]}); expected a hub id or folder"
        ) from None


def _input_format(spec: RewardEndpointSpec, name: str, tokenizer: Any) -> InputFormat:
    own = tokenizer.model_max_length
    limit = spec.max_tokens or (int(own) if 0 < own < NO_LIMIT else NO_LIMIT)
    rule = SequenceClassifierSpec.model_validate(
        {
            "model": name,
            "format": spec.input,
            "over_limit": spec.over_limit,
            "prefixes": spec.prefixes,
            "suffix": spec.suffix,
            "date": spec.date,
        }
    )
    return InputFormat(tokenizer, rule, limit)


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
    body: Callable[[RewardEndpointSpec, Sequence[Asked]], Body]
    read: Callable[[Any], Mapping[int, Any]]


def _vllm_body(spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    body: Body = {"use_activation": False}
    if spec.model is not None:
        body["model"] = spec.model
    if spec.input != "messages":
        return body | {"input": [_plain(one.said) for one in asked]}
    turns: Any = asked[0].said  # Messages are of one conversation.
    return body | {"messages": [{"role": role, "content": text} for role, text in turns]}


def _sglang_body(_spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    key = "text" if isinstance(asked[0].said, str) else "input_ids"
    return {key: [_plain(one.said) for one in asked]}


def _tei_body(_spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    # A list of two strings would be one pair, so each text is a list of its own.
    inputs = [[one.said] if isinstance(one.said, str) else _plain(one.said) for one in asked]
    return {"inputs": inputs, "raw_scores": True, "truncate": False}


def _openrlhf_body(_spec: RewardEndpointSpec, asked: Sequence[Asked]) -> Body:
    return {
        "query": [one.said for one in asked],
        "prompts": [one.prompt for one in asked],
        "labels": ["" for _ in asked],
    }


def _plain(said: Any) -> Any:
    return said if isinstance(said, str) else list(said)


def _vllm_rows(key: str) -> Callable[[Any], Mapping[int, Any]]:
    def read(answer: Any) -> Mapping[int, Any]:
        rows = enumerate(answer["data"])
        return {int(row.get("index", number)): _one(row[key]) for number, row in rows}

    return read


def _sglang_rows(answer: Any) -> Mapping[int, Any]:
    rows = [answer] if isinstance(answer, Mapping) else answer
    return {number: _one(row["embedding"]) for number, row in enumerate(rows)}


def _tei_rows(answer: Any) -> Mapping[int, Any]:
    flat = [_one(row) for row in answer]
    return {number: row["score"] for number, row in enumerate(flat)}


def _openrlhf_rows(answer: Any) -> Mapping[int, Any]:
    rewards = answer["rewards"]
    return dict(enumerate(map(_one, rewards if isinstance(rewards, list) else [rewards])))


def _one(value: Any) -> Any:
    """The only element of a list, or what is no list."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise ValueError(f"{len(value)} values for one text, expected 1")
    return value[0]


SHAPES: Mapping[str, Shape] = {
    "vllm-classify": Shape("/classify", True, _vllm_body, _vllm_rows("probs")),
    "vllm-pooling": Shape("/pooling", True, _vllm_body, _vllm_rows("data")),
    "sglang-classify": Shape("/classify", True, _sglang_body, _sglang_rows),
    "tei-predict": Shape("/predict", False, _tei_body, _tei_rows),
    "openrlhf": Shape("/get_reward", False, _openrlhf_body, _openrlhf_rows),
}


NO_SCORE = "the endpoint gave no score"
REFUSED_FROM_THE_START = 8  # Texts; an endpoint that took none of them is set up wrongly.
Row = tuple[Asked | Refused, ...]
Reward = float | str
"""A number, or the reason why there is none."""


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
        self._wording = Wording(spec, takes_ids=self._shape.takes_ids)
        asking = self._patience()  # A missing key shows before the first question.
        asking.close()
        self._accepted = self._refused = 0
        self.name = spec.name or (Path(spec.model).name if spec.model else "reward-endpoint")
        self.protocol: Mapping[str, Any] = {
            "judge": "reward-endpoint",
            # Whoever names the model may move it to another machine and keep its scores.
            **({"model": spec.model} if spec.model else {"url": asking.address}),
            "revision": spec.revision,
            "shape": spec.shape,
            **self._wording.protocol,
            "reward": "raw",
        }

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked, each as soon as all before it are there.

        Reads ahead twice as many requests as may be under way.
        """
        patience = self._patience()
        pool = ThreadPoolExecutor(self._spec.concurrency, thread_name_prefix="reward-endpoint")
        waiting: deque[Future[list[tuple[Score, ...]]]] = deque()
        try:
            for rows in self._requests(candidates):
                waiting.append(pool.submit(self._scores, patience, rows))
                while waiting and (waiting[0].done() or len(waiting) > 2 * self._spec.concurrency):
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            patience.stop()
            pool.shutdown(cancel_futures=True)
            patience.close()

    def _patience(self) -> RetryingClient:
        return RetryingClient(self._spec, self._shape.path)

    def _requests(self, candidates: Iterable[Candidates]) -> Iterator[list[Row]]:
        """Whole candidates together, up to `batch_size` texts and at least one candidate."""
        rows: list[Row] = []
        for shown in candidates:
            row = tuple(self._wording.of(shown.prompt, r) for r in shown.responses)
            if rows and sum(map(len, rows)) + len(row) > self._spec.batch_size:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def _scores(self, patience: RetryingClient, rows: Sequence[Row]) -> list[tuple[Score, ...]]:
        # Equal texts are asked once: a server's batching could give them unequal scores.
        unique = {one.said: one for row in rows for one in row if isinstance(one, Asked)}
        rewards = dict(zip(unique, self._ask(patience, list(unique.values())), strict=True))
        return [tuple(_score(one, rewards) for one in row) for row in rows]

    def _ask(self, patience: RetryingClient, asked: Sequence[Asked]) -> list[Reward]:
        """Rewards of texts; where the server refuses several together, of each half."""
        if not asked:
            return []
        if self._spec.input == "messages" and len(asked) > 1:
            return [reward for one in asked for reward in self._ask(patience, [one])]
        try:
            answer = patience.post(self._shape.body(self._spec, asked))
        except RefusedError as refusal:
            if len(asked) > 1:
                half = len(asked) // 2
                return self._ask(patience, asked[:half]) + self._ask(patience, asked[half:])
            self._count_refusal(patience.address, refusal)
            return [str(refusal)]
        self._accepted += 1
        return self._read(patience.address, answer, len(asked))

    def _count_refusal(self, address: str, refusal: RefusedError) -> None:
        self._refused += 1
        if not self._accepted and self._refused >= REFUSED_FROM_THE_START:
            raise PalateError(
                f"{address}: {refusal}; it took none of {self._refused} texts, so check `shape`, "
                "`input`, `model` and `max_tokens`"
            )

    def _read(self, address: str, answer: Any, count: int) -> list[Reward]:
        try:
            found = self._shape.read(answer)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise PalateError(
                f"{address}: answers in another shape than {self._spec.shape} "
                f"({type(error).__name__}: {str(error)[:80]}); check `shape`, and that a reward "
                "model with one label is served"
            ) from None
        if len(found) != count:
            # Which text a list that is too short belongs to cannot be known.
            found = found if self._spec.shape.startswith("vllm") else {}
        return [_reward(found.get(number)) for number in range(count)]


def _reward(value: Any) -> Reward:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NO_SCORE
    try:
        return float(value) if math.isfinite(value) else NON_FINITE
    except OverflowError:  # JSON's integers have no end.
        return NON_FINITE


def _score(one: Asked | Refused, rewards: Mapping[Any, Reward]) -> Score:
    if isinstance(one, Refused):
        return Score(None, one.reason, tokens=one.tokens)
    reward = rewards[one.said]
    if isinstance(reward, str):
        return Score(None, reward, one.truncated, one.tokens)
    return Score(reward, "", one.truncated, one.tokens)
