#!/bin/bash
# arena-rank computes the leaderboard of LMArena from votes: model_a, model_b and who won. A good engineer expects a
# word that it does not know in `winner` to raise an error, and an unanswered vote (None) to be left out. Both count
# as a tie. Votes that say "A" and "B", as tools for annotation write them, give both models the rating 1000 with an
# interval of no width, although one won 240 of 300: the surest draw there is. 300 skipped votes beside the 300 bring
# its lead from 241 points to 108. Nothing is said.
# Who is hurt: who ranks models by votes of a tool other than LMArena's, or with skipped ones among them.
# Cure: outcome_map={"A": 1.0, "B": 0.0, "tie": 0.5}.__getitem__, which raises; drop rows without an answer first.
# Versions: arena-rank 0.1.1, jax 0.8.1, which it pins, optax 0.2.8, pandas 3.1.1; without datasets, not needed here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check \
  jax==0.8.1 numpy==2.3.3 jaxtyping==0.3.11 optax==0.2.8 pandas==3.1.1
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check --no-deps arena-rank==0.1.1
cat > "$folder/votes.py" <<'PY'
from importlib.metadata import version

import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset

print("arena-rank", version("arena-rank"), "- x beats y in 240 of 300 votes")


def rated(winners, **options):
    votes = pd.DataFrame({"model_a": "x", "model_b": "y", "winner": winners})
    data = PairDataset.from_pandas(votes, **options)
    found = BradleyTerry(n_competitors=2).compute_ratings_and_cis(data)
    columns = [[round(float(one), 1) for one in found[name]] for name in ("ratings", "rating_lower", "rating_upper")]
    return dict(zip(found["competitors"], zip(*columns)))


def gap(rows):
    return rows["x"][0] - rows["y"][0]


words = ["model_a"] * 240 + ["model_b"] * 60
letters = [{"model_a": "A", "model_b": "B"}[word] for word in words]
skipped = words + [None] * 300
known = rated(words)
print("model_a, model_b:", known)
strange = rated(letters)
print("A, B:            ", strange)
half = rated(skipped)
print("and 300 skipped: ", half)
mapped = rated(letters, outcome_map={"A": 1.0, "B": 0.0}.__getitem__)
print("A, B with a map: ", mapped)
assert abs(gap(known) - 240.8) < 1 and mapped == known
assert abs(gap(strange)) < 0.1, "unknown words are no ties now"
assert gap(half) < 0.5 * gap(known), "unanswered votes are no ties now"
try:
    rated(letters, outcome_map={"model_a": 1.0, "model_b": 0.0}.__getitem__)
    raise SystemExit("a map of one's own does not raise")
except KeyError as error:
    print("a map of the other words: KeyError", error)
PY
"$folder/venv/bin/python" "$folder/votes.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
