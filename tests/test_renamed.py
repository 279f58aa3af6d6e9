"""What the docs named before it moved can still be imported, with one warning."""

import importlib
import subprocess
import sys
import warnings

import pytest

from palate.renamed import MODULES


@pytest.mark.parametrize(("old", "new"), MODULES.items())
def test_an_old_path_is_the_new_module_and_says_so(old, new):
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f"{old} is now {new}"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new)
    assert found.__spec__.name == found.__name__ == new
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.import_module(old)


@pytest.mark.parametrize("module", ["palate.evaluate.metrics", "palate.evaluate.tally"])
def test_an_old_name_is_the_new_one_and_says_so(module):
    with pytest.warns(FutureWarning, match="read_tally is now .*read_judge_results|is now"):
        old = importlib.import_module(module).read_tally
    assert old is importlib.import_module("palate.evaluate.results").read_judge_results


def test_a_name_that_never_was_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        importlib.import_module("palate.data.nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("palate.evaluate.metrics").nothing  # noqa: B018


def test_a_user_sees_the_warning_once_at_their_own_line(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("import palate.data.overlap\nimport palate.data.overlap\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stderr.count("FutureWarning") == 1
    assert "mine.py:1" in done.stderr
