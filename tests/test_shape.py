"""The shape of the house: layers, and rooms that open without torch."""

import json
import subprocess
import sys
from pathlib import Path

from packed import tiny_reward_model
from palate.model.export import Card, export

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = (
    "palate.types",
    "palate.records",
    "palate.stats",
    "palate.data.sources",
    "palate.data.lint",
    "palate.data.contamination",
    "palate.data.split",
    "palate.data.mixture",
    "palate.data.simulation",
    "palate.evaluate.metrics",
    "palate.evaluate.run",
    "palate.report",
    "palate.explorer.app",
    "palate.recipe",
    "palate.labels.round",
    "palate.labels.selection",
    "palate.cli",
)
HEAVY = ("torch", "transformers")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_layers_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_everything_but_models_and_training_opens_without_torch():
    code = f"""
import importlib, sys
for name in {WITHOUT_TORCH!r}:
    importlib.import_module(name)
    heavy = [h for h in {HEAVY!r} if h in sys.modules]
    assert not heavy, f"{{name}} imports {{heavy}}"
"""
    done = python(code)
    assert done.returncode == 0, done.stderr.splitlines()[-1:]


def test_the_command_line_opens_without_anything_heavy():
    heavy = ("torch", "transformers", "datasets", "pyarrow", "scipy", "pydantic", "numpy")
    done = python(f"import sys, palate.cli; print([h for h in {heavy!r} if h in sys.modules])")
    assert done.stdout.strip() == "[]", done


def test_commands_import_only_what_they_use(tmp_path: Path):
    """Each of these takes a second or a part of one to import, and none scores or trains a row.

    transformers itself brings scipy.optimize, and pyarrow pandas where it makes columns of lists.
    """
    model = export(tiny_reward_model("llama").eval(), tmp_path / "m", card=Card("m", "tiny", "0"))
    rows = [{"prompt": f"Salt {n}?", "responses": ["Yes."]} for n in range(2)]
    pairs = [{"prompt": f"Salt {n}?", "chosen": "Yes.", "rejected": "No, none."} for n in range(8)]
    for name, values in (("rows", rows), ("pairs", pairs)):
        text = "".join(json.dumps(value) + "\n" for value in values)
        (tmp_path / f"{name}.jsonl").write_text(text)
    training = f"train pairs.jsonl --out trained --set base.model={model} --set train.epochs=1"
    code = f"""
import sys
from palate.cli import main

def run(command, *without):
    sys.argv = ["palate", *command.split()]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
    loaded = [name for name in without if name in sys.modules]
    assert not loaded, (command.split()[0], loaded)

unused = (
    "datasets", "datasketch", "duckdb", "palate.explorer", "palate.report", "scipy.stats", "sklearn"
)
data = ("palate.recipe", "palate.stats", "palate.data.simulation", "palate.data.contamination")
scoring = (*unused, *data, "pandas", "palate.train.loop", "tensorboard")
run("--help", *scoring, "torch", "numpy", "pyarrow")
run("score {model} rows.jsonl -o scored.jsonl -q", *scoring, "fastapi")
run("rank {model} rows.jsonl -o ranked.jsonl -q", *scoring, "fastapi")
from palate.serve import app
app.run = lambda *_: None  # Not to wait for requests.
run("serve {model} --port 0", *scoring)
run("{training} -q", *unused, "palate.data.contamination", "palate.data.simulation")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
