"""Uploading an exported folder to a hub, through huggingface_hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from palate.model.quiet import quiet
from palate.types import PalateError

WEIGHTS = ("*.safetensors", "*.onnx")
# What a checkpoint is made of; journals, logs and whatever else lies beside stay here.
PATTERNS = (
    *WEIGHTS, "*.onnx_data", "config.json", "*.safetensors.index.json", "tokenizer*", "vocab*",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "README.md",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a folder went: its page, and the commit."""

    url: str
    commit: str


def files_of(folder: Path) -> list[Path]:
    """The files of an exported model that are pushed, by name.

    Raises:
        PalateError: the folder holds no exported model, or no card.
    """
    found = sorted(
        {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    )
    names = {path.name for path in found}
    if "config.json" not in names or not any(path.match(p) for p in WEIGHTS for path in found):
        raise PalateError(
            f"{folder}: no config.json with weights; expected what `palate export` wrote"
        )
    if "README.md" not in names:
        raise PalateError(f"{folder}: no README.md, the model card; export it with `palate export`")
    return found


def push(
    folder: Path,
    repo: str,
    files: Sequence[Path],
    *,
    public: bool = False,
    revision: str | None = None,
    message: str = "Upload a reward model exported by Palate",
    endpoint: str | None = None,
) -> Pushed:
    """Upload `files` of `folder` to the model repository `repo`, made private where it is missing.

    The token is huggingface_hub's own affair: HF_TOKEN, or what `hf auth login` stored.

    Raises:
        PalateError: not logged in, no right to write, a repository that is public though
            `public` was not said, a hub that cannot be reached.
    """
    check_name(repo)
    api = HfApi(endpoint=endpoint)
    try:
        with quiet():
            api.create_repo(repo, private=not public, exist_ok=True)
            if not public and not api.repo_info(repo).private:
                raise PalateError(f"{repo}: exists and is public; say --public to push to it")
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=message, revision=revision,
                allow_patterns=[path.name for path in files],
            )  # fmt: skip
    except LocalTokenNotFoundError:
        raise PalateError(f"{repo}: not logged in; set HF_TOKEN, or run `hf auth login`") from None
    except HfHubHTTPError as error:
        raise PalateError(f"{repo}: {_reason(error)}") from None
    except (OSError, httpx2.HTTPError) as error:
        raise PalateError(f"{repo}: the hub cannot be reached ({_first_line(error)})") from None
    except (RuntimeError, ValueError) as error:  # An upload that broke off, or an odd answer.
        raise PalateError(
            f"{repo}: the upload failed ({_first_line(error)}); push again, what is there is not "
            "sent twice"
        ) from None
    return Pushed(f"{api.endpoint}/{repo}", done.oid)


def check_name(repo: str) -> None:
    """Raise `PalateError` for a name that is no OWNER/NAME."""
    try:
        validate_repo_id(repo)
        if "/" not in repo:
            raise HFValidationError("no owner")
    except HFValidationError:
        raise PalateError(f"{repo!r}: expected OWNER/NAME of a repository on the hub") from None


def folder_named(folder: Path) -> str | None:
    """A folder of this machine that the configuration would tell the hub of, if any."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = [config.get("_name_or_path"), (config.get("palate") or {}).get("base")]
    return next((n for n in named if isinstance(n, str) and Path(n).is_absolute()), None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else 0
    said = (error.server_message or str(error)).strip().splitlines()[0][:200]
    if status == 401:
        return "the hub does not know you (401); set HF_TOKEN, or run `hf auth login`"
    if status == 403:
        return f"no right to write there (403: {said}); use a token with write access"
    return f"the hub answered {status}: {said}"
