"""What a request says, as tokens."""

import asyncio

import pytest

from palate.model.options import BaseOptions
from palate.model.tokenizer import ChatTokens
from palate.serve.errors import RequestError
from palate.serve.tokenize import Conversation, Ids, Read, Reader, Templated, Truncation
from palate.types import Message
from tiny import END, START, tiny_tokenizer

PICTURE = "<image_soft_token>"


def test_a_token_without_a_row_in_a_text_is_refused_and_in_a_message_is_broken() -> None:
    """Gemma 3's text model has none for pictures: torch would stop the engine's micro-batch."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [PICTURE]})
    reader = Reader(ChatTokens(tokenizer, BaseOptions()), 400, 10_000)

    def read(form: Templated | Conversation | Ids) -> Read | None:
        return asyncio.run(reader.read([form], Truncation()))[0]

    try:
        said = f"{START}user\nx{END}\n{START}assistant\n{{}}{END}"
        whole = read(Templated(said.format("yes")))
        same = read(Conversation((Message("user", "x"),), "yes"))
        assert whole is not None
        assert same is not None
        assert whole.ids.tolist() == same.ids.tolist()
        for form in (Templated(said.format(PICTURE)), Ids([1, 400])):
            with pytest.raises(RequestError, match=r"token ids must be in 0\.\.399") as raised:
                read(form)
            assert raised.value.status == 422
        assert read(Conversation((Message("user", PICTURE),), PICTURE)) is not None
    finally:
        reader.close()
