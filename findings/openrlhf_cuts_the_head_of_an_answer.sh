#!/bin/bash
# Train a reward model with OpenRLHF on prompt, chosen and rejected (apply_chat_template and prompt_key set),
# on a tokenizer whose chat template opens the thinking part in the generation prompt, as those of reasoning
# models do. A good engineer expects each text to hold the whole answer. OpenRLHF renders the prompt WITH the
# generation prompt, renders the whole conversation, and takes what lies beyond the prompt's LENGTH. But in the
# conversation the answer does not begin with "<think>\n", so the cut is 8 characters too late, and "Yes, 7 is
# prime." becomes "s prime.", glued behind a thinking part that nobody wrote. Nothing is said, and short
# answers vanish: of a chosen "Yes" and a rejected "No" only the tail of the end-of-turn is left.
# Who is hurt: who trains a reward model from a reasoning model's checkpoint and serves it with whole answers.
# Cure: no prompt_key (whole conversations in chosen and rejected), or a template without that opening.
# Versions: openrlhf 0.11.2, transformers 5.15.0 (which it pins), torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.15.0 datasets==5.2.0 pylatexenc==2.10
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps openrlhf==0.11.2
cat > "$folder/answers.py" <<'PY'
from importlib.metadata import version

from openrlhf.datasets.reward_dataset import preprocess_data
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>")
TURNS = "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}"
ASK = "{% if add_generation_prompt %}<|assistant|>OPENING{% endif %}"
THINK = "<think>\n"


def texts(opening, question, *answers):
    tokenizer.chat_template = TURNS + ASK.replace("OPENING", opening)
    chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in answers)
    row = {"prompt": [{"role": "user", "content": question}], "chosen": chosen, "rejected": rejected}
    prompt, chosen, rejected, _ = preprocess_data(
        row, prompt_key="prompt", apply_chat_template=tokenizer.apply_chat_template
    )
    return prompt + chosen, prompt + rejected  # What RewardDataset tokenizes.


print("openrlhf", version("openrlhf"), "transformers", version("transformers"))
asked = "Is 7 prime?", "Yes, 7 is prime.", "No, 7 is not prime."
for name, opening in {"plain": "", "thinking": THINK}.items():
    print(f"{name} template:", *map(repr, texts(opening, *asked)), sep="\n   ")
short = texts(THINK, "Is 7 prime?", "Yes", "No")
print("thinking, short answers:", *map(repr, short), sep="\n   ")
assert all(answer in text for answer, text in zip(asked[1:], texts("", *asked)))
whole = [answer in text for answer, text in zip(asked[1:], texts(THINK, *asked))]
assert whole == [False, False], "answers are whole now"
assert texts(THINK, *asked)[0].endswith("<think>\ns prime.<|end|>")
assert not any("Yes" in text or "No" in text for text in short)
PY
"$folder/venv/bin/python" "$folder/answers.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
