"""A plain `pip install .` used as a newcomer does, without pytest: `make test-installed`.

Run by the Python of an environment with the runtime dependencies alone. Imports every module, asks
every command for its help, trains and judges a tiny model, reports it, opens every page of the
explorer, and sees that what needs an extra says which in one line.
"""

import importlib
import io
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from http.cookiejar import CookieJar
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import HTTPCookieProcessor, build_opener

PALATE = Path(sys.executable).with_name("palate")
RECIPE = """
name: installed
data:
  sources:
    help: {source: simulated, options: {task: helpfulness, weeks: 2, comparisons_per_week: 40}}
  holdout: {per_batch: 20, sources: [help]}
benchmarks:
  held-out help: {held_out: [help]}
mixtures:
  helpfulness: {all: [help]}
backbone: {model: MODEL, max_tokens: 256, dtype: float32}
train: {pairs_per_step: 16, learning_rate: 1e-3, eval_rows: 8}
models:
  helpfulness: {mixture: helpfulness, eval_sets: [held-out help]}
judges: [random, longer, shorter, helpfulness]
"""


def check(holds: object, what: object) -> None:
    """An assert that stays under `python -O`."""
    if not holds:
        raise AssertionError(what)


def plain_environment() -> None:
    """The package is the installed one, and nothing of the dev extra is there."""
    import palate

    check("site-packages" in palate.__file__, f"{palate.__file__}: the checkout, not an install")
    check(any("extra ==" in one for one in requires("palate") or []), "no extras are declared")
    extras = ("statsmodels", "pytest", "playwright", "onnxruntime", "opentelemetry.sdk", "mkdocs")
    there = [name for name in extras if find_spec(name.split(".")[0]) and _imports(name)]
    check(not there, f"{there}: an extra is installed; make the environment anew")


def _imports(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def every_module() -> int:
    """Import all of the package."""
    import palate

    names = [found.name for found in pkgutil.walk_packages(palate.__path__, "palate.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return len(names)


def every_command() -> int:
    """The help of every command."""
    from typer.main import get_command

    from palate.cli import app

    def helps(command: object, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from helps(inner, [*path, name])

    root = get_command(app)
    found = list(helps(root, []))
    for path in found:
        said = io.StringIO()
        with redirect_stdout(said):
            root.main([*path, "--help"], prog_name="palate", standalone_mode=False)
        check("Usage" in said.getvalue(), path)
    said = subprocess.run([PALATE, "--help"], capture_output=True, text=True, check=True).stdout
    check("Usage" in said, "the installed command")
    return len(found)


def whole_run(folder: Path) -> Path:
    """A run of a tiny model with its tables and page."""
    from palate.recipe import load_recipe, run
    from tiny import save_tiny

    recipe = folder / "installed.yaml"
    recipe.write_text(RECIPE.replace("MODEL", str(save_tiny(folder / "tiny", "llama"))))
    made = run(load_recipe(recipe, environment={}), folder / "run")
    page = (made / "report.html").read_text()
    check("held-out help" in page and 'id="verdict"' in page, "the page of the report")
    return made


@contextmanager
def explorer(run: Path) -> Iterator[str]:
    """The address of `palate view` on a run, until the block ends."""
    server = subprocess.Popen([PALATE, "view", str(run)], stdout=subprocess.PIPE, text=True)
    try:
        address = (server.stdout or io.StringIO()).readline().strip()
        check(address.startswith("http"), f"palate view said {address!r}")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def every_page_of_the_explorer(run: Path) -> int:
    """Each page, once with nothing marked and once with the marks of two people."""
    from fastapi.routing import APIRoute

    from palate.explorer.annotations import Annotation, Annotations
    from palate.explorer.app import router
    from palate.records import read_comparisons

    rows = list(read_comparisons(next((run / "benchmarks").glob("*.parquet"))))[:12]
    paths = [
        route.path.replace("{run}", "0").replace("{item}", "0")
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    ]
    check(len(paths) > 4, f"the explorer's pages, of which {paths} were found")
    with explorer(run) as address:
        browser = build_opener(HTTPCookieProcessor(CookieJar()))
        for marked in (False, True):
            if marked:
                marks = Annotations(run / "marks.sqlite")
                for number, row in enumerate(rows):
                    for person in ("ann", "bob"):
                        agrees = number % (3 if person == "ann" else 4) > 0
                        choice = "chosen" if agrees else "rejected"
                        marks.put(Annotation(person, row.id, choice, part="held-out help"))
            browser.open(address)
            for path in paths:
                if path.endswith("marks.parquet") and not marked:
                    continue  # There is nothing to write yet.
                answer = browser.open(urljoin(address, path))
                check(answer.status == 200, path)
        body = browser.open(urljoin(address, "/r/0/marks")).read().decode()
        check("ann and bob" in body and "κ" in body, "agreement on the Marks page")
    return len(paths)


def extras_are_named(run: Path) -> None:
    """What needs an extra says so in one line."""
    from palate.model.onnx import open_session
    from palate.serve.metrics import start_tracing
    from palate.types import PalateError

    absent = ((lambda: open_session(run), "onnxruntime"), (start_tracing, "opentelemetry"))
    for needs, package in absent:
        try:
            needs()
        except PalateError as error:
            said = str(error)
        else:
            said = "nothing"
        check("pip install" in said and package in said and "\n" not in said, said)


def main() -> None:
    """All of it, with a line and a time for each part."""
    started = time.monotonic()

    def say(what: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:5.1f} s  {what}\n")
        sys.stdout.flush()

    plain_environment()
    say("a plain install, without extras")
    say(f"{every_module()} modules imported")
    say(f"{every_command()} commands said their help")
    with tempfile.TemporaryDirectory() as folder:
        run = whole_run(Path(folder))
        say("a tiny model trained, judged, reported")
        say(f"{every_page_of_the_explorer(run)} pages of the explorer opened")
        extras_are_named(run)
        say("what needs an extra names it")


if __name__ == "__main__":
    main()
