"""`docs/audits.md`: what public benchmarks can show, by `palate audit` of each.

    python -m benchmarks.audits --data DIR [--out docs/audits.md] [--only NAME ...]

DIR is a data root (`palate data list --data DIR`) with clones of LLMBar, JudgeBench and RM-Bench as
`llmbar`, `judgebench` and `rm_bench`. Each audit is a command that anybody can give,
printed with its result and the sha256 of what it read; a benchmark that is not in DIR is left out
and named on stderr. No data are copied into the page but counts.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import originals
from palate import escape
from palate.evaluate.audit import Audit, read_audit
from palate.report import render
from palate.report.audit import overview, sentences, tables

TITLE = "# Audits"
INTRODUCTION = """\
What public benchmarks of reward models and judges can show, as [`palate audit`](audit.md) measures
it. No model was asked. A lead is what one judge is ahead of another on the same pairs; below the
first figure it cannot be told from luck, and a true one is found four times in five from the second
on, for two judges that differ on one pair in five. *Best trivial* is what can be reached without
understanding a word. These are measurements of rulers, not of the care that went into them: every
one of these sets was a gift to the field. A mistake in this page is ours; please open an issue.

The page is made by `python -m benchmarks.audits --data DIR`; each audit stands with its command and
with the sha256 of what was read. DIR holds the sources in the folders that `palate data list`
names, and clones of LLMBar, JudgeBench and RM-Bench as `llmbar`, `judgebench`, `rm_bench`; of the
last, the file of *math* was not at hand. [At the end](#agreement-with-the-originals) published
figures are made again from published answers.
"""


@dataclass(frozen=True)
class Entry:
    """A benchmark: how it is called, where it is from, and what `palate audit` is given."""

    name: str
    link: str
    arguments: tuple[str, ...]


HH = "https://github.com/anthropics/hh-rlhf"
CLAUDE = "dataset=judgebench,response_model=claude-3-5-sonnet-20240620.jsonl"
ENTRIES = (
    Entry("HH helpful-base", HH, ("anthropic-hh", "--subset", "helpful-base")),
    Entry("HH harmless-base", HH, ("anthropic-hh", "--subset", "harmless-base")),
    Entry(
        "MT-Bench human votes", "https://huggingface.co/datasets/lmsys/mt_bench_human_judgments",
        ("mtbench-human",),
    ),
    Entry("PandaLM test set", "https://github.com/WeOpenML/PandaLM", ("pandalm",)),
    Entry(
        "WebGPT comparisons", "https://huggingface.co/datasets/openai/webgpt_comparisons",
        ("openai-webgpt",),
    ),
    Entry("OASST1 validation", "https://huggingface.co/datasets/OpenAssistant/oasst1", ("oasst",)),
    Entry("Stack Exchange", "https://archive.org/details/stackexchange", ("stackexchange",)),
    Entry(
        "HelpSteer2 preference, sample", "https://huggingface.co/datasets/nvidia/HelpSteer2",
        ("helpsteer",),
    ),
    Entry("QA-Feedback", "https://github.com/allenai/FineGrainedRLHF", ("qa-feedback",)),
    Entry("DiaSafety", "https://github.com/thu-coai/DiaSafety", ("diasafety",)),
    Entry("LLMBar", "https://github.com/princeton-nlp/LLMBar", ("llmbar",)),
    Entry("JudgeBench, GPT-4o", "https://github.com/ScalerLab/JudgeBench", ("judgebench",)),
    Entry(
        "JudgeBench, Claude 3.5", "https://github.com/ScalerLab/JudgeBench",
        ("judgebench", "--path", "judgebench/data/" + CLAUDE),
    ),
    Entry(
        "RM-Bench without math", "https://github.com/THU-KEG/RM-Bench",
        ("rm-bench", "--path", "rm_bench/data"),
    ),
)  # fmt: skip


def measured(entry: Entry, data: str, folder: Path) -> tuple[Audit, str] | None:
    """The audit of an entry and its command; None, and why on stderr, where it is not there."""
    file = folder / f"{entry.name}.json"
    arguments = ["audit", *entry.arguments, "--name", entry.name, "-o", str(file)]
    command = [sys.executable, "-m", "palate", *arguments, "--data", data, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{entry.name}: {done.stderr.strip()}", file=sys.stderr)
        return None
    return read_audit(file), f"palate audit {' '.join(entry.arguments)} --data DIR"


def page(made: Sequence[tuple[Entry, Audit, str]], agreement: str) -> str:
    """The whole page."""
    lines = [TITLE, "", INTRODUCTION]
    if table := overview([audit for _, audit, _ in made]):
        lines.append(render.markdown(table))
    for entry, audit, command in made:
        lines += section(entry, audit, command)
    lines.append(agreement)
    return "\n".join(lines).rstrip() + "\n"


def section(entry: Entry, audit: Audit, command: str) -> Iterator[str]:
    """One benchmark: its sentence, what was found beside it, its parts, and what was read."""
    first, *rest = map(escape.markdown, sentences(audit))
    yield from (f"## {entry.name}", "", f"**{first}**", "", *(f"- {line}" for line in rest), "")
    for table in tables([audit]):
        if table.name in SHOWN and len(table.rows) > 1:
            body = render.markdown(table).splitlines()[2:]
            yield from (f"{escape.markdown(table.title)}:", "", *below(body), "")
    yield from (f"[{entry.name}]({entry.link}), read by:", "", "```sh", command, "```", "")
    of = f"`{escape.plain(audit.file)}`, sha256 `{audit.sha256}`; " if audit.sha256 else ""
    yield from (f"{of}{audit.size.rows:,} rows, digest of their ids `{audit.items}`.", "")


SHOWN = ("audit-parts", "audit-style")
"""Tables of a section; the others are what its sentences say."""


def below(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a table without the remarks, which the page has once."""
    return (line for line in lines if line.startswith("|"))


def main() -> None:
    """Audit every entry that is there, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/audits.md"))
    parser.add_argument("--only", nargs="*", help="names of entries; default: all")
    options = parser.parse_args()
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for entry in ENTRIES:
            if options.only and entry.name not in options.only:
                continue
            print(f"{entry.name} ...", file=sys.stderr)
            if found := measured(entry, options.data, Path(folder)):
                made.append((entry, *found))
    if not made:
        sys.exit(f"{options.data}: none of {len(ENTRIES)} benchmarks is there")
    agreement = originals.section(Path(options.data))
    options.out.write_text(page(made, agreement), encoding="utf-8")
    print(f"{options.out}: {len(made)} audits", file=sys.stderr)


if __name__ == "__main__":
    main()
