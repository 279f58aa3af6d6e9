"""A library's ways to give rewards, asked by lines of JSON on stdin and stdout.

    python -I workers LIBRARY MODEL OPTIONS

It runs in the library's own environment, which has no Palate: the standard library and LIBRARY.py
of this folder are all it uses. LIBRARY.py has `open_model(folder, **options)`, which gives a
function for each way: from rows (`messages`, `text`, `ids`, `prompt`, `response`) to rewards, None
for none.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Open the model, then answer line after line until stdin ends."""
    library, model, options = sys.argv[1:4]
    # Whatever the library prints goes to the log; the answers have stdout for themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, object]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    path = Path(__file__).with_name(f"{library}.py")
    spec = importlib.util.spec_from_file_location(f"worker_{library}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        ways = module.open_model(model, **json.loads(options))
    except Exception as error:  # Each library raises its own; the parent says it in one line.
        answer({"refused": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    answer({"ready": sorted(ways)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            values = ways[request["way"]](request["readings"])
            answer({"answer": [None if value is None else float(value) for value in values]})
        except MemoryError:
            raise
        except Exception as error:
            answer({"refused": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
