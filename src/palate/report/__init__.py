"""Tables of a run, and one page of them: `report(run)` and `write_page`; no model is needed.

Figures before text: tables hold Estimates and numbers, and what is printed is made of them last.

    report.py       report(): which tables there are, in which order; their files
    read.py         what is read of a run: verdicts, computed figures, the comparisons behind them
    accuracy.py     Tables 7, 8 and 29; outcomes, letters, models against trivial judges
    ties.py         judges where people tied or were split
    diagnostics.py  best of n, calibration, length, margins, order of sides, thresholds, slices
    verdict.py      what can be concluded, in sentences, and what must be borne in mind
    training.py     held-out accuracy and loss by step
    data.py         mixtures, contents, sources, licences, lint, overlap
    study.py        several runs of one study: Table 28, paired differences, scaling
    llama2.py       the figures printed in the paper
    table.py        a table: columns with units, cells with values
    render.py       a table printed: terminal, Markdown, CSV, LaTeX, JSON
    page/           write_page(): tables, charts and failures as one HTML file
"""

from palate.report.page import write_page
from palate.report.report import Report, report

__all__ = ["Report", "report", "write_page"]
