"""Verdict files as an earlier Palate wrote them."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from palate.records import HEADER_KEY


def downgrade(path: Path, version: int = 1) -> None:
    """Write a verdict file anew without the columns that format 1 did not have."""
    table = pq.read_table(path)
    header = json.loads(pq.read_metadata(path).metadata[HEADER_KEY]) | {"version": version}
    table = table.drop_columns(["answer", "seconds", "chosen_length", "rejected_length"])
    pq.write_table(table.replace_schema_metadata({HEADER_KEY: json.dumps(header)}), path)
