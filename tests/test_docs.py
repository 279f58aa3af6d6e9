"""The README's, the docs' and the card's code runs, and what they name exists."""

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pyarrow.parquet
import pytest
import torch
import typer.main
import yaml
from typer.testing import CliRunner

from palate.cli import app
from palate.recipe import built_in, load_recipe, run
from palate.recipe.schema import validate
from palate.records import read_header
from server import live, server_of
from tiny import save_tiny

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "sh", "yaml", "text"}  # A block of any other would be looked at by nobody.
SERVER = "http://127.0.0.1:8000"

# What is not run, by the first reason that fits, and where it is run instead. Every command of
# Palate's own is at least read by its own parser.
LONG = "minutes to hours; tests/recipe/test_run.py and tests/recipe/test_study.py run small ones"
UNTIL_STOPPED = "runs until it is stopped; tests/serve, tests/view"
HUB = (
    "needs a model or repository of a hub; tests/model/test_export.py, tests/model/test_loading.py"
)
OTHERS = "another program, which is not installed here"
NOT_RUN = {
    r"^palate judge \S+ (rewardbench-2\s*$|llmbar=|best-of-k=)": "a benchmark of the hub, or of "
    "another repository; tests/cli/test_benchmarks.py",
    r"palate (run|mix|train|evaluate|demo)\b.*\b(llama2|margin|scaling|my\.yaml)\b": LONG,
    r"palate (run|train|demo)\b": LONG,
    r"palate view .*--export": "there are no marks yet; tests/explorer/test_annotations.py",
    r"palate report runs/margin": "a study; tests/recipe/test_study.py",
    r"palate (next|loop)\b|--round |rounds/": "a pool and answers of people; tests/labels",
    r"palate (serve|view)\b": UNTIL_STOPPED,
    r"palate push\b(?!.*--dry-run)|--base Qwen|OpenAssistant/": HUB,
    r"--format onnx|--with safety-onnx": "half a minute of tracing; tests/model/test_onnx.py",
    r"--format adapter": "the demo learns all its weights; tests/model/test_adapters.py",
    r"--engine |palate engines install": "environments of others; tests/engines",
    r"--url ": "needs a server; tests/evaluate/test_parity.py",
    r"palate compare .*rewardbench-2": "verdicts on a benchmark of the hub; "
    "tests/evaluate/test_compare.py",
    r"palate parity .*--items rewardbench-2": "a benchmark of the hub; "
    "tests/evaluate/test_parity.py",
    r"palate audit .*--data DIR": "reads public data; tests/cli/test_audit.py",
    r"palate (judge|probe|win-rate) '\{chat:": "asks an endpoint; tests/judges/llm",
    r"palate (win-rate|probe) longer": "reads public data; tests/cli/test_judging.py",
    r"palate doubt\b": "a backbone over all rows; tests/labels/test_doubt.py",
    r"palate doctor|palate plan": "speaks of this machine; tests/cli",
    r"torchrun ": "several processes; tests/recipe/test_distributed.py",
    r"curl ": "needs a server; tests/serve/test_protocols.py asks the same",
    r"palate judge '\{run-batch:": "ends where the batch begins; tests/judges/test_run_batch.py",
    r"make |source ": "what made the environment of these tests",
    r"python (examples/trl_grpo|-m openrlhf|-m verl)|\.\.\. --rm-type": OTHERS,
    r"inspect eval |python examples/lm_eval_reward": OTHERS,
    r"vllm |python -m sglang|text-embeddings-router|mlflow |llama-server ": OTHERS,
    r"systemctl ": "needs systemd; tests/serve/test_app.py passes a socket as it does",
    r"export HF_TOKEN": "a secret",
}
PYTHON_NOT_RUN = {
    "from peft import": "needs an adapter; tests/model/test_adapters.py",
    "from trl import": "TRL is not installed here; tests/client/test_trl.py",
    "import cohere": "clients that are not installed here; tests/client/test_stacks.py",
    "import mlflow": "an environment of its own; tests/client/test_stacks.py",
    "import onnxruntime": "needs a graph, half a minute of tracing; tests/model/test_onnx.py",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> Iterator[str]:
    """The commands of a page, each on one line, without its comment."""
    for block in blocks(page, "sh"):
        joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)(^|\s)#.*$", "", block))
        # What curl sends goes over several lines, in one pair of quotes.
        for command in re.findall(r"(?:'[^']*'|[^'\n])+", joined):
            if command.strip():
                yield command.strip()


def words_of(command: str) -> list[str] | None:
    """The words behind `palate`, also where the shell or torchrun starts it; None: not Palate's."""
    inner = re.search(r"\$\((palate .*)\)", command)
    words = shlex.split(inner[1] if inner else command)
    words = words[: words.index(">")] if ">" in words else words
    if words[:1] == ["torchrun"] and "palate" in words:
        return words[words.index("palate") + 1 :]
    return words[1:] if words[:1] == ["palate"] else None


