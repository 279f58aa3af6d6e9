#!/bin/bash
# Two models met 40 times, one won 30, nobody drew. Newman's iteration estimates Bradley-Terry strengths and a
# draw rate, so a good engineer expects 30/40 = 0.75 (strengths in a ratio of 3), as bradley_terry gives.
# evalica's newman() says that both are equal: 1.0 and 1.0, win probability 0.5, without a word. Without draws
# the draw rate v is 0 after the first round, each strength is then made of the other's alone, and the iteration
# jumps between 9:1 and 1:1 until it stops at the limit. The answer is whichever side it stopped on, never the
# true 3:1: `limit=100` says 0.5, `limit=101` says 0.9. One draw (almost) cures it.
# Who is hurt: head-to-head comparisons of two judges or checkpoints with forced choices (no ties allowed).
# Cure: bradley_terry() where nothing was drawn; never trust a result whose iterations equal its limit.
# Versions: evalica 0.4.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check evalica==0.4.2
cat > "$folder/draws.py" <<'PY'
import warnings

import evalica
from evalica import Winner, bradley_terry, newman

warnings.simplefilter("error")  # A warning would be a change too.


def share(result):
    return float(result.scores["new"] / result.scores.sum())


def met(won, lost, drawn):
    ends = [Winner.X] * won + [Winner.Y] * lost + [Winner.Draw] * drawn
    return ["new"] * len(ends), ["old"] * len(ends), ends


print("evalica", evalica.__version__)
print("new wins 30, old wins 10, no draw:")
for name, found in {
    "bradley_terry": bradley_terry(*met(30, 10, 0)),
    "newman, naive solver": newman(*met(30, 10, 0), solver="naive"),
    "newman": newman(*met(30, 10, 0)),
    "newman, limit=101": newman(*met(30, 10, 0), limit=101),
    "newman, limit=1000": newman(*met(30, 10, 0), limit=1000),
    "newman, and one draw": newman(*met(30, 10, 1)),
}.items():
    print(f"  {name:22} iterations {found.iterations:4}  new beats old with p = {share(found):.3f}")
assert abs(share(bradley_terry(*met(30, 10, 0))) - 0.75) < 1e-3
assert abs(share(newman(*met(30, 10, 0))) - 0.5) < 1e-3, "newman tells the two apart now"
assert abs(share(newman(*met(30, 10, 0), limit=101)) - 0.5) > 0.1, "the limit's parity no longer matters"
assert share(newman(*met(30, 10, 1))) > 0.7
PY
"$folder/venv/bin/python" "$folder/draws.py"
