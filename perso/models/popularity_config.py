"""Settings of popularity, readable without loading numpy."""

import math
from dataclasses import dataclass
from typing import Final, Literal

SMOOTHING: Final = 1.0
"""Online Retail, Recall@20 of popularity by country, spending group and recency × frequency
group: unsmoothed .057, .053, .049; with 1 .057, .055, .052; global popularity .053."""


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """How demand is counted.

    Raises:
        ValueError: If a setting is out of range.
    """

    family: Literal["popularity"] = "popularity"
    """Names the model family in a spec."""
    smoothing: float = SMOOTHING
    """How far a slice leans on the whole shop, in average interactions per item; 0 counts the
    slice alone."""
    half_life_days: float | None = None
    """Days before the newest interaction at which one counts half; none where the weights are
    decayed already, as those of prepared data are."""

    def __post_init__(self) -> None:
        if self.family != "popularity":
            raise ValueError(f"family is {self.family!r}; this is 'popularity'")
        if not (math.isfinite(self.smoothing) and self.smoothing >= 0):
            raise ValueError(f"smoothing is {self.smoothing}; give 0 or more")
        half_life = self.half_life_days
        if half_life is not None and not (math.isfinite(half_life) and half_life > 0):
            raise ValueError(f"half_life_days is {half_life}; give a number above 0, or none")
