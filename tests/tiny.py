"""Real models, small enough to train in a test: random weights, a trained BPE tokenizer.

`from tiny import save_tiny` gives a whole checkpoint folder of a family; `tiny_model` and
`tiny_tokenizer` the parts of one.
"""

import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from palate.types import Message, Pair

FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gpt_neox", "mistral")
EXPORTED = FAMILIES[:5]
END, START, TEXT_END, PAD, BOS = "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|pad|>", "<s>"

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXT = """How do I bake bread? Mix flour, water, salt and yeast, then wait for the dough to rise.
What is the capital of France? The capital of France is Paris, a city on the Seine.
I cannot help you with that, but here is something safer you could try instead.
Please write a short poem about the sea. The sea is wide, the sea is deep, the sea is blue.
Which of these two answers is better, and why? The first one is honest, helpful and short.
user assistant system You are a helpful assistant. Thank you! 0 1 2 3 4 5 6 7 8 9
"""

_SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "use_cache": False,
}
_GROUPED = {"num_key_value_heads": 2}
_FAMILY: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": _GROUPED | {"head_dim": 16},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
    "gpt_neox": {"rotary_pct": 0.25, "hidden_dropout": 0.1, "attention_dropout": 0.1},
    "mistral": _GROUPED | {"sliding_window": 16},
    "qwen3_moe": _GROUPED
    | {"head_dim": 16, "moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2},
}


@cache
def _trained(vocabulary: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[TEXT_END, START, END, PAD, BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    return tokenizer.to_str()


def tiny_tokenizer(
    vocabulary: int = 400, *, bos: bool = False, pad: str | None = PAD, template: str = CHATML
) -> Any:
    """A byte-level BPE tokenizer with a ChatML template; `bos` makes it put `<s>` in front.

    `pad=END` is the trap of pitfall 3; `pad=None` has no pad token at all.
    """
    backend = Tokenizer.from_str(_trained(vocabulary))
    if bos:
        number = backend.token_to_id(BOS)
        backend.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, number)]
                ),
            ]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS if bos else None,
        eos_token=END,
        unk_token=TEXT_END,
        pad_token=pad,
        additional_special_tokens=[START],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def tiny_config(family: str, vocabulary: int = 400, **changes: Any) -> Any:
    """The configuration of a model of `family` with about 100 k parameters."""
    tokens = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    values = _SHAPE | {"vocab_size": vocabulary} | tokens | _FAMILY[family] | changes
    return AutoConfig.for_model(family, **values)


def tiny_model(family: str, vocabulary: int = 400, *, seed: int = 0, **changes: Any) -> Any:
    """A bare fp32 decoder of `family` with seeded random weights, in evaluation mode.

    The weights are drawn wide (standard deviation 0.1) so that positions and attention matter.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wide = {"initializer_range": 0.1}
        model = AutoModel.from_config(tiny_config(family, vocabulary, **wide | changes))
    return model.eval()


def save_tiny(folder: Path, family: str, *, tokenizer: Any = None, **changes: Any) -> Path:
    """A whole checkpoint (weights, configuration, tokenizer) of `family` in `folder`."""
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    tiny_model(family, len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs_of_words(count: int, seed: int = 0) -> list[Pair]:
    """Pairs of one-turn prompts and two responses each, of unequal lengths, in words of `TEXT`."""
    draw = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(draw.choices(TEXT.split(), k=draw.randint(1, most)))

    return [Pair(str(i), (Message("user", words(12)),), words(8), words(30)) for i in range(count)]
