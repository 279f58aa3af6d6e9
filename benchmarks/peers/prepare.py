"""The one model folder and the one file of pairs that every contender works on.

Pairs are real Anthropic HH comparisons, rendered once: a row carries its text, which ends in the
terminal token, and the tokens Palate makes of it. Rows over the limit, equal pairs and prompts
that do not alternate are left out here, because a peer would drop or change them in silence.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.contender import WORK
from benchmarks.peers.turns import say
from benchmarks.peers.worker import read_rows

MADE = 1  # Raise it when what is made here changes.
MAX_TOKENS = 1024
SUBSETS = ("harmless-base", "helpful-base")
MARGINS = (0.0, 1 / 3, 2 / 3, 1.0)  # Table 27's small margins; HH has no ratings, so in turn.


def prepared(layers: int) -> tuple[Path, list[dict[str, Any]]]:
    """The checkpoint of SmolLM2's first `layers` layers, and the pairs; made on first use."""
    folder = WORK / f"smollm2-{layers}-layers-{MADE}"
    pairs = folder / "pairs.jsonl"
    if not pairs.exists():
        say(f"preparing {folder}")
        _make(layers, folder)
    return folder / "model", read_rows(pairs)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return partial.replace(path)


def _make(layers: int, folder: Path) -> None:
    from palate.model.backbone import load_backbone
    from palate.model.export import Card, export
    from palate.model.options import BaseOptions
    from palate.model.reward_model import RewardModel
    from palate.model.tokenizer import ChatTokens

    opened = load_backbone("smollm2", layers=layers)
    options = BaseOptions(template="chatml", max_tokens=MAX_TOKENS)
    chat = ChatTokens(opened.tokenizer, options)
    folder.mkdir(parents=True, exist_ok=True)
    card = Card("benchmark", "smollm2", opened.revision, base_layers=layers)
    export(RewardModel(opened.model, chat, seed=0), folder / "model", card=card)
    _let_older_readers_in(folder / "model")
    write_rows(folder / "pairs.jsonl", list(_pairs(chat)))


def _pairs(chat: Any) -> Iterator[dict[str, Any]]:
    from palate.data.sources import Request, open_source, readable

    root = os.environ.get("PALATE_DATA")
    if not root:
        raise SystemExit("set PALATE_DATA to the folder that holds anthropic_hh/ (see the README)")
    for subset in SUBSETS:
        request = Request(location=Path(root) / "anthropic_hh", subset=subset, split="test")
        for comparison in readable(open_source("anthropic-hh", request), max_bad_share=0.05):
            if (row := _row(chat, comparison, subset)) is not None:
                yield row


def _row(chat: Any, comparison: Any, subset: str) -> dict[str, Any] | None:
    responses = comparison.chosen, comparison.rejected
    encoded = [chat.encode(comparison.prompt, response) for response in responses]
    if any(e is None or e.truncated for e in encoded) or responses[0] == responses[1]:
        return None
    turns = [m.role for m in comparison.prompt]
    if turns != [("user", "assistant")[i % 2] for i in range(len(turns))] or turns[-1] != "user":
        return None
    chosen, rejected = (chat.render(comparison.prompt, response) for response in responses)
    number = int(comparison.id[:8], 16) % len(MARGINS)
    return {
        "id": comparison.id,
        "subset": subset,
        "prompt": [{"role": m.role, "content": m.content} for m in comparison.prompt],
        "responses": responses,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_ids": encoded[0].ids.tolist(),
        "rejected_ids": encoded[1].ids.tolist(),
        "rating": number + 1,
        "margin": MARGINS[number],
    }


def _let_older_readers_in(model: Path) -> None:
    """Say in transformers 4's words what transformers 5 wrote: RewardBench pins 4.51.

    Without its old name the base of the rotary embedding would silently be 10,000.
    """
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    config["torch_dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    path = model / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")
