"""The ONNX export gives the checkpoint's rewards, alone and padded. Tracing takes half a minute."""

import json
import re
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from packed import tiny_reward_model
from palate.cli import app
from palate.extras import EXTRAS, install_command
from palate.judges import ScorerJudge, open_judge
from palate.judges.reward_model import OnnxScorer, RewardScorer
from palate.model.export import Card, export
from palate.types import Candidates, Message, PalateError

ASKED = [
    Candidates(
        (Message("user", "How do I bake bread? " * k),), ("Wait.", "Mix flour, and salt.", "")
    )
    for k in (1, 4, 9)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_reward_model(
        "llama", changes={"num_hidden_layers": 1}, safety_head=True, attributes=("helpfulness",)
    )
    return export(model, tmp_path_factory.mktemp("onnx") / "model", card=Card("tiny", "tiny", "0"))


@pytest.fixture(scope="module")
def graph(checkpoint: Path) -> Path:
    to = checkpoint.with_name("graph")
    found = CliRunner().invoke(
        app, ["export", str(checkpoint), "--to", str(to), "--format", "onnx"]
    )
    assert found.exit_code == 0, found.output
    assert found.stdout == ""
    assert "rewards differ from torch's by at most" in found.stderr
    return to


@pytest.mark.slow
def test_pitfall_30_onnx_gives_the_rewards_of_the_checkpoint(checkpoint: Path, graph: Path) -> None:
    expected = [s.value for scores in RewardScorer(checkpoint).score(ASKED) for s in scores]
    judge = open_judge({"reward-model": str(graph)})
    assert isinstance(judge, ScorerJudge)
    assert isinstance(judge.scorer, OnnxScorer)
    for scorer in (judge.scorer, OnnxScorer(graph, batch_tokens=1)):
        found = [s.value for scores in scorer.score(ASKED) for s in scores]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.std(expected) > 0.05


@pytest.mark.slow
def test_the_folder_is_what_servers_of_onnx_look_for(checkpoint: Path, graph: Path) -> None:
    names = {path.name for path in graph.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "README.md"} <= names
    assert not [name for name in names if "safetensors" in name]
    config = json.loads((graph / "config.json").read_text())
    assert config["palate"]["safety_head"] is None
    assert "attributes" not in config["palate"], "the graph has no such heads"
    card = (graph / "README.md").read_text()
    assert "onnxruntime.InferenceSession" in card
    assert "AutoModelForSequenceClassification" not in card
    assert "## Origin" in card
    session = OnnxScorer(graph)._session
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [value.name for value in session.get_outputs()] == ["logits"]


@pytest.mark.slow
def test_the_card_runs_where_it_lies(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(graph)
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["rewards"].shape == (1, 1)


@pytest.mark.slow
def test_parity_reads_the_graph_and_catches_a_wrong_one(checkpoint: Path, graph: Path) -> None:
    words = ["parity", str(checkpoint), "--n", "4", "--format", "json", "--with", str(graph)]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert (
        json.loads(found.stdout)[-1] | {"way": "ONNX Runtime: graph", "verdict": "same"}
        == (json.loads(found.stdout)[-1])
    )
    other = export(
        tiny_reward_model("llama"), checkpoint.with_name("other"), card=Card("o", "o", "0")
    )
    words[1] = str(other)
    assert isinstance(CliRunner().invoke(app, words).exception, PalateError)


def test_a_graph_that_is_none_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    for path in checkpoint.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(PalateError, match=r"model.onnx: cannot be opened"):
        OnnxScorer(tmp_path)


def test_export_refuses_what_would_go_wrong(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    for words, message in [
        (["--to", str(checkpoint)], "would replace its own model"),
        (["--to", str(tmp_path / "mine")], "is something else than a model"),
        (["--to", str(tmp_path / "mine/thesis.tex")], "is something else than a model"),
        (["--to", str(tmp_path / "x"), "--format", "onnx", "--dtype", "bfloat16"], "is float32"),
        (["--to", str(tmp_path / "x"), "--base", "y"], "a whole model, not an adapter"),
    ]:
        found = CliRunner().invoke(app, ["export", str(checkpoint), *words])
        assert isinstance(found.exception, PalateError)
        assert message in str(found.exception)
    assert (tmp_path / "mine/thesis.tex").read_text() == "years of work"


def test_missing_packages_are_told_at_once_with_the_command_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the model is opened: here there is none."""
    for name in ("onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)  # As Python sees what is not installed.
    to = tmp_path / "graph"
    words = ["export", "no/model", "--to", str(to), "--format", "onnx"]
    said = str(CliRunner().invoke(app, words).exception)
    assert said.startswith("--format onnx: not installed: onnxscript, onnxruntime; run: ")
    python, dash_m, pip, install, *packages = shlex.split(said.partition("run: ")[2])
    assert (python, dash_m, pip, install) == (sys.executable, "-m", "pip", "install")
    named = {Requirement(package).name: Requirement(package) for package in packages}
    assert named.keys() == set(EXTRAS["onnx"])  # Neither Palate nor a path of this machine.
    assert all(version(name) in requirement.specifier for name, requirement in named.items())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_has_a_command_and_names_only_packages(extra: str) -> None:
    packages = shlex.split(install_command(extra))[4:]
    assert packages
    assert all(Requirement(package).name != "palate" for package in packages)


def test_export_again_keeps_card_facts_and_rewards(checkpoint: Path, tmp_path: Path) -> None:
    to = tmp_path / "again"
    words = ["export", str(checkpoint), "--to", str(to), "--dtype", "bfloat16"]
    found = CliRunner().invoke(app, [*words, "--max-shard-size", "20KB"])
    assert found.exit_code == 0, found.output
    assert (to / "README.md").read_bytes() == (checkpoint / "README.md").read_bytes()
    assert (to / "model.safetensors.index.json").is_file()
    before, after = (json.loads((f / "config.json").read_text()) for f in (checkpoint, to))
    assert after["palate"] == before["palate"]
    assert after["dtype"] == after["torch_dtype"] == "bfloat16"
    words = ["parity", str(checkpoint), "--n", "4", "--format", "json", "--with", str(to)]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    row = json.loads(found.stdout)[-1]
    assert row["way"] == "transformers: again, stored as torch.bfloat16"
    assert row["largest"] > 0
