"""TRL's RewardTrainer as a worker: one long `train()`, held between optimizer steps.

The trainer runs unchanged through its whole data set; a callback waits for the parent's request
before each step and answers after it. A window therefore holds what a step holds: fetching and
padding of its micro-batches, forward, backward, clipping, optimizer, schedule, callbacks.
"""

import argparse
import sys
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import RewardConfig, RewardTrainer

from benchmarks.peers.worker import Facts, Requests, Window, read_rows


class Tally:
    """What the trainer's loss function was given and gave, over one step."""

    def __init__(self, trainer: RewardTrainer, microbatches: int) -> None:
        self._loss, self._microbatches = trainer.compute_loss, microbatches
        self.clear()

    def clear(self) -> None:
        """Start a step."""
        self._losses: list[torch.Tensor] = []
        self.pairs = self.real_tokens = self.computed_tokens = self.largest = 0

    def __call__(self, model: Any, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
        mask = inputs["attention_mask"]
        self.pairs += len(mask) // 2
        self.real_tokens += int(mask.sum())
        self.computed_tokens += mask.numel()
        self.largest = max(self.largest, mask.numel())
        loss = self._loss(model, inputs, **options)
        self._losses.append(loss.detach())
        return loss

    def facts(self) -> Facts:
        """The step in figures."""
        return {
            "loss": float(torch.stack(self._losses).sum()) / self._microbatches,
            "pairs": self.pairs,
            "real_tokens": self.real_tokens,
            "computed_tokens": self.computed_tokens,
            "largest_microbatch_tokens": self.largest,
        }


class Turnstile(TrainerCallback):
    """Lets one optimizer step through for each request."""

    def __init__(self, requests: Requests, tally: Tally) -> None:
        self._requests, self._waiting, self._tally = requests, iter(requests), tally

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._requests.answer(ready=True)
        self._open()

    def on_step_end(
        self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        facts = self._window.close()
        self._requests.answer(**facts, **self._tally.facts())
        self._open()
        return control

    def _open(self) -> None:
        if next(self._waiting, None) is None:
            sys.exit(0)
        self._tally.clear()
        self._window = Window()


def config(
    output: str, batch: int, microbatches: int, learning_rate: float, *, bf16: bool
) -> RewardConfig:
    """TRL's settings, equal to ours; the comment says where its default is another."""
    return RewardConfig(
        output_dir=output,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=microbatches,
        num_train_epochs=1,
        max_length=1024,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",  # Default: linear. The schedule costs nothing.
        adam_beta2=0.95,  # Default: 0.999.
        adam_epsilon=1e-5,  # Default: 1e-8.
        weight_decay=0.1,  # Default: 0.
        max_grad_norm=1.0,
        bf16=bf16,  # Default: True, float32 weights under autocast.
        gradient_checkpointing=False,  # Default: True, which would cost TRL a forward more.
        train_sampling_strategy="sequential",  # Default: random; the rows are already drawn.
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def rows_for(path: str, *, by_length: bool) -> tuple[Dataset, int]:
    """The text of the pairs in the order of the steps, and the number of pairs in one.

    With `by_length` the pairs of each step are sorted, longest first.
    """
    rows = read_rows(path)
    if by_length:
        rows.sort(key=lambda r: (r["step"], -max(len(r["chosen_ids"]), len(r["rejected_ids"]))))
    columns = ("chosen", "rejected", "margin")
    pairs_per_step = sum(row["step"] == 0 for row in rows)
    return Dataset.from_list([{c: row[c] for c in columns} for row in rows]), pairs_per_step


def main() -> None:
    """Serve training steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--by-length", action="store_true")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    requests = Requests()
    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.model, dtype=torch.float32, num_labels=1
    )
    model.get_input_embeddings().requires_grad_(False)
    rows, pairs_per_step = rows_for(arguments.rows, by_length=arguments.by_length)
    microbatches = pairs_per_step // arguments.batch
    trainer = RewardTrainer(
        model=model,
        args=config(
            arguments.output,
            arguments.batch,
            microbatches,
            arguments.learning_rate,
            bf16=arguments.dtype == "bfloat16",
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
    )
    trainer.compute_loss = tally = Tally(trainer, microbatches)
    trainer.add_callback(Turnstile(requests, tally))
    trainer.train()


if __name__ == "__main__":
    main()
