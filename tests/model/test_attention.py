"""Attention over segments: both kernels against plain softmax, and the rule between them."""

import pytest
import torch
from torch import Tensor

from packed import conversations
from palate.model.attention import NAME, attention_path, shared_prefix_attention
from palate.model.packing import Layout, group, pack
from tiny import tiny_model

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


def plain(query: Tensor, key: Tensor, value: Tensor, where: Layout) -> Tensor:
    """What varlen attention computes, by definition: a softmax a segment, from its arguments.

    Query i of n sees the first m - n + i + 1 of m keys; head h reads key head h // (H / Hkv).
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
        weights = logits.masked_fill(unseen, -torch.inf).softmax(-1)
        pieces.append(weights @ v[:, first:last])
        start, first = end, last
    return torch.cat(pieces, dim=1).transpose(0, 1)[None]


def attend(given: list[Tensor], where: Layout, *, varlen: bool) -> Tensor:
    return shared_prefix_attention(
        torch.nn.Identity(), *given, None, layout=where, varlen=varlen, scaling=WIDTH**-0.5
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


def test_the_varlen_call_fits_the_operator() -> None:
    """Its arguments through torch's own shape rules: there is no kernel for a CPU."""
    where = layout("meta")
    given = inputs(sum(where.query_lengths), "meta")
    ours = with_gradients(attend(given, where, varlen=True), given)
    assert ours[0].shape == (1, sum(where.query_lengths), HEADS, WIDTH)
    assert ours[0].dtype == torch.bfloat16
    assert [g.shape for g in ours[1:]] == [t.shape for t in given]
    assert where.query_starts.dtype == where.key_starts.dtype == torch.int32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_varlen_equals_plain_softmax() -> None:
    where = layout("cuda")
    given = inputs(sum(where.query_lengths), "cuda", torch.bfloat16)
    exact = [t.detach().float().requires_grad_() for t in given]
    ours = with_gradients(attend(given, where, varlen=True), given)
    for mine, theirs in zip(ours, with_gradients(plain(*exact, where), exact), strict=True):
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
    assert attention_path(model, shared=False, device=torch.device(device), dtype=dtype) == "padded"


def test_a_mask_or_dropout_is_refused() -> None:
    where = layout()
    given = inputs(sum(where.query_lengths))
    with pytest.raises(ValueError, match="no mask and no dropout"):
        shared_prefix_attention(torch.nn.Identity(), *given, None, layout=where, dropout=0.1)


@pytest.mark.parametrize("varlen", [False, True])
def test_no_layer_reads_the_device(varlen: bool) -> None:
    """On the meta device every read by the host (item, tolist, a branch on a value) raises."""
    backbone = tiny_model("llama").bfloat16().to("meta")
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
