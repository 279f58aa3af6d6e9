#!/bin/bash
# DeepEval's G-Eval asks a judge for a score from 0 to 10 and weighs it by the probabilities of the score's token and of
# its alternatives. A good engineer expects a judge torn between 9 and 10 to give 0.94, whoever serves it. With OpenAI's
# tokens it does. Tokenizers that take digits one by one, as Qwen's and Gemma's, write 10 as "1" and "0": the
# alternative to "9" is then "1", which G-Eval counts as a score of 1, and the judge torn between the two best grades
# gives 0.58, less than one that is sure of a 6. If it says 10, no token is "10": the weighting is left out without a
# word, and the score is 1.0.
# Who is hurt: who runs G-Eval on an open model behind an OpenAI-like server: the best answers get the worst scores.
# Cure: a rubric of 0 to 9, whose grades are one digit each.
# Versions: deepeval 4.3.1, asked by its own client of a loopback server that answers with the tokens named here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check deepeval==4.3.1
cat > "$folder/digits.py" <<'PY'
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from deepeval.metrics import GEval
from deepeval.models import OpenAIModel
from deepeval.test_case import LLMTestCase, SingleTurnParams


class Judge(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["logprobs"] and asked["top_logprobs"] >= 5
        tokens = [('{"reason": "Good.", "score": ', {}), *self.server.score, ("}", {})]
        content = [
            self.token(text, choices.get(text, 1)) | {"top_logprobs": [self.token(*one) for one in choices.items()]}
            for text, choices in tokens
        ]
        message = {"role": "assistant", "content": "".join(text for text, _ in tokens)}
        choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": {"content": content}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def token(self, text, probability):
        return {"token": text, "logprob": math.log(probability), "bytes": None}

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Judge)
threading.Thread(target=server.serve_forever, daemon=True).start()
free = {"cost_per_input_token": 0, "cost_per_output_token": 0}
model = OpenAIModel(model="gpt-4.1", api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1", **free)
case = LLMTestCase(input="2 + 2?", actual_output="4")
asked_for = [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT]


def measured(what, *score):
    server.score = score
    metric = GEval("right", asked_for, evaluation_steps=["Is it right?"], model=model, async_mode=False)
    found = round(metric.measure(case, _show_indicator=False), 4)
    print(f"{what:48} {found}")
    return found


print("deepeval", version("deepeval"))
whole = measured("9 at 60 %, 10 at 40 %, a token each", ("9", {"9": 0.6, "10": 0.4}))
digits = measured("9 at 60 %, 10 at 40 %, a token a digit", ("9", {"9": 0.6, "1": 0.4}))
sure = measured("6, sure", ("6", {"6": 1.0}))
ten = measured("10 at 60 %, 9 at 40 %, a token each", ("10", {"10": 0.6, "9": 0.4}))
digits_ten = measured("10 at 60 %, 9 at 40 %, a token a digit", ("1", {"1": 0.6, "9": 0.4}), ("0", {"0": 1.0}))
assert (whole, ten, sure) == (0.94, 0.96, 0.6)
assert digits == 0.58, "digits are put together now"
assert digits_ten == 1.0, "10 is weighted now"
PY
export DEEPEVAL_TELEMETRY_OPT_OUT=YES DEEPEVAL_UPDATE_WARNING_OPT_OUT=YES
cd "$folder"  # It keeps a folder of its own where it runs.
"$folder/venv/bin/python" "$folder/digits.py"
