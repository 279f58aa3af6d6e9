"""A reward model judged through vLLM's offline batch: requests in one file, answers in others.

Nothing is served. The judge writes what it would ask as `requests.jsonl` and stops with the command
that answers it; given again, it reads the answers. A line is a request to `/v1/score`, the one
route for a number of a text that `vllm run-batch` has (0.32.0): the whole conversation, rendered by
the model's template, is `queries`, and `documents` is empty, for vLLM joins the two without a
template. The raw reward is asked for. An answer is known by its text's digest, so that no text is
asked twice.

Source: vllm/entrypoints/openai/run_batch.py and vllm/entrypoints/pooling/scoring/io_processor.py.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from palate.judges.endpoint import EndpointFormat, EndpointInput
from palate.judges.options import RunBatchSpec
from palate.judges.prompting import Refused
from palate.judges.scorer import NON_FINITE, ScorerJudge
from palate.model.backbone import folder_digest
from palate.records import file_digest, write_text
from palate.types import Candidates, Pair, PalateError, Preference, Score, digest

REQUESTS = "requests.jsonl"
ROUTE = "/v1/score"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer's line says of a text: a reward, or the reason why there is none."""

    reward: float | None
    reason: str = ""
    tokens: int | None = None


class RunBatch:
    """Scores responses by the answers in its folder; asks by a file for those that are missing."""

    # All of a benchmark in one call, so that one file of requests holds all that is missing.
    pairs_per_call = sys.maxsize

    def __init__(self, spec: RunBatchSpec) -> None:
        """Open the tokenizer; raises `PalateError` where it has none or no template."""
        self._spec = spec
        self._format = EndpointFormat(spec, takes_ids=False)
        self.name = spec.name or Path(spec.model).name

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What decides a score, as JSON values; the answers are part of it."""
        folder = Path(self._spec.model)
        revision = folder_digest(folder) if folder.is_dir() else self._spec.revision
        return {
            "judge": "run-batch",
            "model": self._spec.model,
            "revision": revision,
            "route": ROUTE,
            "answers": digest(*map(file_digest, self._answer_files())),
            **self._format.protocol,
            "reward": "raw",
        }

    def judge(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """The response with the higher reward of each pair."""
        return ScorerJudge(self).judge(pairs)

    def score(self, candidates: Iterable[Candidates]) -> Iterator[tuple[Score, ...]]:
        """Scores in the order asked, up to the first text without an answer.

        Raises:
            PalateError: texts without an answer; their requests are in the folder then.
        """
        answers = self._answers()
        missing: dict[str, str] = {}
        for candidate in candidates:
            inputs = [
                self._format.encode(candidate.prompt, response) for response in candidate.responses
            ]
            asked = {_key(one): one for one in inputs if isinstance(one, EndpointInput)}
            missing |= {key: str(one.content) for key, one in asked.items() if key not in answers}
            if not missing:
                yield tuple(self._score(one, answers) for one in inputs)
        if missing:
            raise PalateError(self._write(missing))

    def _score(self, one: EndpointInput | Refused, answers: Mapping[str, Answer]) -> Score:
        if isinstance(one, Refused):
            return Score(None, one.reason, tokens=one.tokens)
        answer = answers[_key(one)]
        if answer.tokens is not None and answer.tokens != one.tokens:
            raise PalateError(
                f"{self._spec.folder}: vLLM read {answer.tokens} tokens where {one.tokens} were "
                f"meant: is {self._spec.model} the model that answered, and its --max-model-len "
                "enough? Remove the answers and run the batch again"
            )
        return Score(answer.reward, answer.reason, one.truncated, one.tokens)

    def _write(self, missing: Mapping[str, str]) -> str:
        """Write the requests; what to do next, in a line."""
        path = self._spec.folder / REQUESTS
        lines = (
            json.dumps(
                {
                    "custom_id": key,
                    "method": "POST",
                    "url": ROUTE,
                    "body": {
                        "model": self._spec.model,
                        "queries": text,
                        "documents": "",
                        "use_activation": False,
                    },
                }
            )
            for key, text in missing.items()
        )
        write_text(path, "".join(f"{line}\n" for line in lines))
        # The batch replaces what is there: a name that is free, whichever others were removed.
        names = chain(["answers.jsonl"], (f"answers-{number}.jsonl" for number in count(2)))
        answers = next(file for name in names if not (file := path.with_name(name)).exists())
        return (
            f"{path}: {len(missing):,} requests wait for answers; run `vllm run-batch -i {path} "
            f"-o {answers} --model {self._spec.model} --runner pooling --dtype float32`, then this "
            "command again"
        )

    def _answer_files(self) -> list[Path]:
        return sorted(self._spec.folder.glob("answers*.jsonl"))

    def _answers(self) -> dict[str, Answer]:
        """By custom_id; of several answers to one text the last."""
        found: dict[str, Answer] = {}
        for path in self._answer_files():
            with path.open("rb") as lines:  # Of a file that was cut the last line may be no text.
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    try:
                        row = json.loads(line)
                        found[str(row["custom_id"])] = _answer(row)
                    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                        raise PalateError(
                            f"{path}:{number}: expected an answer of `vllm run-batch` to {ROUTE} "
                            f"({type(error).__name__}: {str(error)[:80]}); remove the file and run "
                            "the batch again"
                        ) from None
        return found


def _key(one: EndpointInput) -> str:
    return digest("run-batch", one.content)


def _answer(row: Mapping[str, Any]) -> Answer:
    response, error = row.get("response") or {}, row.get("error")
    status, body = response.get("status_code"), response.get("body")
    if error or status != 200 or not body:
        said = error.get("error", error) if isinstance(error, Mapping) else error
        said = said.get("message", said) if isinstance(said, Mapping) else said
        first = (str(said or "no answer").splitlines() or [""])[0][:160]
        return Answer(None, f"refused by the batch ({status}): {first}")
    (data,) = body["data"]
    reward = float(data["score"])
    tokens = (body.get("usage") or {}).get("prompt_tokens")
    if not math.isfinite(reward):
        return Answer(None, NON_FINITE, tokens)
    return Answer(reward, "", tokens)
