"""Tables of a run: `report(run_dir)` reads verdicts and writes them; no model is needed.

read.py      verdict files and computed figures of a run
accuracy.py  Tables 7, 8, 29
outcomes.py  what became of every item; models against trivial judges
groups.py    letters of Table 7: which judges can be told apart
detection.py Table 29 over thresholds
length.py    accuracy by which response is longer, length-controlled
calibration.py  is a judge as sure as it is right
orders.py    accuracy in one order and in both, consistency, position bias
training.py  held-out accuracy and loss by step
tables.py    a table as a value
render.py    terminal, Markdown, CSV, LaTeX, JSON
escape.py    untrusted text made safe for each of them
paper.py     the figures printed in the paper
studied.py   the runs of a study, item by item and seed by seed
study.py     accuracy by variant and seed (Table 28), paired differences
scaling.py   accuracy against the amount of data, and its trend
plot.py      the scaling curves as a page
write.py     report()
"""

from palate.report.write import Report, report

__all__ = ["Report", "report"]
