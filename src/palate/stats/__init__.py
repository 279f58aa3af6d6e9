"""Estimates with their errors, and the tests that compare them. See docs/statistics.md.

    estimate.py     Estimate and averages; Wilson and cluster-robust intervals; bounds
    compare.py      paired differences, trend, many comparisons, power, groups by letter
    composite.py    scores that are sums of means: sections, weighted subsets
    replicates.py   accuracy and differences over several trainings of one recipe
    calibration.py  reliability, ECE, Brier, temperature
    agreement.py    annotators beyond chance and their reliability, the ceiling, position bias
    ties.py         accuracy, likelihood and chances of a tie where people tied or were split
    correlation.py  how far two numbers of the same responses go together
    ensemble.py     how far the members of an ensemble are apart, and bounds by it
    noise.py        how many labels are wrong, and which, by margins of judges that never saw them
    judged.py       people's share where only a judge has seen, its errors taken out
    adjusted.py     accuracy without the help of length, and what a score is worth in best-of-n

A new statistic goes to the file of its subject, and returns an `Estimate`.

Pure functions of numpy arrays; a generator is passed in where chance is used.
"""

from palate.stats.adjusted import (
    Turnover,
    best_of_n_by_prompt,
    best_of_n_curve,
    divergence,
    length_controlled,
    turnover,
    turnover_of,
)
from palate.stats.agreement import (
    AgainstOthers,
    DawidSkene,
    NoiseCeiling,
    against_others,
    agreement_of_labels,
    chose_first,
    cohen_kappa,
    consistent,
    dawid_skene,
    krippendorff_alpha,
    noise_ceiling,
)
from palate.stats.calibration import (
    Calibration,
    ReliabilityBin,
    event_calibration,
    held_out_differences,
    measure_calibration,
    temperature,
)
from palate.stats.compare import (
    PairedDifference,
    Trend,
    benjamini_hochberg,
    cochran_armitage,
    detectable,
    detectable_lead,
    half_width,
    holm,
    holm_family,
    holm_levels,
    items_needed,
    letters,
    mcnemar_mid_p,
    minimum_detectable_difference,
    paired_difference,
    pairs,
    sign_flip_p,
)
from palate.stats.composite import Term, Terms, composite, composite_difference
from palate.stats.correlation import correlation
from palate.stats.ensemble import (
    MEMBER_LEVEL,
    conformal_coverage,
    conformal_scale,
    error_probabilities,
    lower_bounds,
    member_interval,
)
from palate.stats.estimate import (
    CONFIDENCE,
    LEVEL,
    TIE_VALUE,
    Bounds,
    Estimate,
    accuracy,
    bounds,
    cluster_codes,
    clustered_mean,
    clustered_variance,
    combine,
    macro_average,
    micro_average,
    wilson,
)
from palate.stats.judged import JudgeCorrected, favour, judge_corrected
from palate.stats.noise import FLIP_PRIOR, NoiseModel, fit_noise
from palate.stats.replicates import (
    Replicated,
    p_of_zero,
    replicated_accuracy,
    replicated_difference,
    replicated_mean,
    student_test,
)
from palate.stats.ties import (
    TieAware,
    TieCalibration,
    TieModel,
    VoteLikelihood,
    held_out_tie_probability,
    three_way,
    tie_aware_accuracy,
    tie_calibration,
    tie_model,
    tie_probability,
    tie_threshold,
    vote_likelihood,
)

__all__ = [
    "CONFIDENCE",
    "FLIP_PRIOR",
    "LEVEL",
    "MEMBER_LEVEL",
    "TIE_VALUE",
    "AgainstOthers",
    "Bounds",
    "Calibration",
    "DawidSkene",
    "Estimate",
    "JudgeCorrected",
    "NoiseCeiling",
    "NoiseModel",
    "PairedDifference",
    "ReliabilityBin",
    "Replicated",
    "Term",
    "Terms",
    "TieAware",
    "TieCalibration",
    "TieModel",
    "Trend",
    "Turnover",
    "VoteLikelihood",
    "accuracy",
    "against_others",
    "agreement_of_labels",
    "benjamini_hochberg",
    "best_of_n_by_prompt",
    "best_of_n_curve",
    "bounds",
    "chose_first",
    "cluster_codes",
    "clustered_mean",
    "clustered_variance",
    "cochran_armitage",
    "cohen_kappa",
    "combine",
    "composite",
    "composite_difference",
    "conformal_coverage",
    "conformal_scale",
    "consistent",
    "correlation",
    "dawid_skene",
    "detectable",
    "detectable_lead",
    "divergence",
    "error_probabilities",
    "event_calibration",
    "favour",
    "fit_noise",
    "half_width",
    "held_out_differences",
    "held_out_tie_probability",
    "holm",
    "holm_family",
    "holm_levels",
    "items_needed",
    "judge_corrected",
    "krippendorff_alpha",
    "length_controlled",
    "letters",
    "lower_bounds",
    "macro_average",
    "mcnemar_mid_p",
    "measure_calibration",
    "member_interval",
    "micro_average",
    "minimum_detectable_difference",
    "noise_ceiling",
    "p_of_zero",
    "paired_difference",
    "pairs",
    "replicated_accuracy",
    "replicated_difference",
    "replicated_mean",
    "sign_flip_p",
    "student_test",
    "temperature",
    "three_way",
    "tie_aware_accuracy",
    "tie_calibration",
    "tie_model",
    "tie_probability",
    "tie_threshold",
    "turnover",
    "turnover_of",
    "vote_likelihood",
    "wilson",
]
