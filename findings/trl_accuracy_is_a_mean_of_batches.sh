#!/bin/bash
# 9 held-out comparisons, the reward model gets 8 right: a good engineer expects eval_accuracy = 8/9, whatever
# the batch size. TRL's RewardTrainer averages the accuracies of the batches, each with the same weight: with
# the batch size it starts with, 8, the last batch is the one wrong comparison alone and eval_accuracy is 0.5; with 4
# it is 0.667, with 3 or 9 it is 0.889. eval_margin and the rewards' min, mean and max go the same way, while
# eval_loss right beside them (the Trainer's own) is weighted by items and never moves.
# Who is hurt: who chooses a checkpoint by eval_accuracy, or compares it across batch sizes or numbers of GPUs,
# or with another trainer; worst for small hold-outs and for sorted ones, whose last batch is unlike the rest.
# Cure: a batch size that divides the number of comparisons, or count verdicts from the scores yourself.
# Versions: trl 1.16.0, transformers 5.24.0, datasets 5.2.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check trl==1.16.0 transformers==5.24.0 datasets==5.2.0
cat > "$folder/accuracy.py" <<'PY'
import sys
import warnings

import torch
import trl
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

warnings.simplefilter("ignore")
disable_progress_bar()
torch.manual_seed(0)
size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForSequenceClassification(LlamaConfig(vocab_size=64, num_labels=1, pad_token_id=0, **size)).eval()
words = Tokenizer(models.WordLevel({"[PAD]": 0, "[EOS]": 1}, unk_token="[PAD]"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[EOS]")
with torch.no_grad():  # The answers this random model likes best and least, of all answers of one token.
    rewards = model(input_ids=torch.arange(2, 64)[:, None]).logits[:, 0]
best, worst = [int(rewards.argmax()) + 2], [int(rewards.argmin()) + 2]
right, wrong = {"chosen_ids": best, "rejected_ids": worst}, {"chosen_ids": worst, "rejected_ids": best}
held_out = Dataset.from_list([right] * 8 + [wrong])
print("trl", trl.__version__, "- 8 of 9 comparisons right, so", round(8 / 9, 4))
found, losses = {}, []
for batch in (3, 9, 4, 8):
    args = RewardConfig(
        sys.argv[1], per_device_eval_batch_size=batch, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True
    )
    trainer = RewardTrainer(model, args, train_dataset=held_out, eval_dataset=held_out, processing_class=tokenizer)
    got = trainer.evaluate()
    found[batch] = got["eval_accuracy"]
    losses.append(got["eval_loss"])
    print(f"batches of {batch}: eval_accuracy {found[batch]:.4f}  eval_margin {got['eval_margin']:.4f}", end="  ")
    print(f"eval_loss {got['eval_loss']:.4f}")
assert RewardConfig(sys.argv[1], use_cpu=True, bf16=False).per_device_eval_batch_size == 8
assert max(losses) - min(losses) < 1e-4
assert abs(found[3] - 8 / 9) < 1e-4 and abs(found[9] - 8 / 9) < 1e-4
assert abs(found[8] - 0.5) < 1e-4 and abs(found[4] - 2 / 3) < 1e-4, "accuracy is weighted by items now"
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/accuracy.py" "$folder/out" 2> "$folder/errors" | grep -v "^{" || { cat "$folder/errors"; exit 1; }
