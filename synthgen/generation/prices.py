"""The prices of a teacher's tokens. Prices are whole numbers of picodollars (1e-12 $), so that sums are exact.

A price of $0.15 a million tokens is 150,000 picodollars a token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import yaml

from synthgen.recipe import shipped
from synthgen.records import Usage
from synthgen.tables.engines import ENGINES, AnyTeacher, ApiTeacher
from synthgen.tables.reference import resolve
from synthgen.teachers.usage import CHEAPER_TIERS, unusual_tier

PICO = 10**12


@dataclass(frozen=True)
class Prices:
    """Prices in picodollars a token. `cached` is the price of prompt tokens that the provider had in its cache.

    `tier` is the service tier that the prices are for, and `asked` is the tier that requests ask for. None means the
    usual tier. `halved` means that these are half the usual prices.
    """

    input: int
    output: int
    cached: int
    tier: str | None = None
    asked: str | None = None
    halved: bool = False

    def in_batch(self) -> Prices:
        """The prices of requests that are sent as a batch. Providers charge half the usual prices for the requests of a
        batch. Prices of other service tiers stay as they are, because it is not known whether a provider halves them
        too.
        """
        if self.halved or self.tier is not None or self.asked is not None:
            return self
        return replace(
            self, input=-(-self.input // 2), output=-(-self.output // 2), cached=-(-self.cached // 2), halved=True
        )

    def covers(self, tier: str | None) -> bool:
        """Whether the prices are at least as high as the prices of the service tier `tier`."""
        return tier == self.tier or (self.tier is None and not self.halved and tier in CHEAPER_TIERS)

    def cost(self, usage: Usage) -> int:
        """The cost of the tokens that a reply used, in picodollars."""
        prompt, completion = usage["prompt_tokens"] or 0, usage["completion_tokens"] or 0
        cached = min(usage.get("cached_tokens") or 0, prompt)
        return (prompt - cached) * self.input + cached * self.cached + completion * self.output

    def most(self, prompt: int, completion: int) -> int:
        """The maximum cost of `prompt` prompt tokens and `completion` completion tokens, in picodollars. For a prompt
        token, the higher of the full and the cached price is used.
        """
        return prompt * max(self.input, self.cached) + completion * self.output


def prices(section: AnyTeacher) -> Prices | None:
    """The prices of a teacher. The prices are zero when the teacher's engine costs nothing, and None when they are
    unknown.
    """
    engine = ENGINES[section.engine]
    return cast(Prices | None, resolve(engine.prices)(section)) if engine.prices else Prices(0, 0, 0)


def listed(section: ApiTeacher) -> Prices | None:
    """The prices in the teacher's section, or else in data/prices.yaml. None when neither the section nor this file has
    prices for the model.
    """
    asked = unusual_tier(section.extra.get("service_tier"))
    if section.prices:
        own = section.prices
        found = _per_token(own.input, own.output, own.input if own.cached_input is None else own.cached_input)
        return replace(found, tier=unusual_tier(own.service_tier), asked=asked)
    table = yaml.safe_load((shipped("data") / "prices.yaml").read_text())
    host = section.base_url.partition("://")[2].partition("/")[0]
    for row in table["models"]:
        if row["host"] == host and row["model"] == section.model:
            return replace(_per_token(row["input"], row["output"], row.get("cached_input", row["input"])), asked=asked)
    return None


def _per_token(fresh: float, output: float, cached: float) -> Prices:
    """Convert dollars per million tokens to picodollars a token."""
    return Prices(round(fresh * 1_000_000), round(output * 1_000_000), round(cached * 1_000_000))
