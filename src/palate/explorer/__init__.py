"""The explorer of a run: a local server over its Parquet files, and marks of your own beside them.

catalogue.py  a run's comparisons as columns, and the DuckDB behind them
query.py      what a list is asked for, from and to a URL
select.py     the items that a query finds, in order, and the counts beside the filters
item.py       one comparison with the verdicts of all judges
marks.py      what people said of comparisons, in SQLite
batch.py      marks as comparisons: another annotation batch
agreement.py  how far people agree with labels, judges and each other
live.py       rewards of responses typed by hand
explorer.py   the runs that are open, and who looks at them
list_page.py  what a list shows, and what a blind one hides
item_page.py  the same of one comparison, and what a form does to its mark
text.py       untrusted text as HTML
render.py     templates
access.py     the token, the headers, the limits
app.py        addresses
serve.py      from a command to a page in the browser
"""
