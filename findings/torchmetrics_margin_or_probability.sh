#!/bin/bash
# Hand the margins of a reward model (chosen minus rejected, any real number) to torchmetrics' BinaryAccuracy or
# BinaryAUROC, as logits. A good engineer expects one figure for one list, however it is cut into batches: both are
# made to be updated batch by batch. torchmetrics decides at each update: if all of the batch lies between 0 and 1 it
# is probabilities, else logits of which it takes the sigmoid. A batch of small wins (0.1, 0.3, 0.4) is then below the
# threshold of 0.5 and counted wrong; the AUROC ranks raw margins of one batch among sigmoids of another.
# Six comparisons, all right: accuracy 1.0 in one batch, 0.5 in batches of three, 0.33 one by one; an AUROC of 1.0 in
# one batch is 0.625 in two.
# Who is hurt: who logs the accuracy of a reward model while training; with small batches and small margins (the
# start, or a strong centring of rewards) it is lowest. On several processes each has batches of its own.
# Cure: give torch.sigmoid(margins), or count margins > 0.
# Versions: torchmetrics 1.9.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --no-compile --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0
cat > "$folder/margins.py" <<'PY'
import torch
import torchmetrics
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC


def measured(metric, scores, labels, batch):
    for scored, label in zip(scores.split(batch), labels.split(batch)):
        metric.update(scored, label)
    return round(metric.compute().item(), 4)


print("torchmetrics", torchmetrics.__version__)
margins = torch.tensor([0.1, 0.3, 0.4, 0.2, 1.5, 2.0])
right = torch.ones(6, dtype=torch.int)
accuracy = {batch: measured(BinaryAccuracy(), margins, right, batch) for batch in (6, 3, 1)}
print("margins", [round(one, 1) for one in margins.tolist()], "all right: accuracy by batch size", accuracy)
sure = {batch: measured(BinaryAccuracy(), margins.sigmoid(), right, batch) for batch in (6, 3, 1)}
print("their sigmoids:", sure)
rewards = torch.tensor([0.9, 0.8, 0.7, 1.2, 1.5, -1.0])
good = torch.tensor([0, 0, 0, 1, 1, 0])
area = {batch: measured(BinaryAUROC(), rewards, good, batch) for batch in (6, 3, 1)}
print("rewards", [round(one, 1) for one in rewards.tolist()], "good", good.tolist(), "AUROC by batch size", area)
assert sure == {6: 1.0, 3: 1.0, 1: 1.0}
assert accuracy == {6: 1.0, 3: 0.5, 1: 0.3333}, "margins are margins in every batch now"
assert area == {6: 1.0, 3: 0.625, 1: 0.625}, "the AUROC hangs on batches no more"
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/margins.py"
