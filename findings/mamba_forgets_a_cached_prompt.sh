#!/bin/bash
# transformers 5.24.0: a Mamba, Falcon-Mamba or Jamba that goes on from a cache with more than one token
# forgets what it read before. The convolution reads the cached tokens; the scan starts from zeros
# (`mamba_selective_scan` takes no state, and the mixer hands it none). Nothing is said. So a prompt that is
# cached once and continued several times gives other states than one that is read with what follows;
# token by token it is right, and so are Bamba and Qwen3-Next, whose scans take the state. Each model has
# random weights and reads 12 tokens: at once, 8 then 4, and 8 then one by one.
# Exits 1 if all agree.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0
cat > "$work/forget.py" <<'PY'
import torch
import transformers
from transformers import AutoConfig, AutoModel, DynamicCache

print("transformers", transformers.__version__)
torch.set_num_threads(1)
KINDS = {
    "mamba": {"state_size": 8},
    "falcon_mamba": {"state_size": 8},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 1, "mamba_d_state": 8},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8},
    "qwen3_next": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"], "head_dim": 8,
        "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "num_experts": 0, "mlp_only_layers": [0, 1, 2],
    },
}
apart = {}
for kind, more in KINDS.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, pad_token_id=0, initializer_range=0.3, **more,
    )
    model = AutoModel.from_config(config).eval()
    ids = torch.randint(1, 99, (1, 12))

    def last(*pieces):
        cache, start = DynamicCache(config=config), 0
        for length in pieces:
            where = {} if "mamba" == kind or "falcon_mamba" == kind else {
                "position_ids": torch.arange(start, start + length)[None]
            }
            out = model(ids[:, start : start + length], cache=cache, use_cache=True, **where)
            start += length
        return out.last_hidden_state[0, -1]

    with torch.no_grad():
        whole, two, single = last(12), last(8, 4), last(8, 1, 1, 1, 1)
    apart[kind] = [float((x - whole).norm() / whole.norm()) for x in (two, single)]
    print(f"{kind:13} 8 tokens, then 4: {apart[kind][0]:.1e} apart; then one by one: {apart[kind][1]:.1e}")
forgotten = [kind for kind, (two, single) in apart.items() if two > 1e-2 and single < 1e-4]
raise SystemExit(0 if forgotten == ["mamba", "falcon_mamba", "jamba"] else 1)
PY
"$work/venv/bin/python" "$work/forget.py" 2>/dev/null
