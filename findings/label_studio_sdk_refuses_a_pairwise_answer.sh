#!/bin/bash
# label-studio-sdk 2.1.2: validate_region() of an answer to a Pairwise, word for word as Label Studio 1.23.2
# exports it (to_name "answer1,answer2", the two names of the configuration's toName). A good engineer expects
# True: the server wrote it, and the configuration is valid. It is False; a Rating of the same task is True.
# Who is hurt: who checks preference annotations or predictions with the SDK before importing them: all
# pairwise ones are refused, without a reason.
# Cure: check `selected` (left, right) and to_name by hand; do not change to_name, the server writes both names.
# Versions: label-studio-sdk 2.1.2; the answer's form is that of a server of Label Studio 1.23.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check label-studio-sdk==2.1.2
cat > "$folder/check.py" <<'PY'
from importlib.metadata import version

from label_studio_sdk.label_interface import LabelInterface

texts = "".join(f'<Text name="{name}" value="${name}"/>' for name in ("prompt", "answer1", "answer2"))
questions = '<Pairwise name="better" toName="answer1,answer2"/><Rating name="stars" toName="prompt"/>'
interface = LabelInterface(f"<View>{texts}{questions}</View>")
interface.validate()
print("label-studio-sdk", version("label-studio-sdk"), "- the configuration is valid")


def holds(name, about, kind, value):
    region = {"id": "x", "from_name": name, "to_name": about, "type": kind, "value": value}
    valid = interface.validate_region(region)
    print(f"{kind} of {about}: {value} is", "valid" if valid else "refused")
    return valid


stars = holds("stars", "prompt", "rating", {"rating": 4})
pairwise = holds("better", "answer1,answer2", "pairwise", {"selected": "left"})
holds("better", "answer1", "pairwise", {"selected": "left"})
assert stars and not pairwise, "the SDK takes the server's own answer now"
PY
"$folder/venv/bin/python" "$folder/check.py"
