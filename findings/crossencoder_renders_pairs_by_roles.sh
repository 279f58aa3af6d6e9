#!/bin/bash
# A good engineer expects CrossEncoder(folder).predict([(question, answer)]) to tokenise two texts as one pair, as
# it did for years, or to render them as user and assistant where the model is a chat model. sentence-transformers
# 6 renders them by the chat template as the roles `query` and `document`, wherever the tokenizer has one: a ChatML
# template writes those words out, and the score is of a text that the model never read. Nothing is said.
# Who is hurt: who scores with a reward model or reranker that was trained on user and assistant turns.
# Cure: give conversations, [{"role": "user", ...}, {"role": "assistant", ...}], or a template that reads the roles.
# Versions: sentence-transformers 6.2.0, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 sentence-transformers==6.2.0
cat > "$folder/pairs.py" <<'PY'
import sys

import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

folder = sys.argv[1]
words = ["<pad>", "<|im_start|>", "<|im_end|>", "user", "assistant", "query", "document", "why", "so"]
inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<|im_end|>")
tokenizer.model_max_length = 64
tokenizer.chat_template = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
)
tokenizer.save_pretrained(folder)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, num_labels=1, pad_token_id=0,
)
LlamaForSequenceClassification(config).save_pretrained(folder)

model = CrossEncoder(folder, device="cpu", activation_fn=torch.nn.Identity())


def turns(first, second):
    return [{"role": first, "content": "why"}, {"role": second, "content": "so"}]


pair, chat, roles = (
    float(model.predict([asked])[0])
    for asked in (("why", "so"), turns("user", "assistant"), turns("query", "document"))
)
print(f"pair {pair:.6f}, as user and assistant {chat:.6f}, as query and document {roles:.6f}")
assert abs(pair - roles) < 1e-6, "a pair is no longer rendered as query and document"
assert abs(pair - chat) > 1e-4, "a pair is rendered as user and assistant now"
PY
"$folder/venv/bin/python" "$folder/pairs.py" "$folder/model"
