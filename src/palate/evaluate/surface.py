"""What the surface of two responses gives away: their lengths, their formatting, their words.

Judges that know no language are fitted here on a benchmark's own labels, five-fold by whole
prompts: what they reach can be reached without reading. They are Bradley-Terry models with an L2
penalty on the difference of the two responses' features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, hstack
from scipy.special import expit

from palate.data.prompts import hash64
from palate.types import Comparison, in_words

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

FOLDS = 5
PENALTY = 0.03
"""Of the squared weights: the middle of three that were tried on HH (0.01, 0.03, 0.1)."""
MIN_PAIRS = 8
"""A word of fewer pairs of the training folds is no feature."""
_WORD = re.compile(r"[a-z']+|[?!\n]")

_ITEM = r"[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]"
STYLES: Mapping[str, re.Pattern[str]] = {
    "a list": re.compile(rf"(?m)^{_ITEM}.*\n(?:.*\n)??{_ITEM}"),
    "bold text": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
    "a heading": re.compile(r"(?m)^[ \t]{0,3}#{1,6}[ \t]+\S"),
    "code": re.compile(r"```|(?<!`)`[^`\n]+`(?!`)"),
    "a table": re.compile(r"(?m)^[ \t]*\|.*\|[ \t]*\n[ \t]*\|[ \t:|-]+\|"),
    "several paragraphs": re.compile(r"\S[ \t]*\n[ \t]*\n\s*\S"),
    "a link": re.compile(r"https?://\w"),
    "a question at its end": re.compile(r"\?[\s\"'”’)*_]*\Z"),
    "a refusal or apology in front": re.compile(
        r"(?i)\A\W*(?:i(?:['’]m| am)(?: really| very| so)? sorry|sorry|i apologi[sz]e|my apologies"
        r"|unfortunately|i can(?:no|['’])t|i(?:['’]m| am) (?:not able|unable)|i won['’]t"
        r"|as an ai|i do(?: not|n['’]t) (?:feel|think i))"
    ),
}  # fmt: skip
"""What a response's form may have, by name: `... has a list`."""


def has_styles(text: str) -> list[bool]:
    """Which of `STYLES` a response has, in their order."""
    return [pattern.search(text) is not None for pattern in STYLES.values()]


def folds(comparisons: Sequence[Comparison]) -> Codes:
    """A fold of each comparison, [N], by its prompt, so that no prompt is in two."""
    of_prompt = {c.prompt_id: hash64("fold", c.prompt_id) % FOLDS for c in comparisons}
    return np.array([of_prompt[c.prompt_id] for c in comparisons], dtype=np.int64)


def words(text: str) -> list[str]:
    """Lower-case words, question and exclamation marks, line breaks."""
    return _WORD.findall(text.lower())


def bag_of_words(comparisons: Sequence[Comparison]) -> tuple[csr_matrix, csr_matrix]:
    """Features of chosen minus rejected, [N, V + 3], and the words of either response, [N, V].

    Presence of each word; then log(1 + words), words / 50 and whether it ends in a question.
    """
    column: dict[str, int] = {}
    # By row and column: chosen less rejected; and 1 where either has it.
    rows: list[int] = []
    columns: list[int] = []
    signs: list[float] = []
    shapes = np.zeros((len(comparisons), 3))
    for row, comparison in enumerate(comparisons):
        for text, sign in ((comparison.chosen, 1.0), (comparison.rejected, -1.0)):
            found = words(in_words(text))
            known = [column.setdefault(word, len(column)) for word in dict.fromkeys(found)]
            rows += [row] * len(known)
            columns += known
            signs += [sign] * len(known)
            ends = float(text.rstrip().endswith("?"))
            shapes[row] += sign * np.array([3 * np.log1p(len(found)), len(found) / 50, 3 * ends])
    shape = (len(comparisons), len(column))
    differences = csr_matrix((signs, (rows, columns)), shape=shape)
    either = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    either.data[:] = 1.0  # Of both responses the two entries were summed.
    return hstack([differences, csr_matrix(shapes)], format="csr"), either


def style_features(
    chosen: NDArray[np.bool_], rejected: NDArray[np.bool_], lengths: Floats
) -> csr_matrix:
    """Chosen minus rejected: styles [N, S], log length and length / 1000 characters, [N, S + 2].

    `lengths` [N, 2] are characters of the chosen and of the rejected response.
    """
    styles = chosen.astype(np.float64) - rejected.astype(np.float64)
    logs = np.log1p(lengths)
    shape = np.column_stack([logs[:, 0] - logs[:, 1], (lengths[:, 0] - lengths[:, 1]) / 1_000])
    return csr_matrix(np.column_stack([styles, shape]))


def fit(differences: csr_matrix) -> Floats:
    """Weights of the Bradley-Terry model with an L2 penalty: argmin_w mean log(1 + exp(-x w)).

    `differences` [N, V] are features of the preferred response less the other's.
    """

    def loss(w: Floats) -> tuple[float, Floats]:
        z = differences @ w
        gradient = PENALTY * w - differences.T @ expit(-z) / z.size
        return float(np.logaddexp(0, -z).mean() + PENALTY * (w @ w) / 2), gradient

    start = np.zeros(differences.shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x, dtype=np.float64)


def margins(
    differences: csr_matrix, asked: Codes, fitted: Codes, either: csr_matrix | None = None
) -> Floats:
    """Margin of the preferred response on the rows `asked`, by the fit on the rows `fitted`.

    Args:
        differences: [N, V] features of the preferred response less the other's.
        asked, fitted: rows.
        either: [N, W] counts of the first W features by pair; one of fewer than `MIN_PAIRS` of the
            pairs that are fitted is left out.
    """
    used = np.ones(differences.shape[1], dtype=np.bool_)
    if either is not None:
        pairs = np.asarray(either[fitted].sum(axis=0)).ravel()
        used[: pairs.size] = pairs >= MIN_PAIRS
    kept = differences[:, np.flatnonzero(used)]
    return np.asarray(kept[asked] @ fit(kept[fitted]), dtype=np.float64)


def cross_fitted(differences: csr_matrix, fold: Codes, either: csr_matrix | None = None) -> Floats:
    """Margin of the preferred response, [N], by the fit on the other folds; see `margins`.

    0, which prefers neither, where the other folds hold no pair.
    """
    found = np.zeros(fold.size)
    for number in np.unique(fold):
        inside, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if rest.size:
            found[inside] = margins(differences, inside, rest, either)
    return found
