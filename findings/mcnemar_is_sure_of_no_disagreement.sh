#!/bin/bash
# Two reward models that get exactly the same comparisons right do not differ, so a test of their difference
# should give p = 1, or at worst NaN and a complaint about the division. statsmodels' mcnemar in its
# chi-squared form (exact=False, the form for large test sets) gives p = 0.0, the strongest evidence there is:
# the continuity correction, which is its default, takes 1 from a difference of 0 and squares the -1, and 1/0
# is infinite. Likewise a tie of 1 against 1 gets p = 0.48 where no correction and the exact form both say 1.
# Who is hurt: everyone who compares many judges or checkpoints in a loop; a copy of a model (or a fine-tune
# that changed no verdict) stands out as the most significant row of the table and survives every correction.
# Cure: exact=True (or a mid-p), or say p = 1 where no pair is discordant, and clip |b - c| - 1 at 0.
# Versions: statsmodels 0.15.0, scipy 1.17.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1
cat > "$folder/same.py" <<'PY'
import warnings

import numpy as np
import statsmodels
from statsmodels.stats.contingency_tables import mcnemar

warnings.simplefilter("ignore", RuntimeWarning)  # "divide by zero", the only word about it.
right = np.arange(100) < 80
table = [[np.sum(right & right), np.sum(right & ~right)], [np.sum(~right & right), np.sum(~right & ~right)]]
print("statsmodels", statsmodels.__version__)
print("a judge against its copy, both right / one / other / none:", np.ravel(table).tolist())
p = {}
for name, options in {
    "exact": {"exact": True},
    "chi-squared (corrected, the default)": {"exact": False},
    "chi-squared, uncorrected": {"exact": False, "correction": False},
}.items():
    found = mcnemar(table, **options)
    p[name] = found.pvalue
    print(f"{name:38} statistic {found.statistic}  p {found.pvalue}")
one_each = mcnemar([[70, 1], [1, 28]], exact=False).pvalue
print(f"one comparison each way, corrected     p {one_each:.3f}")
assert p["exact"] == 1.0
assert p["chi-squared (corrected, the default)"] == 0.0, "a copy is no longer significant"
assert one_each < 0.5, "a draw of 1 against 1 is no longer corrected away from 0"
PY
"$folder/venv/bin/python" "$folder/same.py"
