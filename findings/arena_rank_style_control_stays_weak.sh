#!/bin/bash
# Two models of equal strength, one of which writes longer, and voters who like length: "style control", a
# Bradley-Terry with length as a covariate, is there to call them equal. A good engineer expects it to, the better the
# more votes there are, for a penalty weighs less and less against a growing likelihood. arena-rank's
# ContextualBradleyTerry adds its penalty (reg = 1) to the MEAN likelihood, where it weighs as much among 20,000 votes as
# among 2,000: of the 145 points that length gives to the longer one some 130 stay at any number of votes, and the
# interval closes around them. The coefficient is a tenth of the true one, and nothing says so.
# Who is hurt: who reads "with style control" as "length taken out".
# Cure: ContextualBradleyTerry(..., reg=1 / number of votes), or any small number.
# Versions: arena-rank 0.1.1, jax 0.8.1, which it pins, optax 0.2.8, pandas 3.1.1; without datasets, not needed here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check \
  jax==0.8.1 numpy==2.3.3 jaxtyping==0.3.11 optax==0.2.8 pandas==3.1.1
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check --no-deps arena-rank==0.1.1
cat > "$folder/style.py" <<'PY'
from importlib.metadata import version

import numpy as np
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.models.contextual_bradley_terry import ContextualBradleyTerry
from arena_rank.utils.data_utils import ContextualPairDataset, PairDataset

print("arena-rank", version("arena-rank"), "- equal models, one of them longer, votes by length alone")


def votes(n):
    rng = np.random.default_rng(0)
    first = rng.random(n) < 0.5  # The long one stands left.
    longer = np.where(first, 1.0, -1.0) + rng.normal(size=n)
    won = rng.random(n) < 1 / (1 + np.exp(-longer))
    sides = np.where(first, "long", "short"), np.where(first, "short", "long")
    winner = np.where(won, "model_a", "model_b")
    return pd.DataFrame({"model_a": sides[0], "model_b": sides[1], "winner": winner, "longer": longer})


def lead(found):
    """How far the long model is ahead, and the half width of its interval."""
    at = found["competitors"].index("long")
    ahead = float(found["ratings"][at] - found["ratings"][1 - at])
    return round(ahead, 1), round(float(found["rating_upper"][at] - found["ratings"][at]), 1)


leads = {}
for n in (2_000, 20_000):
    table = votes(n)
    plain = BradleyTerry(n_competitors=2).compute_ratings_and_cis(PairDataset.from_pandas(table))
    data = ContextualPairDataset.from_pandas(table, feature_cols=["longer"])
    leads[n] = [lead(plain)]
    for options in ({}, {"reg": 1 / n}):
        model = ContextualBradleyTerry(n_competitors=2, n_features=1, **options)
        leads[n].append(lead(model.compute_ratings_and_cis(data)))
    print(f"{n:6} votes: the longer one leads by", dict(zip(("no control", "control", "reg=1/n"), leads[n])))
for n, ((plain, _), (controlled, width), (light, light_width)) in leads.items():
    assert plain > 95 and controlled > 0.8 * plain, "the control takes length out now"
    assert controlled - 2 * width > 50, "the interval has the truth in it now"
    assert abs(light) < 2 * light_width
PY
"$folder/venv/bin/python" "$folder/style.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
