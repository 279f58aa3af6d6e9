#!/bin/bash
# predict() of TRL's RewardTrainer on 10 comparisons: a good engineer expects 10 rows of two rewards, or 20
# rewards with all the chosen ones first, and compares predictions[:10] with predictions[10:]. It gives 18 in
# batches of 4: a flat list in which each batch has its own chosen and then its own rejected ones, and of the
# last batch (2 comparisons, 4 rewards) only the chosen are there: the rejected answers' rewards are gone.
# The Trainer cuts the last batch of outputs to as many as there were items left, and a comparison has two.
# compute_metrics gets the same list, so an accuracy made in it (halves compared) is wrong without an error:
# here 0.11 for a model that is right in all 10. Only if the batch size divides the data is nothing lost.
# Who is hurt: who writes compute_metrics or exports rewards with predict() for a reward model.
# Cure: score texts with the model itself, or batches that divide the data, undone batch by batch.
# Versions: trl 1.16.0, transformers 5.24.0, accelerate 1.15.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check trl==1.16.0 transformers==5.24.0 accelerate==1.15.0
cat > "$folder/predict.py" <<'PY'
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
with torch.no_grad():  # Ten answers of one token that this random model likes and ten that it does not.
    reward = model(input_ids=torch.arange(2, 64)[:, None]).logits[:, 0]
order = (reward.argsort() + 2).tolist()
pairs = list(zip(order[-10:], order[:10]))
held_out = Dataset.from_list([{"chosen_ids": [good], "rejected_ids": [bad]} for good, bad in pairs])
print("trl", trl.__version__, "- 10 comparisons, the model is right in all")
sizes, told, rewards = {}, {}, {}
for batch in (5, 10, 4):
    args = RewardConfig(
        sys.argv[1], per_device_eval_batch_size=batch, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True
    )
    trainer = RewardTrainer(model, args, train_dataset=held_out, processing_class=tokenizer)
    rewards[batch] = trainer.predict(trainer.train_dataset).predictions.ravel()
    half = len(rewards[batch]) // 2
    told[batch] = (rewards[batch][:half] > rewards[batch][half:]).mean()
    sizes[batch] = len(rewards[batch])
    print(f"batches of {batch:2}: {sizes[batch]} rewards, accuracy of the halves {told[batch]:.2f}", end="  signs ")
    print("".join("+" if one > 0 else "-" for one in rewards[batch]))
lost = [reward[bad - 2].item() for _, bad in pairs[8:]]
there = [min(abs(rewards[4] - one)) < 1e-5 for one in lost]
print("rejected answers of the last batch of 2 among the rewards:", [bool(one) for one in there])
assert sizes[10] == 20 and told[10] == 1.0
assert sizes[4] == 18 and not any(there), "no reward is lost now"
assert told[4] < 1 and told[5] < 1, "all chosen rewards come first now"
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/predict.py" "$folder/out" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
