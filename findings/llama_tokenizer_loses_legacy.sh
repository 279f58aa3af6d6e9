#!/bin/bash
# transformers 5.24 loses `legacy` when it saves a LlamaTokenizer: read back, the same text has other tokens.
#
# A tokenizer_config.json of Llama 2's kind says `"legacy": true`, and AutoTokenizer honours it: after a
# special token a blank is put before the text. `save_pretrained` does not write `legacy`. It does write the
# pre-tokenizer to tokenizer.json, but the class builds its own from its arguments and does not read
# that. So the copy of what was just loaded splits "<s>x</s>x" otherwise, without a warning: a checkpoint
# that is fine-tuned and saved beside its tokenizer is read with tokens that it was not trained on.
#
# A guess would be: load, save, load is the same tokenizer, since tokenizer.json holds all of it.
# Exits non-zero where that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/pip" --disable-pip-version-check --quiet install "$@"; }
pip torch==2.13.0
pip transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import transformers
from transformers import AutoTokenizer, LlamaTokenizer

print("transformers", transformers.__version__)
marks = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz", "▁x"]
vocab = {token: number for number, token in enumerate(marks)}
LlamaTokenizer(vocab=vocab, merges=[("▁", "x")]).save_pretrained("hub")

# As in the repositories of Llama 2 and its kin.
config = Path("hub/tokenizer_config.json")
config.write_text(json.dumps(json.loads(config.read_text()) | {"legacy": True}))

loaded = AutoTokenizer.from_pretrained("hub")
loaded.save_pretrained("saved")
again = AutoTokenizer.from_pretrained("saved")

text = "<s>x</s>x"
before, after = (t.tokenize(text, add_special_tokens=False) for t in (loaded, again))
print("legacy in the saved tokenizer_config.json:", "legacy" in json.loads(Path("saved/tokenizer_config.json").read_text()))
print(f"{text!r} as loaded:    {before}")
print(f"{text!r} read back:    {after}")
pre = [json.loads(Path(f"{f}/tokenizer.json").read_text())["pre_tokenizer"] for f in ("hub", "saved")]
print("pre_tokenizer in the saved tokenizer.json:", pre[1])
print("pre_tokenizer of the tokenizer read back: ", again.backend_tokenizer.pre_tokenizer)
raise SystemExit(before == after)
PYTHON
echo "still so: what was saved is read back as another tokenizer"
