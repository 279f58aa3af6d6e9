#!/bin/bash
# Read a Parquet file larger than memory batch by batch: a good engineer takes ParquetFile.iter_batches, whose
# documentation says "read streaming batches", and expects the memory of a batch or of a row group.
# pyarrow keeps every row group that it has read until the iterator ends, so that memory grows to the size of
# the file: `pre_buffer`, true by default for the sake of object stores, caches the bytes of
# all row groups and frees none of them. A local file gains nothing from it.
# Who is hurt: whoever streams a data set (a million preference pairs are 0.4 to 1.2 GB) on a small machine, or
# in several processes; the process is killed near the end of the file, and no batch looks large.
# Cure: ParquetFile(path, pre_buffer=False).
# Versions: pyarrow 26.0.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1
cat > "$folder/stream.py" <<'PY'
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1]
with pq.ParquetWriter(path, pa.schema([("text", pa.binary())])) as writer:
    for _ in range(64):  # Row groups of 1 MiB that no compression makes smaller.
        writer.write_table(pa.table({"text": [os.urandom(1024) for _ in range(1024)]}))
print("pyarrow", pa.__version__, "file", os.path.getsize(path) >> 20, "MiB in 64 row groups")


def most_held(**options: bool) -> float:
    """The most memory that Arrow holds while a file is read batch by batch, in MiB."""
    before, most = pa.total_allocated_bytes(), 0
    for _batch in pq.ParquetFile(path, **options).iter_batches(128):
        most = max(most, pa.total_allocated_bytes() - before)
    return most / 2**20


by_default, streamed = most_held(), most_held(pre_buffer=False)
print(f"held at most while streaming: {by_default:.0f} MiB by default, {streamed:.0f} with pre_buffer=False")
assert by_default > 60, "what was read is no longer kept"
assert streamed < 8
PY
"$folder/venv/bin/python" "$folder/stream.py" "$folder/rows.parquet"