def reason(command: str) -> str | None:
    return next((why for fits, why in NOT_RUN.items() if re.search(fits, command)), None)


def parse(words: list[str]) -> None:
    """Read a command line as Palate would, without doing anything."""
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("palate", list(words))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A folder in which the docs' commands find what they name: a small whole run, and files."""
    folder = tmp_path_factory.mktemp("docs")
    base = save_tiny(folder / "tiny", "llama", num_hidden_layers=1)
    options = "data.sources.campaign-{}.options.comparisons_per_week=30"
    small = [
        f"backbone.model={base}", "backbone.layers=null", "train.epochs=1", "train.trackers=[]",
        "train.trainable.last_layers=null", "data.holdout.per_batch=6",
        options.format("helpfulness"), options.format("safety"),
        "over_optimisation.prompts=2", "over_optimisation.responses=8",
    ]  # fmt: skip
    demo = run(load_recipe("demo", small, environment={}), folder / "runs/demo", say=lambda _: None)
    for name in ("llama2", "one-epoch", "two-epochs", "mine"):
        shutil.copytree(demo, folder / "runs" / name)
    (folder / "runs/mine/models/mine").symlink_to(demo / "models/safety")
    (folder / "model").symlink_to(demo / "models/safety")
    example("own_data").main(folder)
    held_out = demo / "benchmarks/held-out helpfulness.parquet"
    for name in ("held-out", "mine", "hh", "pairs", "runs/data/helpful-base"):
        target = folder / f"{name}.parquet"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(held_out, target)
    for name, judge in (("old", "longer"), ("new", "shorter")):
        (folder / name / "verdicts").mkdir(parents=True)
        verdicts = demo / f"verdicts/{judge}--held-out-helpfulness.parquet"
        shutil.copy(verdicts, folder / name / "verdicts/rm--hh.parquet")
    trained = ["train", str(folder / "mine.parquet"), "--out", str(folder / "my-ensemble")]
    for option in (*small[:4], "train.ensemble=2"):
        trained += ["--set", option]
    assert CliRunner().invoke(app, trained).exit_code == 0
    rows = [(f"What is {n} plus 1?", f"{n + k}.") for n in range(6) for k in range(3)]
    flat = [{"prompt": prompt, "response": response} for prompt, response in rows]
    write_lines(folder / "flat.jsonl", flat)
    write_lines(folder / "responses.jsonl", flat)
    scored = ["score", str(folder / "model"), str(folder / "responses.jsonl"), "-o"]
    assert CliRunner().invoke(app, [*scored, str(folder / "rewards.jsonl")]).exit_code == 0
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), folder / "answers.parquet")
    asked = dict.fromkeys(prompt for prompt, _ in rows)
    samples = [{"prompt": p, "responses": [r for q, r in rows if q == p]} for p in asked]
    write_lines(folder / "samples.jsonl", samples)
    return folder


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    """The README's code on the README's recipe, of a tiny base and of fewer comparisons."""
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load(blocks(ROOT / "README.md", "yaml")[0])
    base = save_tiny(tmp_path / "tiny", "llama", num_hidden_layers=1)
    recipe |= {"backbone": {"model": str(base)}, "train": {"epochs": 1, "trackers": []}}
    recipe["data"]["holdout"]["per_batch"] = 20
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    for week in (1, 2):
        rows = [
            {"prompt": f"{week}: what is {n}?", "chosen": f"It is {n}.", "rejected": "Who knows?"}
            for n in range(60)
        ]
        write_lines(tmp_path / f"week-{week}.jsonl", rows)
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    accuracy, reward = capsys.readouterr().out.splitlines()
    assert "n=40" in accuracy
    assert [float(value) for value in json.loads(reward)] == names["model"].score(
        [("How do I bake bread?", "Mix flour, water, salt and yeast.")]
    )
    again = names["RewardModel"].from_pretrained("mine-rm")
    pair = [("Bread?", "Flour.")]
    assert again.score(pair) == names["model"].score(pair)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_is_of_a_language_that_is_looked_at(page):
    opened = re.findall(r"(?m)^[ >]*```(\w*)[^\n]*\n(?:.*?)^[ >]*```", page.read_text(), re.DOTALL)
    assert set(opened) - {""} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_recipes_in_the_docs_are_valid(page):
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block)
        if "models" in values:
            assert validate(values).models


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_docs_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(page):
        if (words := words_of(command)) is not None:
            parse(words)
            if words[0] in ("run", "mix", "train", "plan") and not Path(words[1]).suffix:
                assert words[1] in built_in(), command
        elif command.startswith("make "):
            assert re.search(rf"(?m)^{command.split()[1]}:", makefile), command
        elif command.startswith("python examples/"):
            assert (ROOT / command.split()[1]).is_file()
        else:
            assert reason(command), command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_docs_run(page, request, monkeypatch):
    asked = [command for command in commands(page) if reason(command) is None]
    if not asked:
        pytest.skip("no command that can be run here")
    monkeypatch.chdir(request.getfixturevalue("workspace"))
    for command in asked:
        done = CliRunner().invoke(app, words_of(command))
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"


