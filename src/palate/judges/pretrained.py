"""A trained reward model in plain Python: open it by name, score, save and publish it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from palate.data.messages import as_chat, as_messages
from palate.data.transcript import read_conversation, read_prompt
from palate.judges.reward_model import scores
from palate.model.device import default_device, keep_memory
from palate.model.export import Pushed, check_name, export, files_of, folder_named, push
from palate.model.loading import is_adapter, load_adapter, load_reward_model, reopen
from palate.model.onnx import check_target, is_onnx
from palate.model.options import Dtype
from palate.model.precision import compute_dtype
from palate.model.reward_model import RewardModel as Network
from palate.types import Candidates, Message, PalateError, Score

Prompt = str | Sequence[Message | Mapping[str, Any]]
Conversation = str | tuple[Prompt, str] | Sequence[Message | Mapping[str, Any]]
"""A transcript in one text, a pair (prompt, response), or messages that end in the assistant's."""

log = logging.getLogger(__name__)


class RewardModel:
    """A trained reward model, opened to score with.

    ```python
    model = RewardModel.from_pretrained("runs/mine/models/mine")
    model.score([("How do I bake bread?", "Mix flour, water, salt and yeast.")])
    model.score([{"role": "user", "content": "Bread?"}, {"role": "assistant", "content": "Yes."}])
    model.save_pretrained("mine-rm")
    ```

    `module` is the torch module in evaluation mode, `name_or_path` where it was opened. To judge
    with it, `open_judge({"reward-model": folder})`; to train one, `run(load_recipe(...))`.
    """

    def __init__(self, module: Network, name_or_path: str, base: str | None = None) -> None:
        self.module, self.name_or_path, self.base = module, name_or_path, base

    @property
    def attributes(self) -> tuple[str, ...]:
        """What the model's heads say of a response beside its reward; see `scores`."""
        return self.module.attributes

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, dtype: Dtype = "float32", base: str | None = None
    ) -> RewardModel:
        """The reward model in a folder or at a hub id, on the accelerator where there is one.

        Reads Palate's own folders, one-label decoder classifiers (TRL, ms-swift, ...), those of
        OpenRLHF and LLaMA-Factory, and PEFT adapters, which are merged.

        Args:
            name_or_path: the folder or hub id.
            dtype: of the matrix products: float32, bfloat16, or auto, which takes bfloat16 where
                it is native and faster. Stored weights and the head are held in float32.
            base: where an adapter's base model is now; default: what the adapter names.

        Raises:
            PalateError: no such checkpoint, another kind of model, a damaged one, `base` for a
                model that is no adapter.
        """
        location = str(name_or_path)
        if dtype not in get_args(Dtype):
            known = ", ".join(get_args(Dtype))
            raise PalateError(f"dtype: expected one of {known}, got {dtype!r}")
        if is_onnx(location):
            raise PalateError(
                f"{location}: an ONNX graph; open_judge({{'reward-model': folder}}) judges with "
                "it, and a RewardModel is opened from the checkpoint that it was made of"
            )
        keep_memory()
        device = default_device()
        compute = compute_dtype(dtype, device)
        if is_adapter(location):
            module, _ = load_adapter(Path(location), base=base)
            module.dtype = compute
            return cls(module.to(device), location, base)
        if base is not None:
            raise PalateError(f"{location}: a whole model, not an adapter; leave base out")
        return cls(load_reward_model(location, compute, device), location)

    def score(
        self, conversations: Iterable[Conversation], *, tokens_per_microbatch: int = 4096
    ) -> list[float]:
        """The raw reward of each conversation, in order: any real number, higher is better.

        Differences mean something between responses to one prompt: the model takes the first to be
        the better one with probability sigmoid(r1 - r2).

        Args:
            conversations: pairs (prompt, response), the prompt as text or messages; or lists of
                messages that end in the assistant's; or transcripts in one text. One conversation
                alone, as messages or a transcript, gives a list of one.
            tokens_per_microbatch: bounds memory; it changes no reward.

        Raises:
            PalateError: a conversation in no such form, or one that has no reward, with the
                reason; `scores` goes on past those.
        """
        every = self.scores(conversations, tokens_per_microbatch=tokens_per_microbatch)
        rewards = [score.value for score in every if score.value is not None]
        if len(rewards) < len(every):
            first = next(i for i, score in enumerate(every) if score.value is None)
            raise PalateError(
                f"conversations[{first}]: no reward: {every[first].reason} "
                f"({len(every) - len(rewards)} of {len(every)} have none); `scores` gives None and "
                "the reason for these and rewards for the others"
            )
        return rewards

    def scores(
        self, conversations: Iterable[Conversation], *, tokens_per_microbatch: int = 4096
    ) -> list[Score]:
        """As `score`, with what is known beside each reward.

        A `Score` has `value`, None where there is no reward, with the `reason` (the response alone
        is too long, the chat template refuses the turns, the reward is not finite); `truncated`
        where the oldest turns of the prompt were cut to fit; `tokens`, how many were read;
        `attributes`, what the model's heads say beside the reward, in the units of the ratings
        that they learnt from ({} where it has none; `attributes` of the model names them).

        Raises:
            PalateError: a conversation in none of the forms.
        """
        candidates = [_candidates(*named) for named in _numbered(conversations)]
        return [score for (score,) in scores(self.module, candidates, tokens_per_microbatch)]

    def save_pretrained(self, folder: str | Path, *, max_shard_size: str = "5GB") -> Path:
        """Write the model to `folder` as `palate export` does, and return the folder.

        Stock transformers, vLLM, SGLang and others read it: safetensors in the stored number
        format, head inside, adapters merged; tokenizer, chat template and card beside. The weights
        are read again from where they were opened, so changes made to `module` are not in it.

        Raises:
            PalateError: `folder` is where the model was opened, or holds something else than a
                model.
        """
        target = Path(folder)
        check_target(self.name_or_path, target)
        module, card = reopen(self.name_or_path, base=self.base)
        return export(module, target, card=card, max_shard_size=max_shard_size)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        revision: str | None = None,
        commit_message: str = "Upload a reward model exported by Palate",
    ) -> Pushed:
        """Upload what `save_pretrained` writes to OWNER/NAME on the hub; its page and commit.

        The repository is made where it is missing, private unless `private` is False. The token is
        HF_TOKEN, or what `hf auth login` stored.

        Raises:
            PalateError: a wrong name, no token, no right to write, a hub that cannot be reached,
                a repository that is public though `private` was not False.
        """
        check_name(repo_id)
        with TemporaryDirectory(prefix="palate-push-") as folder:
            saved = self.save_pretrained(Path(folder) / repo_id.rpartition("/")[2])
            if named := folder_named(saved):
                log.warning(
                    "%s: config.json and perhaps the card name the folder %s", repo_id, named
                )
            return push(
                saved, repo_id, files_of(saved), public=not private, revision=revision,
                message=commit_message,
            )  # fmt: skip


