#!/bin/bash
# Correct a table of p-values of which one is NaN (scipy gives NaN for a judge whose scores never vary): a
# good engineer expects NaN to stay "not significant", or the whole call to raise.
# statsmodels' multipletests says the NaN hypothesis is REJECTED under Holm and Holm-Sidak as soon as all real
# ones are, because it asks "is p > alpha?" from the smallest p up and NaN is never greater. Its other methods
# take the same NaN in three more ways: fdr_bh and simes-hochberg turn every corrected p into NaN and still
# reject, hommel rejects nothing at all, only bonferroni keeps the rest as it is; and NaN counts as a test.
# Who is hurt: who reports "significantly different" for a set of judges from the array `reject` alone.
# Cure: drop NaN before the call (and say that those were not tested), or read NaN in the corrected p first.
# Versions: statsmodels 0.15.0, scipy 1.17.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1
cat > "$folder/nan.py" <<'PY'
import warnings

import numpy as np
import scipy
import statsmodels
from scipy.stats import spearmanr
from statsmodels.stats.multitest import multipletests

warnings.simplefilter("ignore")
lengths = np.arange(20.0)
judges = {
    "follows length": lengths + 9 * np.sin(lengths),
    "against length": -lengths + 9 * np.cos(lengths),
    "always says 0.5": np.full(20, 0.5),
}
p = [spearmanr(lengths, scores).pvalue for scores in judges.values()]
print("statsmodels", statsmodels.__version__, "scipy", scipy.__version__)
print("p of each judge's correlation with length:", {k: float(v) for k, v in zip(judges, p)})
rejected = {}
for method in ("holm", "holm-sidak", "bonferroni", "fdr_bh", "simes-hochberg", "hommel"):
    reject, corrected = multipletests(p, alpha=0.05, method=method)[:2]
    rejected[method] = reject.tolist()
    print(f"{method:15} significant {reject.tolist()}  corrected {corrected.tolist()}")
assert np.isnan(p[2])
assert rejected["holm"][2] and rejected["holm-sidak"][2], "NaN is no longer significant"
assert not rejected["bonferroni"][2]
assert rejected["hommel"] == [False, False, False], "hommel now keeps the real ones"
PY
"$folder/venv/bin/python" "$folder/nan.py"
