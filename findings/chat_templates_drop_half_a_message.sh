#!/bin/bash
# An assistant's message may have text and calls of tools, and several calls: OpenAI's API writes both. A good
# engineer expects a chat template to write all of it or to raise an error, as Llama 3.1's does for two calls.
# Llama 3.1's and 3.2's write a call and drop the text beside it; gpt-oss's writes the first of two calls and
# drops the second. None says so, and apply_chat_template returns the shorter conversation.
# Who is hurt: who trains or scores a reward model on agents' turns. Two answers that differ in the text before
# a call, or in the second call, become the same tokens: a comparison of equals, and the same reward.
# Cure: render each message with one part changed, and refuse what does not change the text.
# Versions: the templates as TRL 1.16.0 brings them, jinja2 3.1.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jinja2==3.1.6
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps trl==1.16.0
cat > "$folder/render.py" <<'PY'
import datetime
import json
import sysconfig
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

templates = Path(sysconfig.get_paths()["purelib"]) / "trl/chat_templates"
jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
jinja.filters["tojson"] = lambda value, indent=None: json.dumps(value, indent=indent)


def refuse(message):
    raise ValueError(message)


def call(name, city):
    return {"type": "function", "function": {"name": name, "arguments": {"city": city}}}


city = {"type": "object", "properties": {"city": {"type": "string", "description": "Of Europe."}}}
tools = [
    {"type": "function", "function": {"name": name, "description": "Of a city.", "parameters": city}}
    for name in ("weather", "clock")
]
beside = {"role": "assistant", "content": "Let me look.", "tool_calls": [call("weather", "Oslo")]}
twice = {"role": "assistant", "content": "", "tool_calls": [call("weather", "Oslo"), call("clock", "Rome")]}


def written(name, answer, parts):
    """Which parts of the answer are in the text that the template makes; or its error."""
    template = jinja.from_string((templates / f"{name}.jinja").read_text())
    conversation = [{"role": "user", "content": "How is it there?"}, answer]
    try:
        text = template.render(
            messages=conversation, tools=tools, bos_token="<s>", eos_token="</s>", raise_exception=refuse,
            strftime_now=lambda form: datetime.datetime.now().strftime(form),
        )
    except ValueError as error:
        return f"error: {error}"
    return [part for part in parts if part in text]


seen = {
    (name, kind): written(name, answer, parts)
    for name in ("llama3_1", "llama3_2", "gptoss", "qwen3")
    for kind, answer, parts in (
        ("text and a call", beside, ["Let me look.", "Oslo"]),
        ("two calls", twice, ["Oslo", "Rome"]),
    )
}
for (name, kind), parts in seen.items():
    print(f"{name:9} {kind:16} {parts}")
assert seen["qwen3", "text and a call"] == ["Let me look.", "Oslo"], "Qwen 3 no longer writes both"
assert seen["qwen3", "two calls"] == ["Oslo", "Rome"], "Qwen 3 no longer writes both calls"
assert seen["llama3_1", "text and a call"] == seen["llama3_2", "text and a call"] == ["Oslo"], "text is written now"
assert seen["gptoss", "two calls"] == ["Oslo"], "the second call is written now"
assert str(seen["llama3_1", "two calls"]).startswith("error"), "Llama 3.1 no longer refuses two calls"
print("text beside a call (Llama 3.1, 3.2) and a second call (gpt-oss) are dropped without a word")
PY
"$folder/venv/bin/python" "$folder/render.py"
