"""What a GPU is asked, question by question; `benchmarks/gpu.sh` asks all and writes one JSON.

    python -m benchmarks.gpu correctness [--dry]   packed paths against the padded reference
    python -m benchmarks.gpu mfu [--dry]           training steps at 1B and 7B shapes
    python -m benchmarks.gpu together FOLDER       the answers of all questions as one object

Weights are random and shapes those of well-known models (`palate.train.cost.SHAPES`): neither
agreement nor speed depends on what a model has learnt. Lengths are those of HH where
`benchmarks/.work` holds prepared pairs, else drawn with HH's medians.
Each prints one JSON line. `--dry` takes tiny shapes and runs on a CPU.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from benchmarks.peers.contender import WORK
from benchmarks.peers.worker import read_rows
from benchmarks.train.ours import Trainer
from palate.model.backbone import dequantised, smollm2_path
from palate.model.compute import apply_compute
from palate.model.device import default_device
from palate.model.options import BaseOptions, Compute
from palate.model.packing import group
from palate.model.reward_model import RewardModel
from palate.model.tokenizer import ChatTokens
from palate.train.batching import split_step
from palate.train.cost import PEAKS, shape_config
from palate.train.dataset import Example
from palate.train.options import Trainable, TrainOptions
from palate.types import PalateError, Rating

Facts = dict[str, Any]
# Medians in SmolLM2's tokens of the HH pairs that `docs/plan.md` measures, and their spread as
# seen there: the logarithms of lengths are about normal.
PROMPT, RESPONSE, SPREAD = 125, 46, 0.8
TINY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
# Rewards against those of the padded reference in the same format, in standard deviations; and
# gradients, as a part of the gradient's norm. float32 differs by the order of sums alone, bfloat16
# rounds states to 8 bits: parity's bound of it.
SIDES = ("chosen_ids", "rejected_ids")
BOUNDS = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (0.2, 0.2)}


def pairs(count: int, vocabulary: int, seed: int = 0) -> list[Example]:
    """Comparisons of random tokens with HH's lengths, each with a prompt of its own."""
    draw = np.random.default_rng(seed)
    prepared = sorted(WORK.glob("*/pairs.jsonl"))
    if prepared:
        rows = read_rows(prepared[0])
        drawn = [rows[i] for i in draw.permutation(len(rows))[:count]]
        parts = [group([np.asarray(row[side]) for side in SIDES]) for row in drawn]
        lengths = [(len(one.prefix), *map(len, one.suffixes)) for one in parts]
    else:
        middles = np.array([PROMPT, RESPONSE, RESPONSE])
        drawn_lengths = middles * np.exp(SPREAD * draw.standard_normal((count, 3)))
        lengths = [tuple(row) for row in drawn_lengths.clip(2, 500).astype(int).tolist()]
    made = []
    for number, (prompt, *responses) in enumerate(lengths):
        prefix = draw.integers(10, vocabulary, prompt)
        sides = [np.append(prefix, draw.integers(10, vocabulary, n)) for n in responses]
        chosen, rejected = (side.astype(np.int32) for side in sides)
        made.append(Example(str(number), f"{number:032x}", chosen, rejected, Rating(1), None, None))
    return made


def model_of(
    shape: str, dtype: torch.dtype, *, dry: bool, layers: int | None = None
) -> RewardModel:
    """A reward model of a well-known shape with random float32 weights, on this device."""
    tokenizer = AutoTokenizer.from_pretrained(dequantised(smollm2_path())[0])
    config = shape_config(shape)
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    config.pad_token_id = tokenizer.pad_token_id
    if dry:
        config.update(TINY)
    if layers is not None and not dry:
        config.num_hidden_layers = layers
    torch.manual_seed(0)
    with default_device():
        backbone = AutoModel.from_config(config, dtype=torch.float32)
    chat = ChatTokens(tokenizer, BaseOptions(template="chatml", max_tokens=1_024))
    return RewardModel(backbone, chat, dtype=dtype).to(default_device()).eval()


# Is the packed path right, by the kernel that this device takes?


def correctness(dry: bool) -> Facts:
    """Rewards and gradients of packed rows with shared prompts against padded rows."""
    found: list[Facts] = []
    for dtype, (of_rewards, of_gradients) in BOUNDS.items():
        for heads in ("llama3-1b", "llama2-7b"):  # Grouped queries of 64, full heads of 128.
            model = model_of(heads, dtype, dry=dry, layers=4)
            examples = pairs(4 if dry else 32, 40_000)
            groups = [group([e.chosen, e.rejected]) for e in examples]
            rows = [side for e in examples for side in (e.chosen, e.rejected)]
            ways: dict[str, Callable[[], Tensor]] = {
                "packed": lambda m=model, g=groups: m(g).reward,
                "padded": lambda m=model, r=rows: m.forward_padded(r).reward,
            }
            rewards, gradients = {}, {}
            for name, way in ways.items():
                model.zero_grad(set_to_none=True)
                value = way()
                (value[0::2] - value[1::2]).sum().backward()
                rewards[name] = value.detach().float()
                gradients[name] = gradient_of(model)
            spread = float(rewards["padded"].std())
            apart = float((rewards["packed"] - rewards["padded"]).abs().max()) / spread
            size = float(gradients["padded"].norm())
            turned = float((gradients["packed"] - gradients["padded"]).norm()) / size
            found.append(
                {
                    "shape": heads,
                    "dtype": str(dtype).removeprefix("torch."),
                    "path": model.path,
                    "rewards_apart_sd": apart,
                    "gradient_apart": turned,
                    "holds": apart <= of_rewards and turned <= of_gradients,
                }
            )
            del model, gradients
            free()
    return {"holds": all(one["holds"] for one in found), "cases": found}


