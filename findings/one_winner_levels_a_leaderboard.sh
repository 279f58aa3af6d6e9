#!/bin/bash
# Rank models by pairwise comparisons with evalica's Bradley-Terry. Add a model that never lost: its strength
# has no finite estimate, so a good engineer expects an error, or a huge number for that one, and the others as
# before. Instead EVERY model gets 1e-06, the three that were well told apart too, with no warning; iterations
# is 2, as for a fit that converged at once. The winner's infinity takes the geometric mean with it, the others
# become 0 and then 0/0, and each NaN is written over by the tolerance. Both solvers do it; the first draw or
# loss of the winner brings all back. newman() does the same. The win probabilities made from the scores are
# 0.5 everywhere, and the ranking is nothing but an order among ties.
# Who is hurt: leaderboards of models or reward models with few games, and bootstraps of them, in which some
# resamples have an unbeaten model and then count as "all equal".
# Cure: see whether all scores equal the tolerance; add a small prior (a half-win each way) per pair.
# Versions: evalica 0.4.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check evalica==0.4.2
cat > "$folder/winner.py" <<'PY'
import warnings

import evalica
from evalica import Winner, bradley_terry, newman, pairwise_frame

warnings.simplefilter("error")  # A warning would be a change too.


def games(one, other, won, lost, drawn=0):
    ends = [Winner.X] * won + [Winner.Y] * lost + [Winner.Draw] * drawn
    return [(one, other, end) for end in ends]


def fit(rank, played, **options):
    xs, ys, ends = zip(*played)
    return rank(xs, ys, ends, **options)


known = games("a", "b", 6, 2) + games("b", "c", 5, 3) + games("a", "c", 7, 1)
unbeaten = known + [game for name in "abc" for game in games("top", name, 4, 0)]
drew_once = unbeaten + games("top", "a", 0, 0, drawn=1)
print("evalica", evalica.__version__)
for rank in (bradley_terry, newman):
    for name, played in {"three models": known, "and an unbeaten one": unbeaten, "which drew once": drew_once}.items():
        found = fit(rank, played)
        print(f"{rank.__name__:14} {name:20} iterations {found.iterations:3}", found.scores.round(6).to_dict())
print(pairwise_frame(fit(bradley_terry, unbeaten).scores))
before, after = fit(bradley_terry, known).scores, fit(bradley_terry, unbeaten).scores
assert before["a"] > 5 * before["c"]
assert set(after) == {1e-06} and set(fit(bradley_terry, unbeaten, solver="naive").scores) == {1e-06}, "told apart now"
assert set(fit(newman, unbeaten).scores) == {1e-06}, "newman tells them apart now"
assert fit(bradley_terry, drew_once).scores["top"] > 10
PY
"$folder/venv/bin/python" "$folder/winner.py"
