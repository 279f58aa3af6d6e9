"""Your own comparisons: written as JSONL, imported, linted, split and mixed.

    python examples/own_data.py FOLDER

Goes up to the mixture; `run(recipe, folder)` without `until` trains and judges as well.
"""

import json
import sys
from pathlib import Path

from palate.recipe import load_recipe, run

RECIPE = """
name: mine
data:
  sources:
    week-1: {source: own, path: week-1.jsonl}
  holdout: {per_batch: 20, sources: [week-1]}
benchmarks:
  held-out: {held_out: [week-1]}
mixtures:
  all: {all: [week-1]}
models:
  mine: {mixture: all, eval_sets: [held-out]}
"""


def main(folder: Path) -> Path:
    """Write a made week of comparisons and a recipe into `folder`, and run it up to the mixture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (
        {
            "prompt": f"What is {n} plus {n + 1}?",
            "chosen": f"{2 * n + 1}.",
            "rejected": f"It is {2 * n}, I believe.",
            "rating": ("slightly", "better", "significantly")[n % 3],
        }
        for n in range(100)
    )
    (folder / "week-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text(RECIPE)
    recipe = load_recipe(folder / "mine.yaml", data=folder)
    return run(recipe, folder / "run", until="mix", say=lambda line: print(line, file=sys.stderr))


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
