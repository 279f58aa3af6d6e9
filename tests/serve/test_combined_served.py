"""`combined` as a model among the others: its tags from the request, from words, or from none."""

import pytest
from scipy.special import expit

from palate.serve.app import Server
from palate.serve.combined import Combination, write_combination
from palate.serve.loading import add_combined, open_models
from palate.serve.service import Registry
from palate.types import PalateError
from server import exported, live

ITEM = {"prompt": "How do I bake bread?", "responses": ["Mix flour.", "The sea is wide."]}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Two models, and a file that combines them with a threshold between their rewards."""
    folder = tmp_path_factory.mktemp("combined")
    models = {
        "safety": exported(folder / "s", changes={"seed": 5}),
        "helpful": exported(folder / "h"),
    }
    served, engines = open_models({name: str(path) for name, path in models.items()})
    revisions = [served[name].facts["revision"] for name in ("safety", "helpful")]
    write_combination(
        folder / "c.json", Combination(0.5, 0.25, 2.0, 9, 0.5, *revisions, measured_on="x")
    )
    (folder / "words").write_text("bread\nbomb\n")
    return folder, served, engines


def test_it_is_asked_by_name_and_decides_as_in_the_paper(opened):
    folder, served, engines = opened
    add_combined(served, folder / "c.json", helpfulness="helpful")
    add_combined(
        served, folder / "c.json", helpfulness="helpful", words=folder / "words", name="worded"
    )
    with live(Server(Registry(served), engines)) as found:

        def rewards(model, **tags):
            answer = found.ok("/v1/reward", {"model": model, **ITEM, **tags})
            return [row["reward"] for row in answer["data"]]

        def whitened(values):
            return pytest.approx([(value - 0.25) / 2 for value in values], rel=1e-5, abs=1e-6)

        safe, helpful = rewards("safety"), rewards("helpful")
        free = [s if expit(s) < 0.5 else h for s, h in zip(safe, helpful, strict=True)]
        assert rewards("combined") == whitened(free)
        assert rewards("combined", safety_prompt=True) == whitened(safe)
        assert rewards("worded") == whitened(safe), "the prompt says bread"
        assert rewards("worded", safety_prompt=False) == whitened(free), "the client knows better"
        text = served["helpful"].reader.chat.tokenizer.apply_chat_template(
            [
                {"role": "user", "content": ITEM["prompt"]},
                {"role": "assistant", "content": ITEM["responses"][0]},
            ],
            tokenize=False,
        )
        (worded,) = found.ok("/get_reward?model=worded", {"query": text})["rewards"]
        assert [worded] == whitened(safe[:1])
        chat = served["helpful"].reader.chat.tokenizer
        ids = chat(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
        for form in (text, ids):
            answer = found.ok("/classify", {"model": "worded", "input": form})["data"]
            assert answer[0]["probs"] == whitened(safe[:1]), "ids and texts are tagged too"
        talk = [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "No bombs."},
            {"role": "user", "content": "Fine."},
            {"role": "assistant", "content": "The sea is wide."},
        ]
        text = chat.apply_chat_template(talk, tokenize=False)
        ids = chat(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
        asked = ({"messages": talk}, {"input": text}, {"input": ids})
        one, *rest = (
            found.ok("/classify", {"model": "worded", **form})["data"][0]["probs"][0]
            for form in asked
        )
        assert rest == pytest.approx([one, one], abs=1e-5), "an assistant's words are no tag"
        listed = found.http.get("/v1/models").json()["data"]
        assert [row["id"] for row in listed] == ["safety", "helpful", "combined", "worded"]
        assert listed[2]["threshold"] == 0.5
        assert len({row["fingerprint"] for row in listed}) == 3


def test_mistakes_are_one_line(opened):
    folder, served, _ = opened
    with pytest.raises(PalateError, match="no served model is named 'helpfulness'"):
        add_combined(served, folder / "c.json")
    with pytest.raises(PalateError, match="measured with another safety model"):
        add_combined(served, folder / "c.json", safety="helpful", helpfulness="safety", name="x")
