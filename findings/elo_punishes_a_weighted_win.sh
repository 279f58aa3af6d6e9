#!/bin/bash
# Comparisons come with weights: an annotator's trust, a confidence, a correction of the sample. A good engineer
# expects a weight to scale a game's effect on an Elo rating: half the weight, half the points, and weight 0 is
# no game at all. evalica's elo() multiplies the RESULT by the weight and not the change: a win of weight 0.5
# counts 0.5 for the winner, so between equals it gains nothing while the loser pays in full; a favourite that
# wins at weight 0.5 LOSES points; at weight 0 both lose, the favourite most. Points leak out of (or, above
# weight 1, into) the table. bradley_terry() and the others in the same package take the same weights as counts.
# Who is hurt: leaderboards of models from weighted votes; an often-asked, less trusted model sinks although it
# wins every game, and the weights' scale alone (percent or parts) changes the ranking. Both solvers do it.
# Cure: bradley_terry() for weighted games, or elo() without weights on games drawn by their weights.
# Versions: evalica 0.4.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check evalica==0.4.2
cat > "$folder/weights.py" <<'PY'
import evalica
from evalica import Winner, bradley_terry, elo


def rated(games, rank=elo, **options):
    """Games are (winner, loser, weight), in this order."""
    winners, losers, weights = zip(*games)
    scores = rank(winners, losers, [Winner.X] * len(games), weights=list(weights), **options).scores
    return {name: round(float(scores[name]), 2) for name in sorted(scores.index)}


print("evalica", evalica.__version__, "- every model starts at 1000, k = 4")
for weight in (1.0, 0.5, 0.0):
    print(f"a beats b once, weight {weight}:  ", rated([("a", "b", weight)]))
trusted = [("a", "b", 1.0)] * 5
doubted = [("a", "b", 0.5)] * 20
print("a beats b 5 times, weight 1:          ", rated(trusted))
print("and then 20 times more, weight 0.5:   ", rated(trusted + doubted))
apart = [("a", "b", 0.2)] * 5 + [("c", "d", 1.0), ("d", "c", 1.0)]
print("a wins 5 of 5 (0.2), c and d 1 of 2:  ", rated(apart))
weighed = [("a", "b", 0.5)] * 20 + [("b", "a", 0.5)] * 10
print("20 wins to 10, bradley_terry at 0.5:  ", rated(weighed, bradley_terry))
assert rated([("a", "b", 1.0)]) == {"a": 1002.0, "b": 998.0}
for solver in ("pyo3", "naive"):
    assert rated([("a", "b", 0.5)], solver=solver) == {"a": 1000.0, "b": 998.0}, "a weighted win gains points now"
    assert rated([("a", "b", 0.0)], solver=solver) == {"a": 998.0, "b": 998.0}, "a game of weight 0 is none now"
assert rated(trusted + doubted)["a"] < rated(trusted)["a"], "winning no longer costs points"
assert rated(apart)["a"] < rated(apart)["c"], "the winner of all its games is first now"
assert rated(weighed, bradley_terry)["a"] > 1.9 * rated(weighed, bradley_terry)["b"]
PY
"$folder/venv/bin/python" "$folder/weights.py"
