"""The README's and the docs' code runs, and what they name exists."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from palate.recipe import built_in
from palate.recipe.schema import validate
from palate.records import read_header

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The same code on a smaller campaign.
    (code,) = blocks(ROOT / "README.md", "python")
    small = '["data.sources.campaign-helpfulness.options.comparisons_per_week=60", '
    small += '"data.sources.campaign-safety.options.comparisons_per_week=60", '
    small += '"data.holdout.per_batch=10", '
    exec(compile(code.replace('["train.epochs', small + '"train.epochs'), "README.md", "exec"), {})
    assert capsys.readouterr().out
    assert read_header(tmp_path / "runs/mine/mixtures/safety.parquet").rows > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_recipes_in_the_docs_are_valid(page):
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block)
        if "models" in values:
            assert validate(values).models


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_docs_exist(page):
    from palate.cli import app

    groups = {"data": {"list", "show", "lint", "import"}, "recipes": {"list", "show", "schema"}}
    groups |= {"tokens": {"add", "revoke", "list"}}
    verbs = {command.name for command in app.registered_commands} | set(groups)
    for line in "\n".join(blocks(page, "sh")).splitlines():
        words = line.split("#")[0].split()
        if words[:1] != ["palate"]:
            continue
        assert words[1] in verbs, line
        if words[1] in groups:
            assert words[2] in groups[words[1]], line
        if words[1] in ("run", "mix", "train", "evaluate") and not Path(words[2]).suffix:
            assert words[2] in built_in() or words[1] == "evaluate", line


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
