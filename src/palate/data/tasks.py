"""Comparisons as tasks of an annotation tool, in the form that the tool imports.

The answers come back by the source of that tool: a task holds the two responses in the order in
which they are shown, and the comparison's id and cluster, so that nothing but the task is needed.
Which one was labelled `chosen` is nowhere in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal, get_args

import yaml

from palate.types import Comparison, Message, PalateError, in_words, is_text

Tool = Literal["label-studio", "potato", "argilla"]
TOOLS: tuple[Tool, ...] = get_args(Tool)

LABELLING = """\
<View>
  <Paragraphs name="conversation" value="$prompt" layout="dialogue" nameKey="role"
    textKey="content"/>
  <Pairwise name="better" toName="response_a,response_b"/>
  <View style="display: grid; grid-template-columns: 1fr 1fr; gap: 1em; white-space: pre-wrap">
    <Text name="response_a" value="$response_a"/>
    <Text name="response_b" value="$response_b"/>
  </View>
  <Choices name="neither" toName="conversation" choice="single-radio" showInline="true">
    <Choice value="tie"/>
    <Choice value="both bad"/>
  </Choices>
  <Rating name="strength" toName="conversation" maxRating="4"/>
</View>
"""
CONFIG: Mapping[str, Any] = {
    "annotation_task_name": "comparisons",
    "task_dir": ".",
    "output_annotation_dir": "annotation_output",
    "export_annotation_format": "jsonl",
    "data_files": ["items.json"],
    "item_properties": {"id_key": "id", "text_key": "text"},
    "instance_display": {
        "fields": [
            {
                "key": "prompt",
                "type": "dialogue",
                "label": "Conversation",
                "display_options": {"speaker_key": "role", "text_key": "content"},
            },
            {"key": "text", "type": "pairwise", "label": "Responses"},
        ]
    },
    "annotation_schemes": [
        {
            "annotation_type": "pairwise",
            "name": "better",
            "description": "Which response is better?",
            "items_key": "text",
            "allow_tie": True,
            "tie_label": "About the same",
        },
        {
            "annotation_type": "pairwise",
            "name": "strength",
            "description": "How much better?",
            "mode": "scale",
            "items_key": "text",
            "scale": {"min": -3, "max": 3, "step": 1},
        },
    ],
    "user_config": {"allow_all_users": True, "users": []},
    "require_password": False,
    "site_dir": "default",
}
OUTCOMES = {
    "response_a": "A is better",
    "response_b": "B is better",
    "tie": "About the same",
    "both_bad": "Both are bad",
}
SETTINGS: Mapping[str, Any] = {
    "fields": [
        {
            "name": "prompt",
            "title": "Conversation",
            "settings": {"type": "chat", "use_markdown": False},
        },
        *(
            {
                "name": f"response_{side}",
                "title": side.upper(),
                "settings": {"type": "text", "use_markdown": False},
            }
            for side in "ab"
        ),
    ],
    "questions": [
        {
            "name": "better",
            "title": "Which response is better?",
            "settings": {
                "type": "label_selection",
                "options": [{"value": value, "text": text} for value, text in OUTCOMES.items()],
            },
        },
        {
            "name": "strength",
            "title": "How much better?",
            "required": False,
            "settings": {"type": "rating", "options": [{"value": n} for n in (1, 2, 3, 4)]},
        },
    ],
    "metadata": [
        {"name": name, "settings": {"type": "terms"}, "visible_for_annotators": False}
        for name in ("comparison_id", "prompt_id", "batch")
    ],
}


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """Tasks written, and comparisons of a pair that has one already.

    `in_words` tasks are of conversations with calls of tools or reasoning, as `as_shown` has them.
    """

    tasks: int
    repeated: int
    in_words: int = 0

    def __str__(self) -> str:
        again = f"; {self.repeated:,} more judgements of the same pairs" if self.repeated else ""
        words = f"; {self.in_words:,} say calls of tools in words" if self.in_words else ""
        return f"{self.tasks:,} tasks{again}{words}"


def as_shown(comparison: Comparison) -> Comparison:
    """The comparison as people read it: calls and reasoning in words, tools as a system's turn."""
    prompt = tuple(
        Message("system" if turn.role == "tools" else turn.role, in_words(turn.content))
        for turn in comparison.prompt
    )
    chosen, rejected = in_words(comparison.chosen), in_words(comparison.rejected)
    return replace(comparison, prompt=prompt, chosen=chosen, rejected=rejected)


def write_tasks(
    comparisons: Iterable[Comparison],
    tool: Tool,
    folder: Path,
    chosen_first: Callable[[str], bool],
) -> TaskCounts:
    """Write one task a pair into a new folder, whole or not at all.

    Label Studio: `tasks.json`, and `labelling.xml` for its Code view. Potato: `items.json` and
    `config.yaml`. Argilla: `records.json` for `dataset.records.log` and `settings.json` for
    `Settings.from_json`. `chosen_first` says, by a comparison's id, which side is shown first.

    Raises:
        PalateError: the folder exists, no such tool, or no comparison.
    """
    if tool not in TOOLS:
        raise PalateError(f"no tool {tool!r}; expected one of {', '.join(TOOLS)}")
    if folder.exists():
        raise PalateError(f"{folder}: exists; name a new folder")
    tasks: list[dict[str, Any]] = []
    seen: set[Any] = set()
    repeated = spoken = 0
    for comparison in comparisons:
        pair = (comparison.prompt, frozenset((comparison.chosen, comparison.rejected)))
        if pair in seen:
            repeated += 1
            continue
        seen.add(pair)
        spoken += not is_text(comparison.prompt, comparison.chosen, comparison.rejected)
        tasks.append(_task(as_shown(comparison), tool, chosen_first(comparison.id)))
    if not tasks:
        raise PalateError("expected comparisons, found none")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(tasks, tool, made)
            made.chmod(0o755)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise PalateError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return TaskCounts(len(tasks), repeated, spoken)


def _task(comparison: Comparison, tool: Tool, chosen_first: bool) -> dict[str, Any]:
    sides = [comparison.chosen, comparison.rejected]
    first, second = sides if chosen_first else reversed(sides)
    facts = {
        "prompt": [{"role": turn.role, "content": turn.content} for turn in comparison.prompt],
        "comparison_id": comparison.id,
        "prompt_id": comparison.prompt_id,
        "batch": comparison.batch,
    }
    if tool == "potato":
        return {"id": comparison.id, "text": [first, second], **facts}
    if tool == "argilla":
        return {"id": comparison.id, "response_a": first, "response_b": second, **facts}
    return {"data": {**facts, "response_a": first, "response_b": second}}


def _write(tasks: list[dict[str, Any]], tool: Tool, folder: Path) -> None:
    if tool == "potato":
        lines = (json.dumps(task, ensure_ascii=False) + "\n" for task in tasks)
        (folder / "items.json").write_text("".join(lines), "utf-8")
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(CONFIG), sort_keys=False), "utf-8")
        return
    text = json.dumps(tasks, ensure_ascii=False, indent=1)
    if tool == "argilla":
        (folder / "records.json").write_text(text, "utf-8")
        (folder / "settings.json").write_text(json.dumps(SETTINGS, indent=1), "utf-8")
        return
    (folder / "tasks.json").write_text(text, "utf-8")
    (folder / "labelling.xml").write_text(LABELLING, "utf-8")
