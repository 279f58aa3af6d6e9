#!/bin/bash
# argilla 2.8.0: Dataset.records.to_json(path), then records.from_json(path), the SDK's own way to keep records
# and to bring them back. A good engineer expects the answers as they were: one submitted, one discarded. The
# file has no status (Record.to_dict leaves it out), and an answer without one is sent as a draft: what people
# submitted is undone, and what they discarded waits for them again. No warning.
# Who is hurt: who moves annotations to another server, or restores a backup, by to_json and from_json; and who
# reads such a file as labels, for there a draft looks submitted.
# Cure: to_list(flatten=True) has QUESTION.responses.status; send Response(..., status=...) made of it.
# Versions: argilla 2.8.0, with requests, which it imports and does not name among what it needs. No server is
# run: what would be sent to it is looked at, and the client's question for its key is left out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check argilla==2.8.0 requests
cat > "$folder/check.py" <<'PY'
import json
import sys
from pathlib import Path
from uuid import UUID

import argilla as rg
from argilla._api._client import APIClient
from argilla.records._io import GenericIO, JsonIO  # What to_json, from_json and to_list call.

APIClient._validate_connection = lambda _: None  # Asks the server whether the key is known.
client = rg.Argilla(api_url="http://127.0.0.1:9", api_key="none")
settings = rg.Settings(
    fields=[rg.TextField(name) for name in ("prompt", "a", "b")], questions=[rg.LabelQuestion("better", ["a", "b"])]
)
dataset = rg.Dataset("comparisons", settings=settings, client=client)
path = Path(sys.argv[1]) / "records.json"
answers = [
    rg.Response("better", "a", user_id=UUID(int=1), status="submitted"),
    rg.Response("better", "b", user_id=UUID(int=2), status="discarded"),
]
record = rg.Record(id="r1", fields={"prompt": "Q", "a": "A", "b": "B"}, responses=answers)


def sent(one):
    one.dataset = dataset  # As records.log does first.
    return {answer.values["better"]["value"]: answer.status.value for answer in one.api_model().responses}


JsonIO.to_json([record], path)
(back,) = JsonIO._records_from_json(path)
print("argilla", rg.__version__, "- in the file:", json.dumps(json.loads(path.read_text())[0]["responses"]))
print("sent at first:", sent(record))
print("sent again:   ", sent(back))
flat = GenericIO.to_list([record], flatten=True)[0]
print("flattened:    ", flat["better.responses"], flat["better.responses.status"])
assert sent(record) == {"a": "submitted", "b": "discarded"}
assert flat["better.responses.status"] == ["submitted", "discarded"]
assert sent(back) == {"a": "draft", "b": "draft"}, "the status comes back now"
PY
"$folder/venv/bin/python" "$folder/check.py" "$folder"
