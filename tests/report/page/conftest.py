"""A run whose data and names are hostile, with its page."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # The texts are shared by two test files.
import hostile

from palate.records import write_comparisons, write_verdicts
from palate.report import Report, report, write_page
from palate.types import Comparison, Message, Outcome, Rating, Verdict, digest

JUDGES = {"helpful " + hostile.SCRIPT: 1.0, "safe": -0.5}
BENCHMARK = "bench " + hostile.IMAGE


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("hostile") / "run"
    rows = [_row(i) for i in range(4 * len(hostile.ALL))]
    header = write_comparisons(run / "benchmarks" / "bench.parquet", rows)
    for number, (judge, lean) in enumerate(JUDGES.items()):
        protocol = {
            "judge": {"name": judge, "judge": "reward-model", "revision": hostile.SCRIPT},
            "benchmark": header.fingerprint,
        }
        verdicts = [_verdict(judge, lean, c, i, digest(protocol)) for i, c in enumerate(rows)]
        details = {"judge": judge, "benchmark": BENCHMARK, "protocol": protocol}
        write_verdicts(run / "verdicts" / f"{number}.parquet", verdicts, details=details)
    write_comparisons(run / "mixtures" / "mix.parquet", rows)
    folder = run / "train" / "m"
    folder.mkdir(parents=True)
    line = {"step": 1, "loss": 0.7, "accuracy": 0.5}
    seen = {"step": 1, "eval": {"name": hostile.SCRIPT, "accuracy": 0.5, "loss": 0.7, "n": 9}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(seen) + "\n")
    recipe = {"name": hostile.SCRIPT, "description": hostile.CLOSING}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run


def _row(i: int) -> Comparison:
    text = hostile.ALL[i % len(hostile.ALL)]
    prompt = (Message("user", f"{i} {text}"),)
    return Comparison(
        id=f"i{i}", source=hostile.SCRIPT, prompt=prompt, chosen=f"{text} one {i}",
        rejected=f"{text} two {i}", prompt_id=f"p{i}", batch=hostile.FORMULA,
        rating=Rating(1 + i % 4), chosen_safe=True, rejected_safe=i % 2 == 0,
    )  # fmt: skip


def _verdict(judge: str, lean: float, c: Comparison, i: int, protocol: str) -> Verdict:
    gap = lean * ((i * 7) % 11 - 5.5)
    outcome = Outcome.CORRECT if gap > 0 else Outcome.WRONG
    return Verdict(
        judge, BENCHMARK, c.id, outcome, gap / 2, -gap / 2, "", False, c.prompt_id, c.source,
        c.rating, c.bin, True, protocol, hostile.SCRIPT, None, len(c.chosen), len(c.rejected),
    )  # fmt: skip


@pytest.fixture(scope="session")
def hostile_report(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report(hostile_run, out=tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="session")
def hostile_page(hostile_report: Report) -> Path:
    return write_page(hostile_report)


@pytest.fixture(scope="session")
def charts() -> Callable[[str], dict]:
    """The specifications of the charts of a page."""

    def read(page: str) -> dict:
        start = page.index('id="charts">') + len('id="charts">')
        return json.loads(page[start : page.index("</script>", start)])

    return read
