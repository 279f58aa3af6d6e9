#!/bin/bash
# Two LoRA adapters of a reward model, each with a score head of its own (task_type SEQ_CLS saves the head with
# the adapter). Merge both into the base, merge_and_unload(adapter_names=["a", "b"]), as for an average of
# reward models: a good engineer expects the heads to be merged as well, or a refusal, which is what peft gives
# for the same two at other doors: base_model.set_adapter(["a", "b"]) and add_weighted_adapter both raise
# because of the head. The merge says nothing: it adds both adapters' deltas to the backbone and keeps the head
# of the ACTIVE adapter alone, even if that adapter is not among the merged: after set_adapter("c") the model
# has a's and b's backbone under c's head, and its reward is that of no model anyone trained.
# Who is hurt: who makes soups of reward models, or merges one of several adapters by its name before serving.
# Cure: set_adapter(name) before merging one; to mix rewards, score with each adapter and average the scores.
# Versions: peft 0.21.2, transformers 5.24.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check peft==0.21.2 transformers==5.24.0
cat > "$folder/heads.py" <<'PY'
import copy

import peft
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

torch.manual_seed(0)
size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
base = LlamaForSequenceClassification(LlamaConfig(vocab_size=64, num_labels=1, pad_token_id=0, **size)).eval()
lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"])
model = get_peft_model(base, lora, adapter_name="first")
for name in ("second", "third"):
    model.add_adapter(name, lora)
MEANS = {"first": 1.0, "second": 2.0, "third": 3.0}  # What the heads' weights are, in place of a training.
with torch.no_grad():
    for name, weight in model.named_parameters():
        for adapter, mean in MEANS.items():
            if f".{adapter}." in name:
                weight.copy_(torch.full_like(weight, mean) if "score" in name else torch.randn_like(weight) / 5)
answer = torch.arange(1, 9)[None]


def reward(scorer):
    with torch.no_grad():
        return scorer(input_ids=answer).logits.item()


def refused(call):
    try:
        call()
    except ValueError as error:
        return str(error)


print("peft", peft.__version__)
pair = ["first", "second"]
doors = {
    "set_adapter": lambda: model.base_model.set_adapter(pair),
    "add_weighted_adapter": lambda: model.add_weighted_adapter(pair, [0.5, 0.5], "mixed", combination_type="linear"),
}
for door, call in doors.items():
    print(f"{door} of both refuses:", bool(refused(call)))
    assert refused(call), door
heads, scores = {}, {}
for active in MEANS:
    model.set_adapter(active)
    own = reward(model)
    merged = copy.deepcopy(model).merge_and_unload(adapter_names=pair)
    heads[active], scores[active] = merged.score.weight.mean().item(), reward(merged)
    print(f"active {active:6}: its own reward {own:8.4f}", end="; ")
    print(f"first + second merged: head {heads[active]:.1f}, reward {scores[active]:8.4f}")
model.set_adapter("third")
one = copy.deepcopy(model).merge_and_unload(adapter_names=["first"])
print(f"third active, first merged alone: head {one.score.weight.mean().item():.1f} (first's own is 1.0)")
assert {name: round(mean, 4) for name, mean in heads.items()} == MEANS, "the head no longer follows the active one"
assert round(one.score.weight.mean().item(), 4) == 3.0, "the head is the merged adapter's now"
assert len({round(score, 4) for score in scores.values()}) == 3
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/heads.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
