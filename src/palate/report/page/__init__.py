"""One HTML file of a report: it asks nothing of the network and opens from disk.

build.py        what stands where on the page
render.py       templates, styles and scripts in one file, under a strict policy
cells.py        a table as the page shows it
chart.py        a chart as a Vega-Lite specification; what charts share
accuracies.py   charts of tables with accuracies
scores.py       distributions of scores, one judge's against another's
courses.py      training curves
mixtures.py     what is in the data
failures.py     the wrong verdicts and disagreements that are shown
clusters.py     failures that are alike
provenance.py   what the report was made of, and how to make it again
"""

from palate.report.page.build import write_page

__all__ = ["write_page"]
