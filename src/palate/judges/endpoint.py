"""A reward model behind HTTP as a scorer: in order, in bounded parallel, the raw reward."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from palate.judges.classifier_format import Refused
from palate.judges.patience import Patience, RefusedError
from palate.judges.scalar import NON_FINITE
from palate.judges.spec import RewardEndpointSpec
from palate.judges.wire import SHAPES
from palate.judges.wording import Asked, Wording
from palate.types import Candidates, PalateError, Score

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

    def _patience(self) -> Patience:
        return Patience(self._spec, self._shape.path)

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

    def _scores(self, patience: Patience, rows: Sequence[Row]) -> list[tuple[Score, ...]]:
        # Equal texts are asked once: a server's batching could give them unequal scores.
        unique = {one.said: one for row in rows for one in row if isinstance(one, Asked)}
        rewards = dict(zip(unique, self._ask(patience, list(unique.values())), strict=True))
        return [tuple(_score(one, rewards) for one in row) for row in rows]

    def _ask(self, patience: Patience, asked: Sequence[Asked]) -> list[Reward]:
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
