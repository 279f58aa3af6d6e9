#!/bin/bash
# OpenRLHF 0.11.2 normalizes a reward by `mean` and `std`, two buffers that are not saved and that the
# model's __init__ fills from config.json (openrlhf/models/model.py, `_get_reward_model`). transformers 5
# opens a model on the meta device and then makes such buffers anew from empty memory: after
# `from_pretrained` they hold whatever lay there, and nothing is said: no missing key, no warning. So a reward
# model that OpenRLHF trained with `normalize_reward` and opens again (its reward server does) gives -0.0, or
# any other number, for every response. With the class as OpenRLHF writes it, on the transformers that
# OpenRLHF pins (5.15.0) and on 5.24.0. Exits 1 if the buffers come back as the config says.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
cat > "$folder/buffers.py" <<'PY'
import tempfile

import torch
import transformers
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel


class RewardModel(LlamaPreTrainedModel):  # As OpenRLHF 0.11.2 writes it (openrlhf/models/model.py).
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)
        if hasattr(config, "mean"):
            self.mean[0] = config.mean
            self.std[0] = config.std
        self.post_init()


config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
)
config.mean, config.std = 0.5, 2.0
model = RewardModel(config)
folder = tempfile.mkdtemp()
model.save_pretrained(folder)
again, info = RewardModel.from_pretrained(folder, output_loading_info=True)
print("transformers", transformers.__version__)
print("made from the config:      mean", model.mean.item(), "std", model.std.item())
print("opened by from_pretrained: mean", again.mean.item(), "std", again.std.item())
print("told:", {k: v for k, v in info.items() if v})
lost = (again.mean.item(), again.std.item()) != (0.5, 2.0)
raise SystemExit(0 if lost else 1)
PY
for version in 5.15.0 5.24.0; do
  "$folder/venv/bin/pip" install -q --disable-pip-version-check "transformers==$version"
  "$folder/venv/bin/python" "$folder/buffers.py" 2>/dev/null
done
