"""Coverage, false positives, planted biases, and the time of a large report; one JSON line.

    python -m benchmarks.statistics [--quick] [--draws N] [--items N] [--judges N]

Needs no peer and no data: truth is simulated. What is simulated: benchmarks/README.md.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.statistics import scale, simulate

FOLDER = Path(__file__).parents[1] / ".work" / "statistics"


def simulated(draws: int) -> dict[str, object]:
    """Every check against simulated truth, by name."""
    rng = np.random.default_rng(0)
    wilson = simulate.coverage_wilson(rng, draws)
    clustered = simulate.coverage_clustered(rng, draws)
    paired = simulate.false_positive_paired(rng, draws)
    # A logistic regression costs a hundred times as much as an interval, and an ECE's as well.
    controlled, plain = simulate.length_held(rng, max(draws // 10, 20), 1.5)
    ece = simulate.coverage_ece(rng, max(draws // 10, 20))
    best_of_k = simulate.coverage_best_of_k(rng, draws)
    best_of_k_false = simulate.false_positive_best_of_k(rng, draws)
    # Some thirty clustered means a draw.
    corrected, uncorrected = simulate.coverage_judge_corrected(rng, max(draws // 5, 20))
    told = {
        "wilson": wilson, "clustered": clustered, "paired": paired, "ece": ece,
        "best of k": best_of_k, "best of k, equal judges": best_of_k_false,
        "judge-corrected": corrected, "judge": uncorrected,
    }  # fmt: skip
    for name, cells in told.items():
        for cell, value in cells.items():
            print(f"{name}: {cell}: {value:.4f}", file=sys.stderr)
    return {
        "coverage_wilson": round(simulate.mean(wilson), 4),
        "coverage_clustered": round(simulate.mean(clustered), 4),
        "false_positive_paired": round(simulate.mean(paired), 4),
        "coverage_best_of_k": round(simulate.mean(best_of_k), 4),
        "false_positive_best_of_k": round(simulate.mean(best_of_k_false), 4),
        "coverage_judge_corrected": round(simulate.mean(corrected), 4),
        "farthest": {
            "wilson": round(simulate.farthest(wilson, 0.95), 4),
            "clustered": round(simulate.farthest(clustered, 0.95), 4),
            "paired": round(simulate.farthest(paired, 0.05), 4),
            "best_of_k": round(simulate.farthest(best_of_k, 0.95), 4),
            "best_of_k_false": round(simulate.farthest(best_of_k_false, 0.05), 4),
            "ece": round(simulate.farthest(ece, 0.95), 4),
            "judge_corrected": round(simulate.farthest(corrected, 0.95), 4),
        },
        "position_bias_found": simulate.position_found(rng, draws, 0.2),
        "position_bias_false": simulate.position_found(rng, draws, 0.0),
        "length_controlled_coverage": controlled,
        "length_plain_coverage": plain,
        "coverage_ece": round(simulate.mean(ece), 4),
    }


def main() -> None:
    """Read the size from the command line, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws and items")
    parser.add_argument("--draws", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--judges", type=int, default=10)
    given = parser.parse_args()
    draws = given.draws or (1_000 if given.quick else 10_000)
    items = given.items or (10_000 if given.quick else 100_000)
    folder = FOLDER / f"run-{items}-{given.judges}"
    scale.make_run(folder, items, given.judges)
    seconds, tables = scale.seconds_of_report(folder)
    print(f"report: {', '.join(tables)}", file=sys.stderr)
    of_four = FOLDER / f"run-{items}-of-4-{given.judges}"
    scale.make_run(of_four, items, given.judges, scale.verdicts_of_four)
    seconds_of_four, figures = scale.seconds_of_scores(of_four)
    print(f"scores of items of four: {figures} figures", file=sys.stderr)
    seconds_of_four_report, tables = scale.seconds_of_report(of_four)
    print(f"report of items of four: {', '.join(tables)}", file=sys.stderr)
    size = "100k" if items == 100_000 else str(items)
    line = {
        "benchmark": "statistics",
        **simulated(draws),
        f"seconds_{size}_x_{given.judges}": round(seconds, 2),
        f"seconds_{size}_of_4_x_{given.judges}": round(seconds_of_four, 2),
        f"seconds_{size}_of_4_x_{given.judges}_report": round(seconds_of_four_report, 2),
    }
    print(json.dumps({**line, "draws": draws, "quick": given.quick}))


if __name__ == "__main__":
    main()
