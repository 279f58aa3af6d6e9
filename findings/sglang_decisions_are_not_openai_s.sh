#!/bin/bash
# SGLang serves POST /v1/decisions, the path of OpenAI's decisions, next to its other OpenAI routes and with its request
# classes in srt/entrypoints/openai/protocol.py ("Pydantic models for OpenAI API protocol"). A good engineer expects
# `OpenAI(base_url=SGLANG).decisions.create(...)` to be answered, as chat completions and embeddings are.
# It is refused, whichever type of question is asked: SGLang wants `id`, `question`, `options` of `name`, and the types
# choice, score, yes_no; OpenAI's client sends `name`, `instructions`, `choices` of `value`, and the types choice, score,
# predicate. Nor could the answer be read: SGLang's `answers` is an object by id, OpenAI's a list, and the client
# does not validate, so `decision.answers[0]` is a KeyError.
# Who is hurt: who moves a judge from OpenAI to SGLang by changing base_url.
# Cure: SGLang's own body by plain HTTP, or /v1/systemone, which vLLM has too.
# What is run: the classes of the wheel, as they are, behind a loopback server, asked by the real client; the engine
# itself wants a GPU.
# Versions: sglang 0.5.23, openai 3.57.0, pydantic as it installs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip -q --disable-pip-version-check"
$pip install openai==3.57.0
$pip download --no-deps --only-binary :all: -d "$folder" sglang==0.5.23
cat > "$folder/decisions.py" <<'PY'
import ast
import glob
import json
import sys
import threading
import unicodedata
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import pydantic
from openai import OpenAI, UnprocessableEntityError
from openai.types import Decision

(wheel,) = glob.glob(f"{sys.argv[1]}/sglang-*.whl")
source = zipfile.ZipFile(wheel).read("sglang/srt/entrypoints/openai/protocol.py").decode()
wanted = {"is_blank_decision_text", "_nonblank_decision_text", "check_option_names", "UsageInfo", "PromptTokensDetails", "CompletionTokensDetails"}
parts = []
for node in ast.parse(source).body:
    name = getattr(node, "name", None) or (node.targets[0].id if isinstance(node, ast.Assign) and hasattr(node.targets[0], "id") else "")
    if name in wanted or "Decision" in name:
        parts.append(ast.unparse(node))
space = {"unicodedata": unicodedata, "__name__": "sglang_protocol", "DEFAULT_MODEL_NAME": "default"}
code = """
from typing import *
from pydantic import *
DecisionImage = str
""" + "\n".join(part for part in parts if not part.startswith("DecisionImage"))
module = type(sys)("sglang_protocol")
sys.modules["sglang_protocol"] = module
module.__dict__.update(space)
exec(compile(code, "protocol.py", "exec"), module.__dict__)


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status, told = 200, {}
        try:
            module.DecisionRequest.model_validate_json(body)
        except pydantic.ValidationError as error:
            status, told = 422, {"detail": json.loads(error.json(include_url=False))}
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())
        Server.seen = self.path, told

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
questions = {
    "choice": {"type": "choice", "name": "q", "instructions": "Which?", "choices": [{"value": "A"}, {"value": "B"}]},
    "score": {"type": "score", "name": "q", "instructions": "How?", "levels": [{"label": "bad"}, {"label": "good"}]},
    "predicate": {"type": "predicate", "name": "q", "instructions": "Is it?"},
}
for name, question in questions.items():
    try:
        client.decisions.create(model="m", input="A text.", questions=[question])
        raise AssertionError(f"{name} is taken now")
    except UnprocessableEntityError:
        path, told = Server.seen
        print(path, name, "refused:", [(row["type"], ".".join(map(str, row["loc"]))) for row in told["detail"]][:4])
        assert path == "/v1/decisions"
# What SGLang takes and answers, read by OpenAI's client.
own = {"id": "q", "type": "choice", "question": "Which?", "options": [{"name": "A"}, {"name": "B"}]}
module.DecisionRequest.model_validate({"input": "A text.", "questions": [own]})
answer = module.DecisionAnswer(type="choice", probabilities={"A": 0.9, "B": 0.1}, label_mass=1.0, choice="A")
answers = {"q": answer.model_dump()}
read = Decision.construct(answers=answers, model="m", usage={})
print("answers as the client has them:", type(read.answers).__name__)
try:
    print(read.answers[0])
    raise AssertionError("the client reads SGLang's answers now")
except KeyError as error:
    print("decision.answers[0]: KeyError", error)
PY
"$folder/venv/bin/python" "$folder/decisions.py" "$folder"
