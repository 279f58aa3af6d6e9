"""The command line: what a user types, what they get, and one line where they are mistaken."""

import csv
import gzip
import json
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from command import PALATE, one_line, palate
from palate.records import read_header


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"What is {n} plus one?", "chosen": f"{n + 1}", "rejected": f"{n}, I believe"}
        for n in range(60)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipe(tmp_path: Path, mine: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(f"""
data:
  sources: {{week-1: {{source: own, path: {mine}}}}}
  holdout: {{per_batch: 10, sources: [week-1]}}
benchmarks: {{held-out: {{held_out: [week-1]}}}}
mixtures: {{all: {{all: [week-1]}}}}
judges: [random, longer, shorter, first]
""")
    return path


def test_help_is_fast():
    start = time.perf_counter()
    assert subprocess.run([PALATE, "--help"], capture_output=True).returncode == 0
    assert time.perf_counter() - start < 10  # A loaded machine; about 0.4 s on an idle one.


def test_version():
    assert palate("--version").stdout.startswith("palate 0.")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "lama2"], "did you mean 'llama2'"),
        (["run", "demo", "--judges", "longr"], "--judges: no judge 'longr'; did you mean 'longer'"),
        (["mix", "demo", "--set", "train.epoch=2"], "train.epoch: unknown key; did you mean"),
        (["mix", "demo", "--set", "train.epochs"], "KEY.KEY=VALUE, such as train.epochs=VALUE"),
        (
            ["mix", "demo", "--set", "data.sources.mine.source=own"],
            "data.sources.mine.path: own reads a file or folder of yours, got none; --set data.so",
        ),
        (["filter", "rows.jsonl"], "expected one of --min-reward and --top-percent, got none"),
        (["parity", "/etc"], "/etc: no config.json"),
        (["train", "demo", "--ties", "keep"], "in a recipe they are keys of data.sources.NAME"),
        (["data", "show", "shpp"], "did you mean 'shp'"),
        (["data", "lint", "nothing.jsonl"], "nothing.jsonl"),
        (["report", "nowhere"], "nowhere: no such run"),
        (["train", "nowhere.parquet"], "add --out"),
        (["train", "nowhere.parquet", "--out", "m"], "nowhere.parquet: no such file"),
        (["evaluate", "longer", "--benchmark", "x", "--judges", "all"], "WHAT is the judge"),
        (["evaluate", "longer", "--benchmark", "nowhere.parquet"], "nowhere.parquet: no such"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(tmp_path, arguments, expected):
    assert expected in one_line(palate(*arguments, cwd=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("next x --budget 20 --test-set 1e300", "--test-set: expected a number of at most 1e+15,"),
        (
            f"next x --budget 1{'0' * 400}",
            "--budget: expected a number of at most 9.2e+18, got 401",
        ),
        ("filter x --min-reward nan", "--min-reward: expected a number of at most 1e+15, got nan"),
        ("data export-tasks x --for potato -o y --seed -99999999999999999999", "got 20 digits"),
    ],
)
def test_numbers_beyond_counting_are_not_repeated(arguments: str, expected: str) -> None:
    line = one_line(palate(*arguments.split()))
    assert expected in line
    assert len(line) < 100


def test_a_usage_error_is_exit_code_2(tmp_path):
    assert palate("mix", cwd=tmp_path).returncode == 2
    assert palate("mixx", cwd=tmp_path).returncode == 2
    for more in (["plan", "x", "--gpus", 10**15], ["doubt", "x", "--members", 10**9]):
        assert palate(*more).returncode == 2, "no count of hours or of all memory"


def test_formats_are_parseable(tmp_path):
    sources = json.loads(palate("data", "list", "--format", "json").stdout)
    assert {"anthropic-hh", "own", "simulated"} <= {row["source"] for row in sources}
    lines = palate("data", "list", "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("source,")
    assert len(lines) == len(sources) + 1
    schema = json.loads(palate("recipes", "schema").stdout)
    assert "benchmarks" in schema["properties"]


def test_import_and_lint_a_file_of_your_own(tmp_path, mine):
    with mine.open("a") as file:
        file.write(json.dumps({"prompt": "Same?", "chosen": "yes", "rejected": "yes"}) + "\n")
    done = palate("data", "import", mine, "--out", tmp_path / "mine.parquet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert read_header(tmp_path / "mine.parquet", "comparisons").rows == 61
    done = palate("data", "lint", mine, "--format", "json")
    assert [(r["kind"], r["findings"]) for r in json.loads(done.stdout)] == [
        ("identical-replies", 1)
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "a", "chosen": "b"', "mine.jsonl:61"),
        ('{"prompt": "a", "chosen": "b"}', "mine.jsonl:61"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "rating": "best"}', "rating"),
    ],
)
def test_bad_rows_past_the_share_stop_with_file_and_row(tmp_path, mine, line, expected):
    with mine.open("a") as file:
        file.write(line + "\n")
    out = tmp_path / "mine.parquet"
    done = palate("data", "import", mine, "--out", out)
    *said, last = done.stderr.splitlines()  # Which columns are read is said before.
    assert (done.returncode, len(said)) == (1, 1)
    assert last.startswith("palate: ")
    assert expected in last
    assert not out.exists()
    done = palate("data", "import", mine, "--out", out, "--max-bad-share", "0.5")
    assert done.returncode == 0
    assert "1 rows not read" in done.stderr
    assert expected in done.stderr


def test_an_empty_file_is_one_line(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert "empty" in one_line(palate("data", "import", empty, "--out", tmp_path / "x.parquet"))


def test_stages_one_after_the_other_and_nothing_twice(tmp_path, recipe):
    out = tmp_path / "run"
    done = palate("mix", recipe, "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Shares asked and achieved" in done.stdout
    done = palate("evaluate", recipe, "--out", out, "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = {r["judge"]: r for r in json.loads(done.stdout)}
    assert counts["shorter"]["correct"] == 10
    done = palate("run", recipe, "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " ...\n" not in done.stderr.replace("report ...\n", "")
    assert len(done.stdout.splitlines()) < 15, "the tables are `palate report`'s"
    for said in (
        "No model was judged",
        "report.html",
        f"palate report {out}",
        f"palate view {out}",
    ):
        assert said in done.stdout
    assert (out / "tables" / "table-7.md").is_file()
    assert "Table 7" in palate("report", out, cwd=tmp_path).stdout
    log = (out / "log.txt").read_text()
    assert log.count("palate run") == 1
    assert "judge/longer--held-out" in log
    quiet = palate("run", recipe, "--out", out, "--no-resume", "--quiet", cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_a_changed_option_makes_again_only_what_hangs_on_it(tmp_path, recipe):
    out = tmp_path / "run"
    assert palate("run", recipe, "--out", out).returncode == 0
    done = palate("run", recipe, "--out", out, "--set", "judging.order=both")
    assert "hold-out: unchanged" in done.stderr
    assert "judge/longer--held-out ..." in done.stderr


def test_a_damaged_file_is_made_again(tmp_path, recipe):
    out = tmp_path / "run"
    assert palate("mix", recipe, "--out", out).returncode == 0
    clean = out / "data" / "clean" / "week-1.parquet"
    clean.write_bytes(clean.read_bytes()[:100])
    done = palate("mix", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "lint/week-1 ..." in done.stderr
    assert "import/week-1: unchanged" in done.stderr


def test_judges_left_out_of_the_recipe_leave_the_tables(tmp_path, recipe):
    out = tmp_path / "run"
    assert palate("run", recipe, "--out", out).returncode == 0
    done = palate("run", recipe, "--out", out, "--set", "judges=[random]")
    assert "Longer wins" not in done.stdout
    assert (out / "verdicts" / "unused" / "longer--held-out.parquet").is_file()


def test_one_judge_on_a_file(tmp_path, recipe):
    assert palate("mix", recipe, "--out", tmp_path / "run").returncode == 0
    benchmark = tmp_path / "run" / "benchmarks" / "held-out.parquet"
    done = palate(
        "evaluate", "longer", "--benchmark", benchmark, "--out", tmp_path / "v", "--format", "json"
    )
    (row,) = json.loads(done.stdout)
    assert (row["n"], row["accuracy"]) == (10, 0.0)


def test_the_saved_recipe_runs_again(tmp_path, recipe):
    assert palate("run", recipe, "--out", tmp_path / "a").returncode == 0
    done = palate("run", tmp_path / "a" / "recipe.yaml", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    tables = [(tmp_path / run / "tables" / "table-7.md").read_text() for run in "ab"]
    assert tables[0] == tables[1]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, recipe):
    from palate.recipe.cache import locked

    with locked(tmp_path / "run"):
        assert "another run" in one_line(palate("mix", recipe, "--out", tmp_path / "run"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, recipe):
    (tmp_path / "file").touch()
    assert "--out" in one_line(palate("mix", recipe, "--out", tmp_path / "file" / "run"))


def heeds_ctrl_c() -> None:
    """A shell starts what runs in its background with Ctrl-C ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_is_130_with_how_to_go_on(tmp_path, recipe):
    big = "data.sources.week-1={source: simulated, path: null, options: {weeks: 500}}"
    command = [PALATE, "mix", recipe, "--out", tmp_path / "run", "--set", big]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_ctrl_c)
    assert "import" in process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "resume with: palate mix" in errors
    assert not list((tmp_path / "run" / "data").rglob("*.partial"))


def test_doctor_says_what_is_there(tmp_path):
    done = palate("doctor", "--format", "json", "--data", tmp_path)
    findings = {row["what"]: row for row in json.loads(done.stdout)}
    assert findings["torch"]["state"] == "ok"
    assert findings["data root"]["found"] == str(tmp_path)
    missing = palate("doctor", PALATE_DATA=str(tmp_path / "nowhere"))
    assert missing.returncode == 1


def test_data_list_says_what_is_here_and_what_was_tried(tmp_path):
    (tmp_path / "diasafety").mkdir()
    done = palate("data", "list", "--data", tmp_path, "--format", "json")
    rows = {row["source"]: row for row in json.loads(done.stdout)}
    assert rows["diasafety"]["here"] == str(tmp_path / "diasafety")
    assert rows["stackexchange"]["here"] == "no"
    assert rows["simulated"]["here"] == "made here"
    assert "hand-made" in rows["shp"]["tried on"]


def test_a_recipe_without_its_ending_names_the_file(recipe):
    assert "did you mean 'mine.yaml'?" in one_line(palate("run", "mine", cwd=recipe.parent))


def commands() -> list[list[str]]:
    """Every command as it is typed, groups included."""
    from typer.main import get_command

    from palate.cli import app

    root = get_command(app)
    groups = {name: list(getattr(c, "commands", {})) for name, c in root.commands.items()}
    return [
        [],
        *([name, *rest] for name, inner in groups.items() for rest in [[], *([i] for i in inner)]),
    ]


COMMANDS = commands()
GROUPS = [command for command in COMMANDS if any(command == inner[:-1] for inner in COMMANDS)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_by_an_example_fits_80_columns_and_breaks_no_sentence(command):
    done = palate(*command, "--help", COLUMNS="80", TERMINAL_WIDTH="80")
    assert done.returncode == 0, done.stderr
    if command not in GROUPS:
        assert f"palate {' '.join(command)}" in " ".join(done.stdout.replace("│", " ").split())
        assert "Example" in done.stdout
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout, "a word is cut"
    said = [line.strip() for line in lines[: next(n for n, x in enumerate(lines) if "╭" in x)]]
    for line, following in pairwise(said):
        if line and following and not following.startswith("palate "):
            word = following.split()[0]
            assert len(f" {line} {word}") > 79, f"broken before {word!r}: {line}"


def test_completion_lists_the_recipes(tmp_path):
    words = {"_PALATE_COMPLETE": "complete_bash", "COMP_WORDS": "palate run ll", "COMP_CWORD": "2"}
    done = palate(cwd=tmp_path, **words)
    assert done.stdout.split() == [
        "llama2", "llama2-frozen", "llama2-full", "llama2-margin", "llama2-modern",
        "llama2-small", "llama2-two-epochs",
    ]  # fmt: skip


def in_format(mine: Path, form: str) -> Path:
    """The rows of `mine` in another format, beside it."""
    rows = [json.loads(line) for line in mine.read_text().splitlines()]
    path = mine.with_suffix(form)
    if form == ".jsonl":
        return mine
    if form == ".json":
        path.write_text(json.dumps(rows))
    elif form == ".jsonl.gz":
        path.write_bytes(gzip.compress(mine.read_bytes()))
    elif form == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if form == ".tsv" else ";")
            writer.writeheader()
            writer.writerows(rows)
    return path


FORMATS = [".csv", ".parquet", ".jsonl.gz"]
ALIKE = [pytest.param(form, marks=pytest.mark.slow) for form in (".jsonl", ".json", ".tsv")]


@pytest.mark.parametrize("form", FORMATS + ALIKE)
def test_every_command_takes_every_format_that_import_takes(
    mine: Path, form: str, tmp_path: Path
) -> None:
    path = in_format(mine, form)
    for judge in ("longer", "random"):
        done = palate("judge", judge, path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    verdicts = sorted((tmp_path / "verdicts").glob("*.parquet"))
    done = palate("compare", *verdicts, "--items", path, "--flips", "flips.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flips.jsonl").read_text()
    # Read, and a model is looked for.
    options = ["--watch", path, "--out", "m", "--set", "backbone.model=./nowhere"]
    assert "nowhere" in palate("train", path, *options, cwd=tmp_path).stderr
    assert read_header(tmp_path / "m.train/data/mine.parquet", "comparisons").rows == 60


def test_train_replaces_a_model_and_nothing_else(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    thesis = tmp_path / "work/thesis.tex"
    thesis.write_text("years of work")
    for out in ("work", "work/thesis.tex"):
        line = one_line(palate("train", mine, "--out", out, cwd=tmp_path))
        assert line.startswith(f"palate: {out}: is something else than a model; name another")
    assert "the name of a folder" in one_line(palate("train", mine, "--out", ".", cwd=tmp_path))
    assert thesis.read_text() == "years of work"
    assert not list(tmp_path.rglob("*.train"))


@pytest.mark.parametrize(
    "arguments", [["data", "inspect"], ["data", "import"], ["data", "lint"]], ids=" ".join
)
def test_no_result_replaces_the_file_that_it_is_of(mine: Path, arguments: list[str]) -> None:
    before = mine.read_bytes()
    line = one_line(palate(*arguments, mine.name, "--out", mine, cwd=mine.parent))
    assert line == f"palate: {mine}: the result would replace its input; name another file\n"
    assert mine.read_bytes() == before


def test_two_files_of_one_name_are_not_taken_for_one(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = tmp_path / "second" / mine.name
    second.write_bytes(mine.read_bytes())
    for words in (
        ["judge", "longer", mine, second],
        ["train", mine, "--out", "m", "--watch", mine, "--watch", second],
    ):
        line = one_line(palate(*words, cwd=tmp_path))
        assert "results are kept by the name 'mine', which both have; rename one" in line
    assert not list(tmp_path.glob("verdicts"))


def test_train_reads_a_file_as_import_does(tmp_path: Path) -> None:
    rows = [{"q": f"{n}?", "l": "yes", "r": "no", "w": ("l", "r", "both")[n % 3]} for n in range(9)]
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    roles = {"prompt": "q", "response_a": "l", "response_b": "r", "winner": "w"}
    mapped = [word for pair in roles.items() for word in ("--column", "=".join(pair))]
    mapped += ["--value", "l=a", "--value", "r=b", "--value", "both=both_bad", "--ties", "keep"]
    options = ["--out", "m", "--watch", path, "--set", "backbone.model=./nowhere"]
    assert "nowhere" in palate("train", path, *mapped, *options, cwd=tmp_path).stderr
    done = palate("data", "import", path, *mapped, "--out", "imported.parquet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = read_header(tmp_path / "imported.parquet", "comparisons")
    assert expected.rows == 9
    for name in ("votes", "watched/votes"):
        header = read_header(tmp_path / f"m.train/data/{name}.parquet", "comparisons")
        assert header.fingerprint == expected.fingerprint


def test_a_file_without_rows_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,chosen,rejected\n")
    done = palate("judge", "longer", "rows.csv", cwd=tmp_path)
    assert "rows.csv: expected rows, found a header and none below it" in one_line(done)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_data_in_the_place_of_a_recipe_is_named(mine: Path) -> None:
    expected = "expected a recipe in YAML, got a file of data; `palate train FILE"
    assert expected in one_line(palate("run", mine))


def test_a_recipe_in_json_is_still_a_recipe(recipe: Path) -> None:
    path = recipe.with_suffix(".json")
    path.write_text(json.dumps(yaml.safe_load(recipe.read_text())))
    assert palate("recipes", "show", path).returncode == 0


def test_a_mistyped_judge_names_the_nearest_and_writes_nothing(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "chosen": "b c", "rejected": "d"}\n')
    done = palate("judge", "lnger", str(rows), "--out", str(tmp_path / "verdicts"))
    assert done.returncode == 1
    assert done.stderr == "palate: lnger: no such folder or judge; did you mean 'longer'?\n"
    assert not (tmp_path / "verdicts").exists()
