"""What a recipe may say of the model: which backbone, which template, which lengths."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Dtype = Literal["auto", "float32", "bfloat16"]


class BaseOptions(BaseModel):
    """The checkpoint a reward model starts from and the one way text becomes tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("smollm2", description="Hub id, folder, .gguf file, or 'smollm2'.")
    revision: str | None = Field(None, description="Hub revision; recorded either way.")
    layers: int | None = Field(
        None, ge=1, description="Keep only the first N decoder layers (small machines)."
    )
    template: str = Field(
        "model",
        description="'model' (the checkpoint's), 'chatml', 'chatml-tools', or a Jinja file.",
    )
    pad_token: str | None = Field(
        None,
        description="Pads where the tokenizer has no token for it; a new one gets a row of the "
        "embedding. Default: its own, else one that ends no response.",
        exclude_if=lambda name: name is None,  # Runs of before keep their fingerprints.
    )
    template_variables: dict[str, str] = Field(
        default_factory=dict, description="Pins a template's variables, such as date_string."
    )
    max_tokens: int = Field(
        1024, ge=8, description="Longest conversation; the oldest turns are cut to fit."
    )
    dtype: Dtype = Field(
        "auto", description="'auto' takes bfloat16 where it is native and, measured once, faster."
    )


class Compute(BaseModel):
    """How a step is computed; the gradients are the same, time and memory are not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        "none",
        description="Compute the activations of every other ('selective') or every ('full') "
        "decoder layer again in the backward pass instead of keeping them.",
    )
    shards: int | None = Field(
        None,
        ge=1,
        description="Processes that hold one copy of the model together, where torchrun started "
        "several; the others hold replicas. Default: those of one machine.",
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="torch.compile for the parts of each decoder layer; 'auto' does so for a "
        "training in bfloat16 on a CPU that takes half an hour or more.",
    )
    keep_frozen_states: bool | Literal["auto"] = Field(
        "auto",
        description="Run layers of which nothing learns, at the bottom, once for each conversation "
        "and keep their states in a file of the run until the training ends (4 bytes a value and "
        "token); 'auto' does so in one process on a CPU, where rows are run more than once and "
        "half of the free disk is enough.",
        exclude_if=lambda kept: kept == "auto",  # Runs of before keep their fingerprints.
    )
