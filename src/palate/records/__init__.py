"""Tables on disk: Parquet files that say where they came from.

Every file carries a header (kind, format version, recipe, seed, fingerprints of its inputs, git
revision, package versions) and a fingerprint of its ordered contents. Files appear whole or not
at all: they are written beside their name and renamed.
"""

from palate.records.disk import (
    atomic,
    atomic_folder,
    file_digest,
    follow_umask,
    write_json,
    write_text,
)
from palate.records.rows import (
    COMPARISON_SCHEMA,
    VERDICT_SCHEMA,
    comparison_from_row,
    comparison_to_row,
    read_comparisons,
    read_verdicts,
    verdict_from_row,
    verdict_to_row,
    write_comparisons,
    write_verdicts,
)
from palate.records.table import (
    FORMAT_VERSION,
    HEADER_KEY,
    PACKAGES,
    ROWS_PER_GROUP,
    Fingerprint,
    Header,
    count_groups,
    git_revision,
    package_versions,
    read_batches,
    read_columns,
    read_header,
    read_rows,
    version_of,
    write_table,
)

__all__ = [
    "COMPARISON_SCHEMA",
    "FORMAT_VERSION",
    "HEADER_KEY",
    "PACKAGES",
    "ROWS_PER_GROUP",
    "VERDICT_SCHEMA",
    "Fingerprint",
    "Header",
    "atomic",
    "atomic_folder",
    "comparison_from_row",
    "comparison_to_row",
    "count_groups",
    "file_digest",
    "follow_umask",
    "git_revision",
    "package_versions",
    "read_batches",
    "read_columns",
    "read_comparisons",
    "read_header",
    "read_rows",
    "read_verdicts",
    "verdict_from_row",
    "verdict_to_row",
    "version_of",
    "write_comparisons",
    "write_json",
    "write_table",
    "write_text",
    "write_verdicts",
]
