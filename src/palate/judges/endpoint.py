"""A reward model behind HTTP as a scorer: in order, in bounded parallel, the raw reward.

What a server says of itself (program and version, model, limit) is asked once and is part of the
protocol. Its answers are held against what was asked: the tokens that it counts, where the
tokenizer is known here, the name of the model, and the scale of the scores. A server that cuts,
adds tokens, squashes or answers another model stops the judge with one line.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from palate.http import Retry, Server, TransientError, bearer_key, error_line
from palate.judges.options import RewardEndpointSpec, RunBatchSpec, SequenceClassifierSpec
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
from palate.model.export import HEAD_KEY
from palate.model.markers import broken, untokenised_markers
from palate.types import Candidates, Message, PalateError, Score, digest, in_words, is_text

log = logging.getLogger(__name__)
T = TypeVar("T")

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

    def __init__(self, spec: RewardEndpointSpec | RunBatchSpec, *, takes_ids: bool) -> None:
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
            f"{self._spec.tokenizer}: its server would read other tokens in a text than the "
            "template writes; serve the model in a shape that takes ids (vllm-classify, "
            "sglang-classify)"
        )


# The shapes in which servers take conversations and give rewards; always the raw reward.
#
# Each is a path, a body for several conversations, and a way to read the answer. A server that
# squashes one label through a sigmoid by default is told not to (pitfall 30).

Body = dict[str, Any]


Get = Callable[[str], Any]
"""The JSON that the server answers at a path of its own; {} where it has none."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself: "" and () where it says nothing.

    `models` are the names of what it serves; `facts` what else may change a score.
    """

    program: str = ""
    models: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Shape:
    """`read` gives the reward of each conversation that the answer has one for, by its number.

    It raises KeyError, TypeError, IndexError or ValueError where the answer is of another shape.
    `tokens` says how many tokens the server counted in all, from its answer and headers; `flag`
    is the key by which a sigmoid is asked for or not, and its value for the raw reward. A shape
    that is `of_one_prompt` takes responses to one prompt at a time.
    """

    path: str
    takes_ids: bool
    body: Callable[[RewardEndpointSpec, Sequence[EndpointInput]], Body]
    read: Callable[[Any], Mapping[int, Any]]
    about: Callable[[Get], ServerFacts] = lambda _get: ServerFacts()
    tokens: Callable[[Any, Mapping[str, str]], Any] = lambda _answer, _headers: None
    flag: tuple[str, bool] | None = None
    of_one_prompt: bool = False


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


def _vllm_score_body(spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    first, second = zip(*(one.content for one in inputs), strict=True)
    named = {"model": spec.model} if spec.model is not None else {}
    return {"text_1": [*first], "text_2": [*second], "use_activation": False, **named}


def _infinity_body(spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    named = {"model": spec.model} if spec.model is not None else {}
    documents = [one.content[1] for one in inputs]
    return {"query": inputs[0].content[0], "documents": documents, "raw_scores": True, **named}


def _llama_cpp_body(_spec: RewardEndpointSpec, inputs: Sequence[EndpointInput]) -> Body:
    # Its own route, not /v1/embeddings, which always divides by the length; -1: no division.
    return {"content": [_json(one.content) for one in inputs], "embd_normalize": -1}


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


def _infinity_rewards(answer: Any) -> Mapping[int, Any]:
    return {int(row["index"]): row["relevance_score"] for row in answer["results"]}


def _llama_cpp_vectors(answer: Any) -> Mapping[int, Any]:
    """A vector for each text, or one number where the server applies the head itself."""
    found = {}
    for row in answer:
        (vector,) = (
            row["embedding"] if isinstance(row["embedding"][0], list) else [row["embedding"]]
        )
        found[int(row["index"])] = vector[0] if len(vector) == 1 else vector
    return found


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


# What servers say of themselves, by the routes that each has for it.


def _listed(get: Get, path: str = "/v1/models") -> list[Mapping[str, Any]]:
    answer = get(path)
    rows = answer.get("data") if isinstance(answer, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _names(*values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value and isinstance(value, str)))


def _known(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: row[key] for key in keys if isinstance(row.get(key), str | int | float)}


def _about_vllm(get: Get) -> ServerFacts:
    rows = _listed(get)
    first = rows[0] if rows else {}
    program = f"vLLM {version}" if (version := get("/version").get("version")) else ""
    if first.get("owned_by") == "palate":
        program = f"Palate {get('/').get('version', '')}"
    names = _names(*(row.get(key) for row in rows for key in ("id", "root")))
    return ServerFacts(program, names, _known(first, "max_model_len", "fingerprint"))


def _about_sglang(get: Get) -> ServerFacts:
    info = get("/model_info") or get("/get_model_info")
    if not info:
        return _about_vllm(get)  # Palate's own server, which speaks this shape too.
    server = get("/server_info") or get("/get_server_info")
    version = server.get("version") or "of no version"
    names = _names(info.get("served_model_name"), info.get("model_path"))
    facts = _known(info, "weight_version") | _known(server, "dtype", "context_length")
    return ServerFacts(f"SGLang {version}", names, facts)


def _about_tei(get: Get) -> ServerFacts:
    info = get("/info")
    facts = _known(info, "model_sha", "model_dtype", "max_input_length", "auto_truncate")
    program = f"TEI {info['version']}" if info.get("version") else ""
    return ServerFacts(program, _names(info.get("model_id")), facts)


def _about_llama_cpp(get: Get) -> ServerFacts:
    props = get("/props")
    program = f"llama.cpp {props['build_info']}" if props.get("build_info") else ""
    settings = props.get("default_generation_settings")
    facts = _known(settings, "n_ctx") if isinstance(settings, Mapping) else {}
    return ServerFacts(program, _names(props.get("model_path"), props.get("model_alias")), facts)


def _about_infinity(get: Get) -> ServerFacts:
    rows = _listed(get, "/models")
    described = get("/openapi.json").get("info") or {}
    program = f"infinity {described['version']}" if described.get("version") and rows else ""
    facts = _known(rows[0], "backend") if rows else {}
    return ServerFacts(program, _names(*(row.get("id") for row in rows)), facts)


def _usage(answer: Any, _headers: Mapping[str, str]) -> Any:
    return (answer.get("usage") or {}).get("prompt_tokens") if isinstance(answer, Mapping) else None


def _sglang_tokens(answer: Any, _headers: Mapping[str, str]) -> Any:
    rows = [answer] if isinstance(answer, Mapping) else answer
    counts = [(row.get("meta_info") or {}).get("prompt_tokens") for row in rows]
    return None if None in counts else sum(counts)


def _tei_tokens(_answer: Any, headers: Mapping[str, str]) -> Any:
    told = headers.get("x-compute-tokens", "")
    return int(told) if told.isdecimal() else None


RAW_ACTIVATION, RAW_SCORES = ("use_activation", False), ("raw_scores", True)
SHAPES: Mapping[str, Shape] = {
    "vllm-classify": Shape(
        "/classify", True, _vllm_body, _vllm_rewards("probs"), _about_vllm, _usage, RAW_ACTIVATION
    ),
    "vllm-pooling": Shape(
        "/pooling", True, _vllm_body, _vllm_rewards("data"), _about_vllm, _usage, RAW_ACTIVATION
    ),
    "vllm-score": Shape(
        "/score",
        False,
        _vllm_score_body,
        _vllm_rewards("score"),
        _about_vllm,
        _usage,
        RAW_ACTIVATION,
    ),
    "sglang-classify": Shape(
        "/classify", True, _sglang_body, _sglang_rewards, _about_sglang, _sglang_tokens
    ),
    "tei-predict": Shape(
        "/predict", False, _tei_body, _tei_rewards, _about_tei, _tei_tokens, RAW_SCORES
    ),
    "infinity-rerank": Shape(
        "/rerank",
        False,
        _infinity_body,
        _infinity_rewards,
        _about_infinity,
        flag=RAW_SCORES,
        of_one_prompt=True,
    ),
    "llama.cpp": Shape("/embedding", True, _llama_cpp_body, _llama_cpp_vectors, _about_llama_cpp),
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
Post = Callable[[Body], tuple[Any, Mapping[str, str]]]
"""Sends a body and returns the JSON that the server answers, and its headers."""
PASSING = (408, 429, 502, 503, 504)  # Of what a server says of itself; all else is "not told".
LOOKED_AT = 16  # Scores by which their scale is judged.
SIGMOID_ROUNDING = 1e-3  # Half-precision servers round both numbers.
UNIT = 1e-4  # How near to 1 the length of a vector is that was divided by its length.


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
        self._head = None if spec.head is None else scalar_head(spec.head)
        self._facts: ServerFacts | None = None
        self._looked_at: dict[Content, float] = {}
        self._scale_known = False
        self._lock = threading.Lock()
        path = self._shape.path if spec.path is None else f"/{spec.path.lstrip('/')}"
        key = bearer_key(spec.key_env, "reward-endpoint", spec.url) if spec.key_env else ""
        self._server = Server(spec.url + path, key, spec.timeout_seconds, spec.concurrency)
        self._retry = Retry(spec.attempts, spec.backoff_seconds, spec.longest_wait_seconds)
        self._accepted = self._refused = 0
        self.name = spec.name or (Path(spec.model).name if spec.model else "reward-endpoint")

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides a score, as JSON values; the server is asked what it is, once.

        Raises:
            PalateError: it cannot be reached, or serves another model than `model`.
        """
        spec = self._spec
        if self._facts is None:
            with httpx2.Client(**self._server.client_options) as client:
                self._facts = self._ask_facts(client, threading.Event())
        served = self._facts
        return {
            "judge": "reward-endpoint",
            # Whoever names the model may move it to another machine and keep its scores.
            **({"model": spec.model} if spec.model else {"url": self._server.url}),
            **({"served": [*served.models]} if served.models and not spec.model else {}),
            "server": served.program or "not told",
            **({"server_facts": dict(served.facts)} if served.facts else {}),
            "revision": spec.revision,
            "shape": spec.shape,
            "route": self._server.url.removeprefix(spec.url),
            **({"head": digest(self._head.tolist())} if self._head is not None else {}),
            **self._format.protocol,
            "reward": "raw",
        }

    def _ask_facts(self, client: httpx2.Client, stop: threading.Event) -> ServerFacts:
        """What the server says of itself; `PalateError` where that is another model."""

        def get(path: str) -> Any:
            def send() -> Any:
                with self._server.connection_errors():
                    response = client.get(self._spec.url + path)
                if response.status_code in PASSING:
                    self._server.check_status(response)
                try:
                    told = response.json() if response.status_code == 200 else {}
                except ValueError:
                    return {}
                return told if isinstance(told, Mapping) else {}

            return self._until_answered(send, stop)

        facts, model = self._shape.about(get), self._spec.model
        if model and facts.models and not any(_same_model(model, name) for name in facts.models):
            raise PalateError(
                f"{self._spec.url}: serves {', '.join(facts.models)[:160]}, not {model}; set "
                "`model` to what is served, or start the server with that model"
            )
        return facts

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked, each as soon as all before it are there.

        Reads ahead twice as many requests as may be under way.
        """
        _ = self.protocol  # So that no text is sent to a server of another model.
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
                self._look(post, (), {})
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
        self._look(post, list(unique.values()), rewards)
        return [tuple(_score(one, rewards) for one in row) for row in rows]

    def _rewards(self, post: Post, inputs: Sequence[EndpointInput]) -> list[Reward]:
        """Rewards of texts; where the server refuses several together, of each half."""
        if not inputs:
            return []
        if self._spec.input == "messages" and len(inputs) > 1:
            return [reward for one in inputs for reward in self._rewards(post, [one])]
        if self._shape.of_one_prompt and len({one.content[0] for one in inputs}) > 1:
            groups = groupby(inputs, key=lambda one: one.content[0])
            return [r for _, group in groups for r in self._rewards(post, list(group))]
        try:
            answer, headers = post(self._shape.body(self._spec, inputs))
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
            counted = self._shape.tokens(answer, headers)
            self._check(inputs, answer, counted)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise PalateError(
                f"{self._server.url}: answers in another shape than {self._spec.shape} "
                f"({type(error).__name__}: {str(error)[:80]}); check `shape`, and that a reward "
                "model with one label is served"
            ) from None
        if len(rewards) != len(inputs) and not self._spec.shape.startswith("vllm"):
            rewards = {}  # Which text a list that is too short belongs to cannot be known.
        return [_reward(self._with_head(rewards.get(number))) for number in range(len(inputs))]

    def _check(self, inputs: Sequence[EndpointInput], answer: Any, counted: Any) -> None:
        """Raise `PalateError` where other tokens were read than meant, or by another model."""
        named = answer.get("model") if isinstance(answer, Mapping) else None
        known = (*_names(self._spec.model), *(self._facts.models if self._facts else ()))
        if isinstance(named, str) and known and not any(_same_model(named, n) for n in known):
            raise PalateError(
                f"{self._server.url}: {named[:80]} answers for {known[0]}; check `model`, and what "
                "stands between here and the server"
            )
        meant = sum(one.tokens for one in inputs)
        if not isinstance(counted, int) or not all(one.tokens for one in inputs):
            return
        if counted != meant:
            what = "cuts texts" if counted < meant else "adds tokens to texts"
            raise PalateError(
                f"{self._server.url}: read {counted} tokens where {meant} were meant: it {what}, "
                "or `tokenizer` is not that of the model; raise the server's length, or set "
                "`max_tokens` to it, and send ids"
            )

    def _with_head(self, value: Any) -> Any:
        """The number that the head makes of a vector; what is no vector as it is."""
        if not isinstance(value, list):
            return value
        if self._head is None:
            raise PalateError(
                f"{self._server.url}: gives {len(value)} numbers for a text, so it applies no "
                "head; name the folder of the export in `head`"
            )
        if len(value) != len(self._head):
            raise PalateError(
                f"{self._server.url}: gives {len(value)} numbers for a text, and the head of "
                f"{self._spec.head} takes {len(self._head)}; it serves another model"
            )
        vector = np.asarray(value, np.float64)
        if abs(float(np.linalg.norm(vector)) - 1.0) < UNIT:
            raise PalateError(
                f"{self._server.url}: divides vectors by their length (L2), which no head was "
                "trained on; start it with --embd-normalize -1, and use its own route /embedding"
            )
        return float(vector @ self._head)

    def _look(
        self, post: Post, inputs: Sequence[EndpointInput], rewards: Mapping[Content, Reward]
    ) -> None:
        """Judge by the first scores whether they are raw; without `inputs`, by those there are.

        Raises:
            PalateError: all are 1 (a softmax over one label) or of length 1 (L2).
        """
        with self._lock:
            if self._scale_known:
                return
            found = {one: value for one, value in rewards.items() if isinstance(value, float)}
            self._looked_at |= found
            seen = list(self._looked_at.values())
            if any(abs(value) > 1 or (value < 0 and value != -1) for value in seen):
                self._scale_known = True  # No sigmoid, no softmax, no L2 gives such a number.
                return
            if len(seen) < 2 or (inputs and len(seen) < LOOKED_AT):
                return
            self._scale_known = True
        if all(abs(value) == 1 for value in seen):
            same = min(seen) > 0
            raise PalateError(
                f"{self._server.url}: all of {len(seen)} scores are {'1' if same else '1 or -1'}: "
                f"{'a softmax over one label' if same else 'numbers divided by their length (L2)'};"
                " ask a route that gives the raw reward (`shape`, `path`)"
            )
        if len(seen) < LOOKED_AT or self._raw_when_asked(post, inputs, rewards):
            return
        log.warning(
            "%s: all of the first %d scores lie between 0 and 1, as if squashed by a sigmoid; "
            "that they are raw cannot be told from here",
            self._server.url,
            len(seen),
        )

    def _raw_when_asked(
        self, post: Post, inputs: Sequence[EndpointInput], rewards: Mapping[Content, Reward]
    ) -> bool:
        """Whether the server, asked for the sigmoid too, gives that of the scores before."""
        if self._shape.flag is None or not inputs:
            return False
        key, raw = self._shape.flag
        one = next(i for i in inputs if isinstance(rewards[i.content], float))
        try:
            answer, _ = post(self._shape.body(self._spec, [one]) | {key: not raw})
            squashed = _reward(self._shape.read(answer).get(0))
        except (RefusedError, KeyError, TypeError, IndexError, ValueError, AttributeError):
            return False
        reward = rewards[one.content]
        if isinstance(reward, str) or isinstance(squashed, str):
            return False
        return abs(squashed - 1 / (1 + math.exp(-reward))) < SIGMOID_ROUNDING

    def _post(
        self, client: httpx2.Client, stop: threading.Event, body: Body
    ) -> tuple[Any, Mapping[str, str]]:
        """The JSON that the server answers, and its headers.

        Raises:
            RefusedError: the server refuses the text.
            CancelledError: nobody waits for this answer any more.
            PalateError: it cannot be reached, or fails as often as `attempts` allows.
        """
        # Escaped, since data may hold half a surrogate pair, which has no UTF-8.
        content, faults = json.dumps(body).encode(), 0

        def send() -> tuple[Any, Mapping[str, str]]:
            nonlocal faults
            try:
                return self._read(self._server.post(client, content))
            except TransientError:
                faults += 1
                raise

        answer = self._until_answered(send, stop)
        if faults and (facts := self._ask_facts(client, stop)) != self._facts:
            raise PalateError(
                f"{self._server.url}: came back as another server ({_described(facts)}; before: "
                f"{_described(self._facts)}); run again, and its scores are kept apart"
            )
        return answer

    def _until_answered(self, send: Callable[[], T], stop: threading.Event) -> T:
        """What `send` returns; `PalateError` where it fails as often as `attempts` allows."""
        try:
            return self._retry.call(send, stop)
        except TransientError as error:
            raise PalateError(
                f"{self._server.url}: {error}, {self._spec.attempts} times; start or relieve the "
                "server (`concurrency`, `timeout_seconds`, `attempts`) and run again, answers so "
                "far are kept"
            ) from None

    def _read(self, response: httpx2.Response) -> tuple[Any, Mapping[str, str]]:
        status = response.status_code
        if status == 200:
            try:
                return response.json(), response.headers
            except ValueError:
                raise TransientError("answers 200 with what is not JSON") from None
        if status in UNACCEPTABLE_STATUSES:
            # Without its numbers, equal reasons of unequal texts are counted together.
            reason = re.sub(r"\d+", "N", error_line(response, self._server.key))
            raise RefusedError(f"refused by the endpoint ({status}): {reason}")
        cure = CURES.get(status, "expected 200; check `url` and `shape`")
        raise PalateError(f"{self._server.url}: {self._server.status_line(response)}; {cure}")


def scalar_head(folder: str) -> NDArray[np.float64]:
    """The weights of an export's scalar head [H]; `PalateError` where the folder has none."""
    from safetensors import safe_open

    try:
        for file in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                if HEAD_KEY in tensors.keys():  # noqa: SIM118 - it is no mapping.
                    weight = tensors.get_tensor(HEAD_KEY).double().numpy()
                    if weight.ndim == 2 and weight.shape[0] == 1:
                        return weight[0]
    except Exception as error:  # safetensors raises its own.
        raise PalateError(f"{folder}: cannot be read as an export ({str(error)[:120]})") from None
    raise PalateError(
        f"{folder}: no {HEAD_KEY} of one row in its .safetensors; name the folder of an export"
    )


def _same_model(one: str, other: str) -> bool:
    """Whether two names are of one model: the same, or one the last part of the other's path."""
    names = [name.rstrip("/").removesuffix(".gguf") for name in (one, other)]
    return names[0] == names[1] or names[0].rpartition("/")[2] == names[1].rpartition("/")[2]


def _described(facts: ServerFacts | None) -> str:
    """A server in a few words."""
    if facts is None or not (facts.program or facts.models):
        return "it does not say what it is"
    said = ", ".join(f"{key} {value}" for key, value in facts.facts.items())
    return " ".join(part for part in (facts.program, *facts.models[:1], said) if part)[:200]


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