def gradient_of(model: RewardModel) -> Tensor:
    """The gradient of the first layer's matrices and the head: what passed every layer."""
    layers: Any = model.backbone.layers
    parts = [*layers[0].parameters(), *model.head.parameters()]
    return torch.cat([p.grad.flatten().float() for p in parts if p.grad is not None])


# How much of the device's peak does a training step use?


def mfu(dry: bool, gpu: str) -> Facts:
    """Optimizer steps over HH's lengths: operations of the blocks' matrices over the peak."""
    shapes = ("llama3-1b", "llama2-7b")
    return {
        "peak_flops": PEAKS[gpu],
        "gpu": gpu,
        "steps": [step_of(shape, dry, PEAKS[gpu]) for shape in shapes],
    }


def step_of(shape: str, dry: bool, peak: float) -> Facts:
    """The best of a few settings of one shape; those that do not fit are said so."""
    tried = []
    for budget, recompute in ((16_384, "none"), (16_384, "full"), (8_192, "full"), (4_096, "full")):
        try:
            tried.append(timed_steps(shape, 1_024 if dry else budget, recompute, dry, peak))
        except (torch.OutOfMemoryError, PalateError) as error:
            tried.append({"budget": budget, "recompute": recompute, "why_not": str(error)[:120]})
        free()
        if dry:
            break
    done = [one for one in tried if "seconds_per_step" in one]
    best = min(done, key=lambda one: one["seconds_per_step"], default={})
    return {"shape": shape, **best, "tried": tried}


def timed_steps(shape: str, budget: int, recompute: Any, dry: bool, peak: float) -> Facts:
    """Seconds of an optimizer step, the first one left out; shared prompts, bfloat16."""
    model = model_of(shape, torch.bfloat16, dry=dry)
    layers = model.backbone.config.num_hidden_layers
    options = TrainOptions(
        learning_rate=1e-6,
        tokens_per_microbatch=budget,
        margin="small",
        trainable=Trainable(last_layers=layers),
    )
    trainer = Trainer(model, "shared", options)
    apply_compute(model, Compute(activation_checkpointing=recompute))
    examples = pairs(8 if dry else 256, 40_000)
    seconds, facts = [], {}
    for number in range(2 if dry else 4):
        started = time.perf_counter()
        facts = trainer.step(examples)  # Ends in a number on the host, so all of it is done.
        synchronise()
        if number:
            seconds.append(time.perf_counter() - started)
    middle = median(seconds)
    return {
        "budget": budget,
        "recompute": recompute,
        "parameters": sum(p.numel() for p in model.parameters()),
        "path": model.path,
        "seconds_per_step": middle,
        "pairs_per_second": facts["pairs"] / middle,
        "real_tokens_per_second": facts["real_tokens"] / middle,
        "computed_tokens_per_second": facts["computed_tokens"] / middle,
        "mfu": facts["flops"] / middle / peak if torch.cuda.is_available() else None,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9
        if torch.cuda.is_available()
        else None,
        "microbatches": len(split_step(examples, options.margins(), budget).parts),
    }


def synchronise() -> None:
    """Wait for what the GPU was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free() -> None:
    """Give memory back before the next case."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def together(folder: Path) -> Facts:
    """The answers by question: the last line of each file, or why there is none."""
    answers: Facts = {"device": device_facts()}
    for file in sorted(folder.glob("*.out")):
        lines = file.read_text(encoding="utf-8").strip().splitlines()
        try:
            answers[file.stem] = json.loads(lines[-1])
        except (IndexError, ValueError):
            log = file.with_suffix(".err")
            words = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
            answers[file.stem] = {"not_answered": (words or ["nothing was said"])[-1][:300]}
    return answers


def device_facts() -> Facts:
    """What answered."""
    device = default_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {"device": device.type, "name": name, "torch": torch.__version__}


def main() -> None:
    """Answer one question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question", choices=("correctness", "mfu", "together"))
    parser.add_argument("folder", type=Path, nargs="?", help="of the answers, for `together`")
    parser.add_argument("--dry", action="store_true", help="tiny shapes")
    parser.add_argument("--gpu", choices=PEAKS, default="h200", help="whose peak is the yardstick")
    given = parser.parse_args()
    if given.question == "together":
        if given.folder is None:
            parser.error("together: expected the FOLDER of the answers")
        print(json.dumps(together(given.folder)))
        return
    answer = (
        correctness(given.dry) if given.question == "correctness" else mfu(given.dry, given.gpu)
    )
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
