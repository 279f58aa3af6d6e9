"""Attention over segments: both kernels against plain softmax, and the rule between them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Olmo2Config, Olmo2Model

from packed import conversations, flat, gradients, rewards, tiny_reward_model
from palate.model.attention import NAME, attention_path, shared_prefix_attention
from palate.model.options import BaseOptions
from palate.model.packing import Layout, group, pack
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.options import LoraOptions, Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from tiny import tiny_model, tiny_tokenizer

HEADS, KEY_HEADS, WIDTH = 4, 2, 16


def layout(device: str = "cpu") -> Layout:
    return pack([group(one) for one in conversations()], device).layout


def inputs(tokens: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Query, key and value as transformers hands them over: [1, H, T, D]."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, tokens, heads, WIDTH, generator=generator)
        .to(device, dtype)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    where: Layout,
    *,
    window: int = 10_000,
    sinks: Tensor | None = None,
) -> Tensor:
    """What varlen attention computes, by definition: a softmax a segment, from its arguments.

    Query i of n sees the last `window` of the first m - n + i + 1 of m keys, and its head's sink;
    head h reads key head h // (H / Hkv).
    """
    q, k, v = query[0], key[0][:, where.gather], value[0][:, where.gather]
    k, v = (t.repeat_interleave(HEADS // KEY_HEADS, dim=0) for t in (k, v))
    pieces = []
    ends = zip(where.query_starts[1:].tolist(), where.key_starts[1:].tolist(), strict=True)
    start, first = 0, 0
    for end, last in ends:
        logits = q[:, start:end] @ k[:, first:last].transpose(1, 2) / WIDTH**0.5
        unseen = torch.ones_like(logits, dtype=torch.bool).triu(
            logits.shape[2] - logits.shape[1] + 1
        )
        unseen |= unseen.logical_not().tril(logits.shape[2] - logits.shape[1] - window)
        logits = logits.masked_fill(unseen, -torch.inf)
        if sinks is not None:
            logits = torch.cat((logits, sinks[:, None, None].expand(-1, end - start, 1)), dim=-1)
        weights = logits.softmax(-1)[..., : last - first]
        pieces.append(weights @ v[:, first:last])
        start, first = end, last
    return torch.cat(pieces, dim=1).transpose(0, 1)[None]


def attend(given: list[Tensor], where: Layout, *, varlen: bool, **more: Any) -> Tensor:
    return shared_prefix_attention(
        torch.nn.Identity(), *given, None, layout=where, varlen=varlen, scaling=WIDTH**-0.5, **more
    )[0]


def with_gradients(output: Tensor, given: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view(output.shape)
    loss = (output.float() * weights).sum()
    return [output, *torch.autograd.grad(loss, given)]


def test_sdpa_a_segment_equals_plain_softmax() -> None:
    where = layout()
    given = inputs(sum(where.query_lengths))
    ours = with_gradients(attend(given, where, varlen=False), given)
    for mine, theirs in zip(ours, with_gradients(plain(*given, where), given), strict=True):
        assert (mine - theirs).norm() <= 1e-6 * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [1, 7, 10_000])
def test_sinks_and_windows_equal_plain_softmax(window: int, dtype: torch.dtype) -> None:
    where = layout()
    given = [t.detach().to(dtype) for t in inputs(sum(where.query_lengths))]
    given = [*given, torch.tensor([-3.0, 0.0, 1.0, 5.0])]
    exact = [t.clone().float().requires_grad_() for t in given]
    given = [t.requires_grad_() for t in given]
    ours = attend(given[:3], where, varlen=False, sliding_window=window, s_aux=given[3])
    theirs = plain(*exact[:3], where, window=window, sinks=exact[3])
    assert ours.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 1 / 128
    pairs = zip(with_gradients(ours, given), with_gradients(theirs, exact), strict=True)
    for mine, reference in pairs:
        assert (mine - reference).norm() <= bound * reference.norm()


@pytest.mark.parametrize("window", [None, 7])
def test_the_varlen_call_fits_the_operator(window: int | None) -> None:
    """Its arguments through torch's own shape rules: there is no kernel for a CPU."""
    where = layout("meta")
    given = inputs(sum(where.query_lengths), "meta")
    ours = with_gradients(attend(given, where, varlen=True, sliding_window=window), given)
    assert ours[0].shape == (1, sum(where.query_lengths), HEADS, WIDTH)
    assert ours[0].dtype == torch.bfloat16
    assert [g.shape for g in ours[1:]] == [t.shape for t in given]
    within = where.within(window)
    assert within.query_starts.dtype == within.key_starts.dtype == torch.int32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("window", [1, 7, 10_000])
def test_varlen_equals_plain_softmax(window: int) -> None:
    where = layout("cuda")
    given = inputs(sum(where.query_lengths), "cuda", torch.bfloat16)
    exact = [t.detach().float().requires_grad_() for t in given]
    ours = with_gradients(attend(given, where, varlen=True, sliding_window=window), given)
    reference = with_gradients(plain(*exact, where, window=window), exact)
    for mine, theirs in zip(ours, reference, strict=True):
        assert (mine - theirs).norm() <= theirs.norm() / 64