def rank(model: RewardModel, prompt: Prompt, responses: Iterable[str]) -> list[tuple[str, Score]]:
    """Responses to one prompt with their scores, best first.

    Equal rewards keep their order; responses without a reward come last, each with its reason.
    For files, `palate rank`.

    Raises:
        PalateError: the prompt is neither text nor messages.
    """
    given = list(responses)
    scored = zip(given, model.scores([(prompt, response) for response in given]), strict=True)
    return sorted(scored, key=lambda row: -row[1].value if row[1].value is not None else math.inf)


def _numbered(conversations: Iterable[Conversation]) -> Iterable[tuple[Any, str]]:
    """Each conversation and the name an error calls it by."""
    if isinstance(conversations, str):
        return [(conversations, "conversations")]
    if not isinstance(conversations, Iterable):
        raise PalateError(
            f"conversations: expected a list of them, got a {type(conversations).__name__}"
        )
    given = list(conversations)
    if given and all(isinstance(one, Mapping | Message) for one in given):
        return [(given, "conversations")]
    return ((one, f"conversations[{at}]") for at, one in enumerate(given))


def _candidates(value: Any, where: str) -> Candidates:
    """A conversation in any form as a prompt and its one response."""
    if isinstance(value, str):
        conversation = read_conversation(value)
        if conversation is None:
            raise PalateError(
                f"{where}: expected a pair (prompt, response), messages, or a transcript that ends "
                f"in the assistant's turn, got {value[:40]!r}; write [(prompt, response)]"
            )
        return Candidates(conversation[0], (conversation[1],))
    if isinstance(value, Sequence) and len(value) == 2 and isinstance(value[1], str):
        prompt, response = value
        if isinstance(prompt, str):
            parsed = read_prompt(prompt)
            return Candidates(parsed.turns, (parsed.reply(response),))
        return Candidates(_messages(prompt, f"{where} prompt"), (response,))
    *before, last = _messages(value, where)
    if last.role != "assistant" or not before:
        roles = ", ".join(turn.role for turn in (*before, last))
        raise PalateError(
            f"{where}: expected messages that end in the assistant's after at least one other, "
            f"got {roles}"
        )
    return Candidates(tuple(before), (last.content,))


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and all(isinstance(one, Message) for one in value):
            return tuple(value)
        value = [
            as_chat([one])["messages"][0] if isinstance(one, Message) else one for one in value
        ]
    return as_messages(value, where)
