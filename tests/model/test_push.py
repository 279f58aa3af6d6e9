"""Pushing to a hub: a real HTTP server on loopback, the real huggingface_hub."""

from collections.abc import Generator
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from hub import COMMIT, TOKEN, Hub, hub
from packed import tiny_reward_model
from palate.cli import app
from palate.model.export import Card, export, files_of, folder_named, push
from palate.model.loading import load_reward_model
from palate.types import PalateError

NAME = "somebody/tiny-rm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("push") / "model"
    export(
        tiny_reward_model("llama"),
        made,
        card=Card("tiny", "tiny/base", "0"),
        max_shard_size="100KB",
    )
    (made / "optimizer.bin").write_bytes(b"a pickle")
    (made / "notes.jsonl").write_text("mine")
    return made


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Its storage is no plain HTTP.
    with hub() as kept:
        yield kept


def test_a_push_is_whole_private_and_opens_again(folder: Path, there: Hub, tmp_path: Path) -> None:
    done = push(folder, NAME, files_of(folder), endpoint=there.url, message="The first")
    assert (done.url, done.commit) == (f"{there.url}/{NAME}", COMMIT)
    assert there.private == {NAME: True}
    assert there.messages == ["The first"]
    assert sum(name.endswith(".safetensors") for name in there.files[NAME]) > 1
    assert not {"optimizer.bin", "notes.jsonl"} & set(there.files[NAME])
    for name, content in there.files[NAME].items():
        assert content == (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content)
    again = load_reward_model(tmp_path)
    assert again.head.weight.equal(load_reward_model(folder).head.weight)
    push(folder, NAME, files_of(folder), endpoint=there.url)  # Into one that is there.
    assert len(there.messages) == 2


def test_a_public_repository_needs_the_word(folder: Path, there: Hub) -> None:
    files = files_of(folder)
    push(folder, NAME, files, public=True, endpoint=there.url, revision="next")
    assert there.private == {NAME: False}
    assert there.branches == ["next"]
    with pytest.raises(PalateError, match="exists and is public; say --public"):
        push(folder, NAME, files, endpoint=there.url)
    assert len(there.messages) == 1


def test_who_is_not_let_in_is_told_how(
    folder: Path, there: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(folder)
    there.writable = False
    with pytest.raises(PalateError, match=r"no right to write there \(403"):
        push(folder, NAME, files, endpoint=there.url)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PalateError, match="set HF_TOKEN") as caught:
        push(folder, NAME, files, endpoint=there.url)
    assert "hf_wrong" not in str(caught.value)
    with pytest.raises(PalateError, match="cannot be reached"):
        push(folder, NAME, files, endpoint="http://127.0.0.1:1")
    with pytest.raises(PalateError, match="expected OWNER/NAME"):
        push(folder, "no-owner", files, endpoint=there.url)
    assert there.files == {}


def test_a_folder_without_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PalateError, match=r"no config.json with weights"):
        files_of(tmp_path)
    for name in ("config.json", "model.onnx"):
        (tmp_path / name).write_text('{"_name_or_path": "/home/me/base"}')
    with pytest.raises(PalateError, match=r"no README.md, the model card"):
        files_of(tmp_path)
    assert folder_named(tmp_path) == "/home/me/base"
    assert folder_named(folder) is None


def test_a_dry_run_lists_the_files_and_asks_nobody(folder: Path) -> None:
    words = ["push", str(folder), NAME, "--dry-run", "--format", "csv"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    listed = [line.split(",")[0] for line in found.stdout.splitlines()[1:]]
    assert listed == [path.name for path in files_of(folder)]
    assert {"README.md", "config.json", "tokenizer.json"} <= set(listed)
