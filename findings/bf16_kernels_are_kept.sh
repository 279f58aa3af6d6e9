#!/bin/bash
# torch 2.13 on a CPU with AMX: the backward pass of bfloat16 attention keeps memory for every new
# sequence length until the process ends; float32 does not. A program whose batches have many
# lengths (packed rows, no padding) grows by hundreds of megabytes without holding a single tensor.
# The work is the same in both: 320 lengths, each tensor freed before the next.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q numpy
cat > "$work/grow.py" <<'PY'
import random
import sys

import torch
import torch.nn.functional as F

if not torch.cpu._is_amx_tile_supported():
    print("not to be seen here: this CPU has no AMX")
    sys.exit(0)
torch.set_num_threads(1)


def private_megabytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon"))


def grown(dtype):
    lengths = list(range(20, 340))
    random.Random(0).shuffle(lengths)
    before = private_megabytes()
    for n in lengths:
        q, k, v = (torch.randn(1, 9, n, 64, dtype=dtype, requires_grad=True) for _ in range(3))
        F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
    del q, k, v
    return private_megabytes() - before


print("torch", torch.__version__)
full, half = grown(torch.float32), grown(torch.bfloat16)
print(f"320 sequence lengths, forward and backward: float32 +{full} MB, bfloat16 +{half} MB kept")
sys.exit(not (half > 300 and half > 5 * max(full, 1)))
PY
"$work/venv/bin/python" "$work/grow.py"
