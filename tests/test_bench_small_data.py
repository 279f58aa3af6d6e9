"""The sweep on few comparisons: a head learns what states say, once, and figures are of that."""

import numpy as np
import torch
from benchmarks.small_data import Training, draw, held_out, summary, sweep, trained


def test_a_head_learns_once_and_is_compared_with_the_words_of_the_same_rows(tmp_path):
    asked = held_out()[:60]
    drawn = draw(80, asked)
    assert not {c.prompt_id for c in asked} & {c.prompt_id for c in drawn}
    generator = torch.Generator().manual_seed(0)
    # The first value says which is better, in every layer the more.
    states = torch.randn(140, 2, 8, generator=generator)
    states[:, 0, 0] += 0.5
    states[:, 1, 0] += 3
    trainings = [
        Training(40, part, layers, rate=0.05, epochs=3, batch=8)
        for layers in (1, 2)
        for part in (0, 1)
    ]
    prompts, file = np.arange(80, dtype=np.uint64), tmp_path / "trainings.jsonl"
    sweep(trainings[:1], states[:80], states[80:], prompts, file, minutes=1)
    first = file.read_text()
    sweep(trainings, states[:80], states[80:], prompts, file, minutes=1)
    assert file.read_text().startswith(first), "what is there is not run again"
    found = trained(file)
    assert list(found) == trainings
    (size,) = summary(found, drawn, asked)
    shallow, deep = size["settings"]
    assert (size["rows"], size["parts"]) == (40, 2)
    assert deep["accuracy"] > 85 > shallow["accuracy"]
    assert deep["loss"] < shallow["loss"]
    assert deep["low"] < deep["accuracy"] < deep["high"]
    sweep([Training(40, 0, 1, 0.1, 3, 8)], states[:80], states[80:], prompts, file, minutes=-1)
    assert len(trained(file)) == 4, "none begins when the time is over"
