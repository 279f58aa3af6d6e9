"""What tokens cost, from a table that says as of when and by whose word."""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palate.judges.llm.providers import OPENAI
from palate.judges.options import ChatSpec
from palate.types import PalateError
from palate.validation import explain

BUILT_IN = Path(__file__).with_name("prices.yaml")
MILLION = 1_000_000


class Price(BaseModel):
    """Money for a million tokens; discounts (cached prompts, batches) are not known here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_per_million: float = Field(ge=0)
    output_per_million: float = Field(ge=0)
    currency: str = "USD"
    date: datetime.date
    source: str
    ends: datetime.date | None = Field(None, description="When its maker says that it ends.")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Money for one call."""
        paid = prompt_tokens * self.input_per_million + completion_tokens * self.output_per_million
        return paid / MILLION


def price_of(spec: ChatSpec) -> Price | None:
    """The price of a judge's model; None where no table knows it.

    Palate's own table holds for OpenAI's endpoint only: elsewhere a model of the same name may
    cost anything.

    Raises:
        PalateError: a table that cannot be read; a budget where the price is unknown, or where
            nothing bounds the tokens of an answer.
    """
    path = Path(spec.prices).expanduser() if spec.prices else BUILT_IN
    known = spec.prices is not None or spec.base_url == OPENAI
    price = _read(path).get(spec.model) if known else None
    if spec.budget is None:
        return price
    if price is None:
        raise PalateError(
            f"chat judge {spec.model}: budget {spec.budget:g} cannot be kept, its price at "
            f"{spec.base_url} is unknown; name a table with it: prices: FILE (docs: Chat judge)"
        )
    if spec.most_tokens is None:
        cure = "set max_tokens or extra.max_completion_tokens"
        if spec.decides:
            cure = f"api {spec.api} has no limit to set, so leave budget out"
        raise PalateError(
            f"chat judge {spec.model}: budget {spec.budget:g} cannot be kept, nothing bounds an "
            f"answer; {cure}"
        )
    return price


def end_of(spec: ChatSpec) -> datetime.date | None:
    """When the judge's model ends, as its maker announced; None where no table says."""
    price = price_of(spec.model_copy(update={"budget": None}))
    return price.ends if price else None


def _read(path: Path) -> dict[str, Price]:
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {str(name): Price.model_validate(row) for name, row in table["models"].items()}
    except ValidationError as error:
        reason = explain(error, show_input=False)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
    raise PalateError(
        f"{path}: not a price table ({reason}); expected `models:` with input_per_million, "
        "output_per_million, date and source of each"
    )
