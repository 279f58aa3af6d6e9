#!/bin/bash
# reasoning-gym's tasks give a reward for an answer, for reinforcement learning: score_answer(answer, entry). Where the
# answer is a number, a good engineer expects a wrong number to get 0, or a small constant for trying. Thirty-odd tasks
# have no rule of their own, gcd, lcm, count_primes and simple_equations among them, and there an answer that CONTAINS
# the right one, as text, gets the share of its length: where 2 is right, 12, 20, 32 and -2 get 0.5, and where 12 is, 123
# gets 0.67; "2.", which is right, gets 0.5 as well, and 3, as wrong as 12, gets 0.
# Who is hurt: who trains by these rewards: a sign or a digit too many pays as much as a right answer with a full stop.
# Cure: compare the answers as numbers where entry["answer"] is one.
# Versions: reasoning-gym 0.1.25.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check reasoning-gym==0.1.25
cat > "$folder/wrong.py" <<'PY'
from importlib.metadata import version

import reasoning_gym

print("reasoning-gym", version("reasoning-gym"))
for task in ("gcd", "count_primes", "simple_equations"):
    data = reasoning_gym.create_dataset(task, size=200, seed=1)
    entry = next(one for one in data if len(one["answer"]) == 1)
    right = entry["answer"]
    other = str((int(right) + 1) % 10)
    answers = (right, f"1{right}", f"{right}0", f"-{right}", f"{right}.", other)
    rewards = [round(data.score_answer(answer, entry), 2) for answer in answers]
    print(f"{task}: {right} is right;", dict(zip(answers, rewards)))
    assert rewards == [1.0, 0.5, 0.5, 0.5, 0.5, 0.0], "wrong numbers get nothing now"
PY
"$folder/venv/bin/python" -W ignore "$folder/wrong.py"