def test_every_reason_not_to_run_a_command_is_needed():
    every = [command for page in PAGES for command in commands(page)]
    assert [fits for fits in NOT_RUN if not any(re.search(fits, c) for c in every)] == []
    code = "\n".join(block for page in PAGES for block in blocks(page, "python"))
    assert [first for first in PYTHON_NOT_RUN if first not in code] == []


@pytest.fixture(scope="module")
def server(workspace) -> Iterator[str]:
    models = {
        name: str(workspace / "runs/demo/models" / name) for name in ("helpfulness", "safety")
    }
    with live(server_of(models)) as running:
        yield running.url


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda p: p.name)
def test_python_in_the_docs_runs(page, request, monkeypatch, tmp_path):
    """Or, where it cannot be run, names nothing that is undefined."""
    if not blocks(page, "python"):
        pytest.skip("no Python on this page")
    monkeypatch.chdir(request.getfixturevalue("workspace"))
    for number, code in enumerate(blocks(page, "python")):
        if any(first in code for first in PYTHON_NOT_RUN):
            path = tmp_path / f"{number}.py"
            path.write_text(code)
            check = [
                sys.executable,
                "-m",
                "ruff",
                "check",
                "--isolated",
                "--select=F821",
                str(path),
            ]
            done = subprocess.run(check, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout
            continue
        if SERVER in code:
            code = code.replace(SERVER, request.getfixturevalue("server"))
        exec(compile(code, page.name, "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("name", ["helpfulness", "safety"])
def test_the_card_runs_where_it_lies_and_gives_the_reward(name, workspace, monkeypatch):
    from palate.model.loading import load_reward_model
    from palate.types import Message

    folder = workspace / "runs/demo/models" / name
    monkeypatch.chdir(folder)
    (code,) = blocks(Path("README.md"), "python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    model = load_reward_model(folder)
    encoded = model.chat.encode((Message("user", "Hello"),), "Hello, you!")
    with torch.no_grad():
        expected = model.forward_padded([encoded.ids]).reward.item()
    assert names["reward"] == pytest.approx(expected, abs=1e-4)


def test_the_readme_is_short_and_says_where_the_command_is():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    assert (
        text.index("make demo") < text.index("source .venv/bin/activate") < text.index("| judge |")
    )
    assert "source $(BIN)/activate" in (ROOT / "Makefile").read_text()


def test_the_file_map_of_the_readme_is_true():
    (tree,) = re.findall(
        r"```\nsrc/palate/\n(.*?)docs/", (ROOT / "README.md").read_text(), re.DOTALL
    )
    for line in tree.splitlines():
        assert (ROOT / "src/palate" / line.split()[0]).exists(), line


def test_example_own_data(tmp_path):
    folder = example("own_data").main(tmp_path)
    assert read_header(folder / "mixtures/all.parquet").rows == 80


def test_example_judge(tmp_path):
    run = example("own_data").main(tmp_path)
    estimate = example("judge").main(run / "benchmarks/held-out.parquet", tmp_path / "verdicts")
    assert estimate.n == 20


@pytest.mark.slow  # A training and a server: fifteen seconds.
def test_example_from_a_frame(tmp_path):
    """The notebook's cells in a process of their own, of a tiny base; it is kept unrun."""
    notebook = json.loads((ROOT / "examples/from_a_frame.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    base = save_tiny(tmp_path / "tiny", "llama", num_hidden_layers=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    small = [f"backbone.model={base}", "train.epochs=1", "train.trackers=[]"]
    # As papermill does: what is given stands after the cell that is tagged so.
    given = f"overrides = {small!r}; port = {port}\n"
    sources = ["".join(cell["source"]) for cell in code]
    (parameters,) = (n for n, c in enumerate(code) if "parameters" in c["metadata"].get("tags", []))
    sources.insert(parameters + 1, given)
    found = "print(repr((here, served, [one.judgement.decides for one in comparisons])))\n"
    (tmp_path / "cells.py").write_text("\n".join([*sources, found]))
    out, errors = tmp_path / "out", tmp_path / "errors"  # Files: a pipe would end with the server.
    with out.open("w") as stdout, errors.open("w") as stderr:
        cells = subprocess.Popen(
            [sys.executable, "cells.py"], cwd=tmp_path, stdout=stdout, stderr=stderr,
            start_new_session=True,
        )  # fmt: skip
        try:
            assert cells.wait() == 0, errors.read_text()
        finally:
            with suppress(ProcessLookupError):  # The server too, where a cell failed.
                os.killpg(cells.pid, signal.SIGKILL)
    here, served, decided = ast.literal_eval(out.read_text().splitlines()[-1])
    assert served == pytest.approx(here, rel=1e-5, abs=1e-6)
    assert len(set(served)) == 2
    assert len(decided) == 300
    assert 80 < decided.count("tie") < 160
    assert "ready at http://127.0.0.1" in errors.read_text()
