"""Failures that are alike: clusters of their prompts, named by the words that set them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward

from palate.evaluate.results import Floats

_WORDS = re.compile(r"[^\W\d_]{3,24}")
MOST = 10
LEAST_FAILURES = 12
DIMENSIONS = 12
MOST_CHARACTERS = 2_000
# What says how a question is asked, not what it is about.
_STOP = frozenset(
    [
        "about",
        "all",
        "also",
        "and",
        "any",
        "are",
        "because",
        "been",
        "but",
        "can",
        "could",
        "did",
        "does",
        "don",
        "for",
        "from",
        "get",
        "give",
        "had",
        "has",
        "have",
        "her",
        "him",
        "his",
        "how",
        "human",
        "into",
        "its",
        "just",
        "know",
        "let",
        "like",
        "make",
        "may",
        "more",
        "most",
        "much",
        "need",
        "not",
        "now",
        "one",
        "only",
        "other",
        "our",
        "out",
        "please",
        "really",
        "should",
        "some",
        "such",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "thing",
        "things",
        "think",
        "this",
        "those",
        "use",
        "want",
        "was",
        "way",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "write",
        "you",
        "your",
        "yes",
        "okay",
        "thanks",
        "assistant",
    ]
)


def clusters(texts: Sequence[str]) -> list[str]:
    """The name of the cluster of each text [N]; one and the same where there are too few.

    Words are weighed by tf-idf, texts reduced to 12 dimensions by a singular value decomposition,
    brought to one length and joined by Ward's method: no chance is involved.
    """
    words = [_words(text) for text in texts]
    vocabulary = _vocabulary(words)
    if len(texts) < LEAST_FAILURES or len(vocabulary) < 2:
        return ["all"] * len(texts)
    weights = _weights(words, vocabulary)
    u, s, _ = np.linalg.svd(weights, full_matrices=False)
    reduced = (u * s)[:, :DIMENSIONS]
    reduced /= np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9)
    most = min(MOST, max(2, round(len(texts) ** 0.5 / 2)))
    codes = fcluster(ward(reduced), most, "maxclust")
    names = {code: _name(weights, codes == code, vocabulary) for code in np.unique(codes)}
    return [names[code] for code in codes]


def _words(text: str) -> list[str]:
    return [w for w in _WORDS.findall(text[:MOST_CHARACTERS].lower()) if w not in _STOP]


def _vocabulary(words: Sequence[Sequence[str]]) -> list[str]:
    """Words of at least two texts and at most a quarter of them."""
    seen = Counter(word for one in words for word in set(one))
    return sorted(word for word, n in seen.items() if 2 <= n <= max(2, len(words) // 4))


def _weights(words: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> Floats:
    """[N, V] tf-idf, each row of length one (or zero)."""
    place = {word: number for number, word in enumerate(vocabulary)}
    table = np.zeros((len(words), len(vocabulary)))
    for row, one in enumerate(words):
        for word, n in Counter(one).items():
            if word in place:
                table[row, place[word]] = 1 + np.log(n)
    table *= np.log(len(words) / np.count_nonzero(table, axis=0))
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / np.where(lengths == 0, 1, lengths))


def _name(
    weights: Floats, held: np.ndarray[tuple[int], np.dtype[np.bool_]], words: Sequence[str]
) -> str:
    """The three words that this cluster has most beyond the others."""
    beyond = weights[held].mean(axis=0) - (weights[~held].mean(axis=0) if (~held).any() else 0)
    top = [i for i in np.argsort(-beyond, kind="stable")[:3] if beyond[i] > 0]
    return ", ".join(words[i] for i in top) or "other"