@pytest.mark.parametrize(
    ("device", "dtype", "changes", "expected"),
    [
        ("cuda", torch.bfloat16, {"head_dim": 16}, "shared prefix (varlen)"),
        ("cuda", torch.float32, {"head_dim": 16}, "shared prefix (sdpa)"),
        ("cuda", torch.bfloat16, {"head_dim": 12}, "shared prefix (sdpa)"),
        ("cuda", torch.bfloat16, {"head_dim": 264}, "shared prefix (sdpa)"),
        ("cpu", torch.bfloat16, {"head_dim": 16}, "shared prefix (sdpa)"),
    ],
)
def test_varlen_is_taken_where_its_kernel_serves(
    device: str, dtype: torch.dtype, changes: dict[str, int], expected: str
) -> None:
    model = tiny_model("llama", **changes)
    found = attention_path(model, shared=True, device=torch.device(device), dtype=dtype)
    assert found == expected
    model.layers[0].self_attn.sinks = nn.Parameter(torch.zeros(4))
    sinks = attention_path(model, shared=True, device=torch.device(device), dtype=dtype)
    assert sinks == "shared prefix (sdpa)"
    assert attention_path(model, shared=False, device=torch.device(device), dtype=dtype) == "padded"


def test_a_mask_or_dropout_is_refused() -> None:
    where = layout()
    given = inputs(sum(where.query_lengths))
    with pytest.raises(ValueError, match="no mask and no dropout"):
        shared_prefix_attention(torch.nn.Identity(), *given, None, layout=where, dropout=0.1)


@pytest.mark.parametrize("varlen", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_no_layer_reads_the_device(family: str, varlen: bool) -> None:
    """On the meta device every read by the host (item, tolist, a branch on a value) raises."""
    backbone = tiny_model(family).bfloat16().to("meta")
    backbone.set_attn_implementation(NAME)
    packed = pack([group(one) for one in conversations()], "meta")
    hidden = backbone(
        input_ids=packed.ids,
        position_ids=packed.positions,
        layout=packed.layout,
        varlen=varlen,
        use_cache=False,
    ).last_hidden_state
    hidden[0, packed.ends].sum().backward()
    assert hidden.is_meta


# The last layer is exact on the rows that are read, and does nothing for the others.

MADE = conversations(3, groups=4)
ENDS = len(flat(MADE))
TOKENS = sum(group(one).tokens for one in MADE)
PARTS = {
    "llama": ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp"),
    "gpt_neox": ("attention.dense", "post_attention_layernorm", "mlp"),
    "gemma": ("self_attn.q_proj", "self_attn.o_proj", "mlp"),
}


def rows_through(layer: nn.Module, part: str, seen: dict[str, int]) -> None:
    def note(_: Any, given: tuple[torch.Tensor]) -> None:
        seen[part] = given[0].shape[1]

    # The innermost matrix: hooks on `part` itself would run before those that are looked for.
    module = layer.get_submodule(part)
    inner = next((m for m in module.modules() if isinstance(m, nn.Linear)), module)
    inner.register_forward_pre_hook(note)


@pytest.mark.parametrize("family", PARTS)
def test_only_the_ends_go_through_the_last_layer_and_all_tokens_through_the_others(
    family: str,
) -> None:
    model = tiny_reward_model(family)
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    inner = [p for p in PARTS[family] if not p.endswith(("q_proj", "o_proj", "dense"))]
    for part in inner:
        rows_through(model.backbone.layers[-1], part, last)
        rows_through(model.backbone.layers[0], part, first)
    rewards(model, "shared", MADE)
    assert model.narrow
    assert last == dict.fromkeys(inner, ENDS)
    assert first == dict.fromkeys(inner, TOKENS)


@pytest.mark.parametrize("family", PARTS)
def test_nothing_is_left_behind_on_the_layer(family: str) -> None:
    """Padded rows after a packed one, and a packed one after an error, are as before."""
    model = tiny_reward_model(family)
    padded, shared = rewards(model, "padded", MADE), rewards(model, "shared", MADE)
    model.backbone.layers[-1].mlp.register_forward_hook(fail := Once())
    with pytest.raises(ZeroDivisionError):
        rewards(model, "shared", MADE)
    assert fail.done
    assert torch.equal(rewards(model, "padded", MADE), padded)
    assert torch.equal(rewards(model, "shared", MADE), shared)


class Once:
    """A hook that raises the first time."""

    done = False

    def __call__(self, *_: object) -> None:
        if not self.done:
            self.done = True
            raise ZeroDivisionError


def test_adapters_inside_the_last_layer_learn_the_same() -> None:
    model = tiny_reward_model("llama")
    choose_trainable(model, TrainOptions(trainable=Trainable(lora=LoraOptions(rank=4))))
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # Zero at first, which would hide a difference.
            nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(2))
    reference, narrow = (gradients(model, path, MADE) for path in ("padded", "shared"))
    assert (narrow - reference).norm() <= 1e-5 * reference.norm()


def test_a_layer_of_another_build_stays_whole_and_equal() -> None:
    config = Olmo2Config(
        vocab_size=400, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    model = RewardModel(Olmo2Model(config).eval(), ChatTokens(tiny_tokenizer(), BaseOptions()))
    assert model.shared
    assert not model.narrow
    torch.testing.assert_close(
        rewards(model, "shared", MADE), rewards(model, "padded", MADE), rtol=1e-5, atol=1e-6
    )


def test_ends_of_a_layout_are_last_rows_that_see_their_whole_conversation() -> None:
    packed = pack([group(one) for one in MADE])
    ends = packed.layout.ends
    assert ends is not None
    assert ends.rows is not None
    assert torch.equal(ends.rows, packed.ends)
    assert ends.query_lengths == (1,) * ENDS
    row = packed.ids[0]
    for tokens, kept in zip(flat(MADE), ends.gather.split(ends.key_lengths), strict=True):
        assert row[kept].tolist() == tokens.tolist()
