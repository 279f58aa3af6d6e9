"""The explorer of a run: a local server over its Parquet files, with annotations of your own.

index        a run's comparisons as columns, and the DuckDB behind them
queue        lists of comparisons to be looked at in an order, with reasons
query        the query of a list, and the items it selects
run          the runs that are open, and rewards of responses typed by hand
annotations  what people say of comparisons: kept, measured, exported as a batch
pages        the list and the item, made ready for their templates
app          who is let in, the addresses, and the server
"""
