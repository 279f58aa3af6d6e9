"""Operations and times against arithmetic, and against torch's own count."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from palate.model.options import BaseOptions
from palate.model.packing import Group
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.cost import (
    COLLECTIVE,
    Data,
    Setup,
    anatomy,
    communication_bytes,
    layer_rate,
    microbatches,
    pace,
    work,
)
from palate.train.options import Trainable, TrainOptions
from palate.train.trainable import choose_trainable
from tiny import tiny_config, tiny_model, tiny_tokenizer

CHAT = ChatTokens(tiny_tokenizer(), BaseOptions(max_tokens=256))
TINY = anatomy(tiny_config("llama"), TrainOptions())
WIDE = replace(TINY, narrow=False, matrices_of_ends=0, matrices_of_ends_trained=0)
DATA = Data(comparisons=1_000, prompt=100, response=50, pairs_per_step=64)


def counted(options: TrainOptions) -> tuple[float, float]:
    """Operations of matrix products forward and backward, by torch; attention left out."""
    model = RewardModel(tiny_model("llama"), CHAT).train()
    choose_trainable(model, options)
    tokens = [np.arange(n, dtype=np.int32) for n in (100, 50, 50)]
    group = Group(tokens[0], (tokens[1], tokens[2]))
    with FlopCounterMode(display=False) as forward:
        loss = model([group]).reward.sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return _products(forward), _products(backward)


def _products(counter: FlopCounterMode) -> float:
    total = counter.get_flop_counts()["Global"]
    return float(sum(n for name, n in total.items() if str(name) in ("aten.mm", "aten.addmm")))


@pytest.mark.parametrize("learns", ["full", Trainable(last_layers=1)], ids=["full", "last_layers"])
def test_products_are_those_that_torch_counts(learns) -> None:
    options = TrainOptions(trainable=learns)
    forward, backward = counted(options)
    without_attention = replace(anatomy(tiny_config("llama"), options), query_width=0)
    done = work(without_attention, DATA, Setup())
    assert done.forward == pytest.approx(forward, rel=0.01)
    # The first layer that learns needs no gradient of its input, where that is frozen.
    assert done.backward == pytest.approx(backward, rel=0.01 if learns == "full" else 0.2)


def test_full_training_is_six_operations_a_weight_and_token() -> None:
    done = work(replace(WIDE, query_width=0), DATA, Setup())
    heads = WIDE.matrices - WIDE.matrices_passed
    assert done.model == pytest.approx((6 * WIDE.matrices - 2 * heads) * DATA.tokens)


def test_attention_counts_each_query_and_the_keys_it_sees() -> None:
    p, r = 7, 3
    pairs = sum(range(1, p + 1)) + 2 * sum(range(p + 1, p + r + 1))
    data = Data(1, p, r)
    found = work(replace(WIDE, matrices=0), data, Setup()).forward
    # The closed form leaves out half of the diagonal.
    halves = (p + 2 * r) / 2
    assert found == pytest.approx(4 * WIDE.query_width * WIDE.layers * (pairs - halves))


def test_recomputing_adds_half_or_all_of_the_forward_pass() -> None:
    done = [work(WIDE, DATA, Setup(checkpointing=how)) for how in ("none", "selective", "full")]
    assert [d.recomputed for d in done] == pytest.approx(
        [0, done[2].recomputed / 2, done[0].forward], rel=0.001
    )
    assert len({d.model for d in done}) == 1
    kept = work(TINY, DATA, Setup(checkpointing="full"))
    assert 0.6 * done[2].recomputed < kept.recomputed < 0.75 * done[2].recomputed, "two of three"


def test_a_narrow_last_layer_attends_from_two_tokens() -> None:
    data, without = Data(1, 7, 3), {"matrices": 0, "matrices_of_ends": 0}
    saved = work(replace(WIDE, **without), data, Setup()).forward
    saved -= work(replace(TINY, **without), data, Setup()).forward
    layer = 4 * TINY.query_width * (7 * 7 / 2 + 2 * (7 * 3 + 3 * 3 / 2))
    assert saved == pytest.approx(layer - 4 * TINY.query_width * 2 * 10)


def test_a_step_lasts_as_long_as_the_slower_of_both() -> None:
    setup = Setup(processes=4, shards=4, device="cuda", bfloat16=True, microbatch=6_400)
    done = pace(TINY, DATA, setup, rate=1e9, utilisation=0.5)
    assert done.compute == pytest.approx(work(TINY, DATA, setup).model * 64 / (4 * 1e9 * 0.5))
    assert microbatches(DATA, setup) == 1
    moved = 3 / 4 * (2 * 2 * TINY.parameters + 4 * TINY.trainable)
    assert communication_bytes(TINY, DATA, setup) == pytest.approx(moved)
    assert done.communication == pytest.approx(moved / COLLECTIVE)
    assert done.step == done.compute
    assert DATA.steps == 16


def test_one_process_does_not_communicate() -> None:
    assert communication_bytes(TINY, DATA, Setup()) == 0


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_measured_rate_is_of_one_layer_and_leaves_the_configuration(family, dtype) -> None:
    config = tiny_config(family)
    before = config.to_dict()
    assert 1e6 < layer_rate(config, DATA, dtype) < 1e13
    assert config.to_dict() == before
