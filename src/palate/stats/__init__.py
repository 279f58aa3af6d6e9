"""Estimates with their errors, and the tests that compare them. See docs/statistics.md.

    estimate.py   Estimate, and averages of several
    intervals.py  Wilson and cluster-robust intervals, best and worst bounds
    compare.py    paired differences, trend over ratings, many comparisons
    power.py      what a test set of n items can and cannot show
    replicates.py accuracy and differences over several trainings of one recipe

Pure functions of numpy arrays; a generator is passed in where chance is used.
"""

from palate.stats.compare import (
    PairedDifference,
    Trend,
    benjamini_hochberg,
    cochran_armitage,
    holm,
    mcnemar_mid_p,
    paired_difference,
    sign_flip_p,
)
from palate.stats.estimate import CONFIDENCE, Estimate, combine, macro_average, micro_average
from palate.stats.intervals import (
    TIE_VALUE,
    Bounds,
    accuracy,
    bounds,
    cluster_codes,
    clustered_mean,
    clustered_variance,
    wilson,
)
from palate.stats.power import half_width, items_needed, minimum_detectable_difference
from palate.stats.replicates import (
    Replicated,
    p_of_zero,
    replicated_accuracy,
    replicated_difference,
    replicated_mean,
)

__all__ = [
    "CONFIDENCE",
    "TIE_VALUE",
    "Bounds",
    "Estimate",
    "PairedDifference",
    "Replicated",
    "Trend",
    "accuracy",
    "benjamini_hochberg",
    "bounds",
    "cluster_codes",
    "clustered_mean",
    "clustered_variance",
    "cochran_armitage",
    "combine",
    "half_width",
    "holm",
    "items_needed",
    "macro_average",
    "mcnemar_mid_p",
    "micro_average",
    "minimum_detectable_difference",
    "p_of_zero",
    "paired_difference",
    "replicated_accuracy",
    "replicated_difference",
    "replicated_mean",
    "sign_flip_p",
    "wilson",
]
