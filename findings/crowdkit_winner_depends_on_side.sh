#!/bin/bash
# Aggregate "which response is better, left or right?" of several annotators a pair. Which response stands left
# means nothing, so a good engineer expects the same winners after exchanging the sides of some pairs, each with
# its votes: not one annotator has changed an opinion.
# 400 pairs, two votes each, 200 annotators who are right in 80 %: crowd-kit's DawidSkene names another winner
# for one pair in eight on which both votes are EQUAL, once the sides of half of the pairs are exchanged. Its
# confusion matrices have a rate of their own for "left was right" and "right was right", fitted to chance; with
# no prior the four votes of an annotator make it 94 % sure of its winners, of which 73 % are right, fewer than
# by majority (84 %). No warning. OneCoinDawidSkene (one rate an annotator) changes few, and is no more right.
# Who is hurt: who makes preference pairs of crowd votes with the best known model; the order of columns decides.
# Cure: MajorityVote where annotators have few votes; a model with one matrix for both sides and a prior
# (`palate.stats.dawid_skene`).
# Versions: crowd-kit 1.4.2, pandas 3.1.1, numpy 2.4.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check crowd-kit==1.4.2 pandas==3.1.1 numpy==2.4.6
cat > "$folder/sides.py" <<'PY'
import warnings

import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene, MajorityVote, OneCoinDawidSkene

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
PAIRS, PEOPLE, RELIABILITY = 400, 200, 0.8
truth = rng.choice(["left", "right"], PAIRS)
other = {"left": "right", "right": "left"}
rows = []
for pair, better in enumerate(truth):
    for person in rng.choice(PEOPLE, 2, replace=False):
        said = better if rng.random() < RELIABILITY else other[better]
        rows.append({"task": pair, "worker": f"p{person}", "label": said})
votes = pd.DataFrame(rows)
exchanged = rng.random(PAIRS) < 0.5
turned = votes.assign(
    label=[other[v] if exchanged[t] else v for t, v in zip(votes.task, votes.label)]
)


def winners(model):
    """Winners before and after, by sides as they were at first."""
    found = {}
    for name, frame in (("before", votes), ("after", turned)):
        winner = model().fit_predict(frame).sort_index().to_numpy()
        if name == "after":
            winner = np.array([other[w] if x else w for w, x in zip(winner, exchanged)])
        found[name] = winner
    return found["before"], found["after"]


agree = votes.groupby("task").label.nunique().to_numpy() == 1
print(f"{agree.sum()} of {PAIRS} pairs have two equal votes")
changed = {}
for model in (MajorityVote, OneCoinDawidSkene, DawidSkene):
    before, after = winners(model)
    name = model.__name__
    changed[name] = np.mean(before != after), np.mean((before != after)[agree])
    right = np.mean(before == truth), np.mean(after == truth)
    print(
        f"{name:18} another winner: {changed[name][0]:.1%} of all pairs, "
        f"{changed[name][1]:.1%} of those with two equal votes; right {right[0]:.1%}, {right[1]:.1%}"
    )
sure = DawidSkene().fit(votes).probas_.max(axis=1).mean()
print(f"DawidSkene's mean probability of its winner: {sure:.3f}")
assert changed["MajorityVote"][1] == 0
assert changed["DawidSkene"][1] > 0.05, "equal votes now win on either side"
PY
"$folder/venv/bin/python" "$folder/sides.py"
