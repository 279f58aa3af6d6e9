"""The fields of other servers' requests are read in their own packages."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
from benchmarks.clients import request_fields as fields

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "benchmarks/.peers"
DECLARED = """
from typing import ClassVar
class Base(BaseModel):
    model: str | None = None
class Mixin:
    kinds: ClassVar[int] = 3
    def task(self): ...
class Request(Base, Mixin, Elsewhere):
    text: str
class Answer(Base):
    score: float
"""
CLIENT = """
def rerank(self, *, query, top_n=None, request_options=None):
    log({"query": 1})
    post({"query": query, "top_n": top_n})
"""


def test_fields_are_those_of_a_class_and_its_bases_or_of_what_a_client_sends(tmp_path, monkeypatch):
    with ZipFile(tmp_path / "peer-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("peer/protocol.py", DECLARED)
        wheel.writestr("peer/client.py", CLIENT)
    paths = {
        "/score": fields.declared(["Request"], "peer/protocol.py"),
        "/sent": fields.sent("peer/client.py", "query", "top_n"),
        "/rerank": fields.arguments("peer/client.py", "rerank", "request_options"),
    }
    monkeypatch.setattr(fields, "PEERS", {"peer 1.0": ("peer-1.0", paths), "other": ("no-1", {})})
    assert fields.fields_of("peer 1.0", tmp_path) == {
        "/score": ["model", "text"],
        "/sent": ["query", "top_n"],
        "/rerank": ["query", "top_n"],
    }
    assert fields.fields_of("other", tmp_path) is None
    monkeypatch.setattr(fields, "FILE", tmp_path / "peers.json")
    (tmp_path / "peers.json").write_text('{"TEI": {"/predict": ["inputs"]}}')
    fields.main(tmp_path)
    written = json.loads((tmp_path / "peers.json").read_text())
    assert written["TEI"] == {"/predict": ["inputs"]}
    assert written["peer 1.0"]["/score"] == ["model", "text"]


@pytest.mark.slow  # Parses ten thousand lines of other people's code.
def test_the_fields_that_are_held_against_ours_are_those_of_the_packages():
    held = json.loads(fields.FILE.read_text())
    read = {peer: fields.fields_of(peer, WHEELS) for peer in fields.PEERS}
    if not any(read.values()):
        pytest.skip(f"no wheels in {WHEELS}; make peer-fields")
    for peer, paths in read.items():
        for path, names in (paths or {}).items():
            assert held[peer][path] == names, (peer, path)
