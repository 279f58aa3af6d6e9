"""Texts that try to be more than text."""

SCRIPT = "<script>document.title = 'taken'</script>"
IMAGE = "<img src=x onerror=\"document.title='taken'\">"
CLOSING = "</script></style></template></details>" + SCRIPT
LINK = "[click](javascript:document.title='taken') <a href='javascript:alert(1)'>x</a>"
PICTURE = "![x](https://evil.example/pixel.png)"
TURNED = "right \u202eleft\u2066 \u200f"
CONTROL = "bell \x07 escape \x1b[31m null \x00"
SURROGATE = "lone \ud800 surrogate"
FORMULA = '=HYPERLINK("https://evil.example")'
TEMPLATE = "{{ 7 * 7 }} {% raw %} ${7*7}"
LONG = "x" * 1_000_000

ALL = (
    SCRIPT, IMAGE, CLOSING, LINK, PICTURE, TURNED, CONTROL, FORMULA, TEMPLATE,
    LONG, "", " \n\t", "a\r\nb",
)  # fmt: skip
"""What Parquet can hold; a lone surrogate it cannot."""
