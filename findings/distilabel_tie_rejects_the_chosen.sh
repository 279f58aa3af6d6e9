#!/bin/bash
# UltraFeedback's way to preference pairs: rate several answers, take the best as chosen and the worst as rejected. A
# good engineer expects a row whose answers are all rated alike to be left out, or to hold two different answers.
# distilabel's FormatTextGenerationDPO and FormatChatGenerationDPO take the first highest and the first lowest rating:
# of equal ratings both are the first answer, and the row says that an answer is better than itself. No warning, and
# two answers on a scale of five are often rated alike; only chosen_rating, which equals rejected_rating, tells.
# Who is hurt: who trains on the pairs (rows that teach nothing), or counts an accuracy on them (no model is right).
# Cure: drop rows with chosen_rating == rejected_rating behind the step.
# Versions: distilabel 1.5.3, with requests, which it imports and does not name among what it needs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check distilabel==1.5.3 requests
cat > "$folder/pairs.py" <<'PY'
from importlib.metadata import version

from distilabel.steps import FormatChatGenerationDPO, FormatTextGenerationDPO

print("distilabel", version("distilabel"))
texts = ["first", "second", "third"]
question = {"instruction": "Why?", "messages": [{"role": "user", "content": "Why?"}], "generations": texts}


def pair(step, ratings):
    (row,) = next(step.process([question | {"ratings": ratings}]))
    chosen, rejected = (row[name][-1]["content"] for name in ("chosen", "rejected"))
    print(f"{type(step).__name__} {ratings}: {chosen!r} ({row['chosen_rating']}) over {rejected!r} ({row['rejected_rating']})")
    return chosen, rejected


for kind in (FormatTextGenerationDPO, FormatChatGenerationDPO):
    step = kind()
    step.load()
    assert pair(step, [3, 5, 4]) == ("second", "first")
    assert pair(step, [4, 4, 4]) == ("first", "first"), "equal ratings make another pair now"
PY
"$folder/venv/bin/python" "$folder/pairs.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
