"""Tables of a run, and one page of them: `report(run)` and `write_page`; no model is needed.

read.py      verdict files and computed figures of a run
accuracy.py  Tables 7, 8, 29
outcomes.py  what became of every item; models against trivial judges
groups.py    letters of Table 7: which judges can be told apart
findings.py  a conclusion in words
cautions.py  what must be borne in mind
verdict.py   what can be concluded, in sentences, and what not yet
parts.py     accuracy by difference in length, turns, source
gaps.py      score gaps by rating
best.py      best of n
items.py     the comparisons behind the verdicts
corpus.py    what mixtures asked for and got, what is in them
hygiene.py   sources, licences, lint, overlap
several.py   several runs side by side
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
study.py     accuracy by variant and seed (Table 28)
contrasts.py    variants beside the baseline, paired
study_verdict.py  what can be concluded of a study
scaling.py   accuracy against the amount of data, and its trend
write.py     report()
page/        write_page(): charts, failures and tables as one HTML file
"""

from palate.report.page import write_page
from palate.report.report import Report, report

__all__ = ["Report", "report", "write_page"]
