"""The server that most people write: a FastAPI handler that scores one request at a time.

What favours it: a request's texts are one padded batch, the model is loaded once, and nothing else
is done. The handler blocks the loop, so that no two forwards fight for the cores; with --threaded
it is a plain `def`, as FastAPI documents for handlers that block, and up to 40 run at once.
"""

import argparse
import socket
import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Query(BaseModel):
    """OpenRLHF's request."""

    query: list[str]


def create_app(folder: str, dtype: str, *, threaded: bool) -> FastAPI:
    """The application with its model loaded; `threaded` lets FastAPI run handlers in 40 threads."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    app = FastAPI()

    def score(body: Query) -> dict[str, list[float]]:
        with torch.inference_mode():
            inputs = tokenizer(body.query, padding=True, return_tensors="pt").to(model.device)
            return {"rewards": model(**inputs).logits[:, 0].tolist()}

    async def one_at_a_time(body: Query) -> dict[str, list[float]]:
        return score(body)

    app.post("/get_reward")(score if threaded else one_at_a_time)
    return app


def main() -> None:
    """Serve on a free port, and say which."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threaded", action="store_true")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    app = create_app(given.model, given.dtype, threaded=given.threaded)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    host, port = listening.getsockname()
    print(f"ready at http://{host}:{port}", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
