#!/bin/bash
# A mixture of experts in which every layer has collapsed: layer 0 sends all tokens to expert 0, layer 1 all to
# expert 1, and so on. A good engineer expects the load-balancing loss, E sum_e f_e P_e of Switch Transformers, to be
# at its worst, E times the best. transformers' load_balancing_loss_func (Mixtral, and the copies in Qwen3-MoE, OLMoE,
# gpt-oss) adds up the counts and the probabilities of all layers before it multiplies: what one layer leaves out
# another makes good, and the loss of this model is the least there is, 1, to the digit; its gradient is zero.
# Who is hurt: who trains with output_router_logits and router_aux_loss_coef, or watches aux_loss for collapse.
# Cure: the function on one layer's logits at a time, and the mean: load_balancing_loss_func((layer,), E, k).
# Versions: transformers 5.24.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.24.0
cat > "$folder/pools.py" <<'PY'
import torch
import transformers
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func as mixtral
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func as qwen3

EXPERTS, TOKENS = 4, 64
print("transformers", transformers.__version__, "-", EXPERTS, "experts, one a token: even 1, collapsed", EXPERTS)
for name, loss in (("mixtral", mixtral), ("qwen3_moe", qwen3)):
    layers = []
    for expert in range(EXPERTS):  # As many layers as experts; each sends every token to an expert of its own.
        logits = torch.zeros(TOKENS, EXPERTS)
        logits[:, expert] = 8.0
        layers.append(logits.requires_grad_())
    pooled = loss(tuple(layers), EXPERTS, 1)
    pooled.backward()
    slope = max(float(layer.grad.abs().max()) for layer in layers)
    apart = [float(loss((layer.detach(),), EXPERTS, 1)) for layer in layers]
    print(f"{name}: all layers at once {float(pooled.detach()):.4f}, slope {slope:.1e}; each by itself {apart[0]:.4f}")
    assert abs(float(pooled.detach()) - 1) < 1e-4 and slope < 1e-6, "layers are counted apart now"
    assert min(apart) > 0.99 * EXPERTS
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/pools.py"
