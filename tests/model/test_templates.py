"""Exported chat templates write the same text in every Jinja that servers bring."""

import json
import random
import shutil
import subprocess
from typing import Any

import pytest

from palate.judges.options import SequenceClassifierSpec
from palate.judges.prompting import InputFormat
from palate.model.export import portable_tokenizer
from palate.model.options import BaseOptions
from palate.model.templates import CHATML
from palate.model.tokenizer import ChatTokens
from palate.types import Message, PalateError
from tiny import TEXT, tiny_tokenizer

# As the families write them: what their templates are made of, with this tokenizer's marks.
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|im_start|>system\\n\\nToday Date: " + date_string + "\\n\\n" }}
{{- system_message + "<|im_end|>" }}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n\\n'+ message['content'] | trim + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n\\n' }}
{%- endif %}
"""
GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<|im_start|>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- endif -%}
    {{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>model\n' }}{%- endif -%}
"""
QWEN = r"""{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""  # noqa: E501
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""
MARKED = """{% for message in messages %}
{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' %}
{%- generation %}
{{- message.content + '<|im_end|>' }}
{%- endgeneration -%}
{% else %}
{{- message.content + '<|im_end|>' }}
{% endif %}
{% endfor %}
"""
CLOCK = (
    "{{ '<|im_start|>system\n' + strftime_now('%Y') + '<|im_end|>\n' }}"
    "{% macro turn(m) %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content }}<|im_end|>{% endmacro %}"
    "\n{% for m in messages %}{{ turn(m) }}\n{% if m.role == 'nobody' %}{% break %}{% endif %}"
    "{% endfor %}"
)  # fmt: skip
TEMPLATES = {
    "chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "qwen": QWEN, "mistral": MISTRAL,
    "generation": MARKED, "clock": CLOCK,
}  # fmt: skip
PINNED = {"date_string": "01 Jan 2026"}


def conversations(count: int = 40) -> list[list[dict[str, str]]]:
    """Turns that templates have trouble with: marks in the text, blank edges, odd letters."""
    draw = random.Random(0)
    parts = [
        *TEXT.split(),
        "\n\n",
        "  ",
        "<think>\nhm\n</think>\n\nSo",
        "'\"\\",
        "voilà — 東京 🎨",
        "{{ x }}",
    ]

    def words() -> str:
        return " ".join(draw.choices(parts, k=draw.randint(0, 9)))

    made = []
    for number in range(count):
        turns = [{"role": "system", "content": words()}] if number % 3 == 0 else []
        for _ in range(draw.randint(1, 3)):
            turns += [
                {"role": "user", "content": words()},
                {"role": "assistant", "content": words()},
            ]
        made.append(turns)
    return made


CONVERSATIONS = conversations()


@pytest.fixture(params=TEMPLATES)
def exported(request: pytest.FixtureRequest) -> tuple[ChatTokens, Any]:
    tokenizer = tiny_tokenizer(bos=True, template=TEMPLATES[request.param])
    options = BaseOptions(model=request.param, template_variables=PINNED)
    chat = ChatTokens(tokenizer, options)
    return chat, portable_tokenizer(chat)


def expected(chat: ChatTokens, turns: list[dict[str, str]]) -> str:
    text = chat.tokenizer.apply_chat_template(turns, chat_template=chat.template, tokenize=False)
    return text.rpartition(chat.terminal)[0] + chat.terminal


def named(tokenizer: Any) -> dict[str, Any]:
    """What engines hand a template beside the messages: the tokens that the tokenizer declares."""
    return {**tokenizer.special_tokens_map, "add_generation_prompt": False}


def test_pitfall_36_python(exported: tuple[ChatTokens, Any]) -> None:
    chat, tokenizer = exported
    for turns in CONVERSATIONS:
        found = tokenizer.apply_chat_template(turns, tokenize=False)
        assert found == expected(chat, turns)


def test_pitfall_36_minijinja(exported: tuple[ChatTokens, Any]) -> None:
    minijinja = pytest.importorskip("minijinja", reason="a dev dependency: make develop")
    chat, tokenizer = exported
    environment = minijinja.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.add_template("chat", tokenizer.chat_template)
    for turns in CONVERSATIONS:
        found = environment.render_template("chat", messages=turns, **named(tokenizer))
        assert found == expected(chat, turns)


RENDER = """
const { Template } = require("@huggingface/jinja");
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const texts = asked.map(({ template, named, conversations }) => {
    const read = new Template(template);
    return conversations.map((messages) => read.render({ ...named, messages }));
});
process.stdout.write(JSON.stringify(texts));
"""


def test_pitfall_36_javascript(exported: tuple[ChatTokens, Any]) -> None:
    """Cut as Python cuts what JavaScript makes of the template before it was closed.

    That may be another text than Python's: its `lstrip('\\n')` takes blanks too.
    """
    chat, tokenizer = exported
    asked = [
        {"template": template, "named": named(declares), "conversations": CONVERSATIONS}
        for template, declares in [
            (chat.template, chat.tokenizer),
            (tokenizer.chat_template, tokenizer),
        ]
    ]
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    done = subprocess.run(
        [node, "-e", RENDER], input=json.dumps(asked), capture_output=True, text=True, timeout=60
    )
    if "Cannot find module" in done.stderr:
        pytest.skip("needs @huggingface/jinja in a node_modules that NODE_PATH names")
    assert done.returncode == 0, done.stderr
    plain, closed = json.loads(done.stdout)
    assert closed == [text.rpartition(chat.terminal)[0] + chat.terminal for text in plain]
    if "lstrip" not in chat.template:
        assert closed == [expected(chat, turns) for turns in CONVERSATIONS]


MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>"
    "{% if loop.last and s is defined %}{{ s }}{% endif %}{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
R1 = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
LAST = "{% for m in messages[-2:] %}{{ m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}"
LATER = (
    "{% for m in messages if m.role != 'system' %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        (CHATML, ()),
        (MISTRAL, ("the system turn",)),
        (R1, ("reasoning before </think> in the response",)),
        (LAST, ("the system turn", "an earlier turn of the user")),
        (LATER, ("the turns system/user/assistant in their order",)),
    ],
)  # fmt: skip
def test_what_a_template_does_not_write_is_said_once(
    template: str, lost: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A turn that is lost, reasoning that is stripped, turns that stand elsewhere."""
    options = BaseOptions(model=f"model of {len(template)}")
    for _ in range(2):
        found = ChatTokens(tiny_tokenizer(template=template), options).unwritten
        assert found[: len(lost)] == lost
        assert bool(found) == bool(lost)
        assert len(set(found)) == len(found) < 4
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(lost)
    assert not lost or f"the chat template does not write {lost[0]}" in said[0]


def test_a_foreign_judge_says_it_too(caplog: pytest.LogCaptureFixture) -> None:
    spec = SequenceClassifierSpec(model="a judge", format="chat")
    InputFormat(tiny_tokenizer(template=MISTRAL), spec, 100)
    assert "a judge: the chat template does not write the system turn" in caplog.text


def test_a_template_that_does_not_write_the_response_is_refused() -> None:
    deaf = "{{ messages[0]['content'] + '<|im_end|>' }}"
    with pytest.raises(PalateError, match="every response would get the same reward"):
        ChatTokens(tiny_tokenizer(template=deaf), BaseOptions())


OPEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% if not loop.last %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
)


def test_a_template_that_ends_no_last_turn_keeps_the_response() -> None:
    tokenizer = tiny_tokenizer(template=OPEN)
    chat = ChatTokens(tokenizer, BaseOptions())
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "the sea"}]
    text = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nthe sea<|im_end|>"
    assert chat.render((Message("user", "x"),), "the sea") == text
    assert portable_tokenizer(chat).apply_chat_template(turns, tokenize=False) == text
    told = chat.encode_text(text.removesuffix("<|im_end|>"))
    asked = chat.encode((Message("user", "x"),), "the sea")
    assert told is not None
    assert asked is not None
    assert told.ids.tolist() == asked.ids.tolist()
