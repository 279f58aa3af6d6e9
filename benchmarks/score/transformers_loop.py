"""The loop that most people write: tokenise, pad, forward, batch by batch; sorted or not."""

import argparse
from collections import defaultdict

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.peers.worker import Facts, read_rows, serve


class Loop:
    """A stock classifier and tokenizer, and how many rows of text go into one forward."""

    def __init__(self, folder: str, batch: int, dtype: str, *, by_length: bool) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._batch, self._by_length = batch, by_length

    @torch.inference_mode()
    def score(self, texts: list[str]) -> Facts:
        """Rewards of `texts`, in order, and the tokens read with and without padding."""
        ids = self._tokenizer(texts)["input_ids"]
        order = list(range(len(texts)))
        if self._by_length:
            order.sort(key=lambda i: len(ids[i]), reverse=True)
        rewards, computed = [0.0] * len(texts), 0
        for start in range(0, len(order), self._batch):
            chosen = order[start : start + self._batch]
            inputs = self._tokenizer.pad(
                {"input_ids": [ids[i] for i in chosen]}, return_tensors="pt"
            )
            logits = self._model(**inputs.to(self._model.device)).logits[:, 0]
            computed += inputs["input_ids"].numel()
            for i, reward in zip(chosen, logits.tolist(), strict=True):
                rewards[i] = reward
        return {
            "rewards": rewards,
            "real_tokens": sum(map(len, ids)),
            "computed_tokens": computed,
        }


def main() -> None:
    """Serve windows of pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--by-length", action="store_true")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    loop = Loop(arguments.model, arguments.batch, arguments.dtype, by_length=arguments.by_length)
    windows = defaultdict(list)
    for row in read_rows(arguments.rows):
        windows[row["window"]] += [row["chosen"], row["rejected"]]

    def work(request: Facts) -> Facts:
        facts = loop.score(windows[request["window"]])
        rewards = facts.pop("rewards")
        scores = [rewards[i : i + 2] for i in range(0, len(rewards), 2)]
        return {"pairs": len(scores), "scores": scores, **facts}

    serve(work)


if __name__ == "__main__":
    main()
