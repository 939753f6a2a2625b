"""Recency, frequency and monetary value on fixed scales, and the segment they add up to.

Decides how the three are scored. Recency has a scale of its own; frequency quartiles and monetary
tiers are cut where a share of all buyers lies below, so they need every buyer at once: two
numbers each, 16 MB for a million customers. Cutting is a fit, scoring is per row, so partitions
are scored in parallel.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.segments.cube import DEFAULT_BOXES, SHAPE, SegmentBox, SegmentCube

COLUMNS: Final = ("recency_days", "frequency", "monetary")
"""The measures that are read."""

_QUARTERS: Final = (0.25, 0.5, 0.75)


@dataclass(frozen=True, kw_only=True)
class RfmSpec:
    """How the three are scored and named."""

    recency_horizon_days: float = 182.0
    """A purchase this long ago or longer has recency score 1; one just now has 100."""
    frequency_orders: tuple[int, int, int] | None = None
    """Orders from which quartiles 2, 3 and 4 begin, where true quartiles move too much: in a shop
    of customers with one order, one of them may be empty in one week and full in the next."""
    monetary_quantiles: tuple[float, float, float] = (0.5, 0.8, 0.95)
    """Shares of all buyers, by total spend, that lie below tiers 2, 3 and 4."""
    monetary_amounts: tuple[float, float, float] | None = None
    """Spend from which tiers 2, 3 and 4 begin; wins over the shares."""
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of recency, frequency and monetary value in the composite RFM score."""
    segments: tuple[SegmentBox, ...] = DEFAULT_BOXES
    """Boxes of the cube and their names; every cell needs exactly one."""

    def __post_init__(self) -> None:
        if not self.recency_horizon_days > 0:
            raise ValueError(
                f"recency_horizon_days is {self.recency_horizon_days}; give a number above 0"
            )
        low, middle, high = self.monetary_quantiles
        if not 0 < low < middle < high < 1:
            raise ValueError(
                f"monetary_quantiles is {self.monetary_quantiles}; "
                "give three rising shares in 0 to 1"
            )
        orders = self.frequency_orders
        if orders is not None and not orders[0] < orders[1] < orders[2]:
            raise ValueError(f"frequency_orders is {orders}; give three rising numbers of orders")
        amounts = self.monetary_amounts
        if amounts is not None and not amounts[0] < amounts[1] < amounts[2]:
            raise ValueError(f"monetary_amounts is {amounts}; give three rising amounts")
        if min(self.weights) < 0 or not sum(self.weights) > 0:
            raise ValueError(f"weights is {self.weights}; give numbers of 0 or more, not all 0")
        self.cube  # noqa: B018  # a gap or an overlap is an error of the spec

    @cached_property
    def cube(self) -> SegmentCube:
        """The name of every cell."""
        return SegmentCube(self.segments)


@dataclass(frozen=True, kw_only=True)
class RfmScale:
    """Where quartiles and tiers begin, as of one instant."""

    frequency_cuts: tuple[float, ...]
    """A frequency above the first is quartile 2 or more, and so on."""
    monetary_cuts: tuple[float, ...]
    """As above, for tiers; spend from the amount on where the spec gives amounts."""

    @classmethod
    def fit(cls, measures: pa.Table, spec: RfmSpec) -> "RfmScale":
        """The cuts among all who ever bought; equal values are never parted.

        Args:
            measures: Rows with COLUMNS, of all customers.
            spec: The shares below each tier.
        """
        bought = measures.filter(measures["recency_days"].is_valid())
        return cls(
            frequency_cuts=_just_below(spec.frequency_orders)
            or _cuts(bought["frequency"].to_numpy(), _QUARTERS),
            monetary_cuts=_just_below(spec.monetary_amounts)
            or _cuts(bought["monetary"].to_numpy(), spec.monetary_quantiles),
        )

    def score(self, measures: pa.Table, spec: RfmSpec) -> dict[str, Any]:
        """The columns of ``user_rfm`` that RFM decides, and ``segment_code`` into the cube's names.

        Args:
            measures: Rows with COLUMNS.
            spec: The spec of the fit.
        """
        is_buyer = measures["recency_days"].is_valid().to_numpy()
        days = pc.fill_null(measures["recency_days"], 0.0).to_numpy()
        recency = np.where(is_buyer, recency_scores(days, spec.recency_horizon_days), 0)
        frequency = _levels(measures["frequency"].to_numpy(), self.frequency_cuts, is_buyer)
        monetary = _levels(measures["monetary"].to_numpy(), self.monetary_cuts, is_buyer)
        parts = np.stack([recency, frequency, monetary]) * (100 / np.array(SHAPE))[:, None]
        weights = np.array(spec.weights) / sum(spec.weights)
        return {
            "recency_days": measures["recency_days"],
            "recency_score": recency,
            "frequency": measures["frequency"],
            "frequency_quartile": frequency,
            "monetary": measures["monetary"],
            "monetary_tier": monetary,
            "rfm_score": (weights @ parts).astype(np.float32),
            "segment_code": spec.cube.codes(recency, frequency, monetary),
        }


def recency_scores(
    days: NDArray[np.float32] | NDArray[np.float64], horizon_days: float
) -> NDArray[np.int64]:
    """1 to 100: 100 less 99 for each horizon that has passed, rounded up, and never below 1.

    Example:
        >>> recency_scores(np.array([0.0, 18.2, 91.0, 181.9, 182.0, 900.0]), 182.0).tolist()
        [100, 91, 51, 2, 1, 1]
    """
    passed = np.floor(99 * days.astype(np.float64) / horizon_days).astype(np.int64)
    return np.clip(100 - passed, 1, 100)


def _just_below(begins: tuple[float, ...] | None) -> tuple[float, ...]:
    """Cuts whose next level begins with each value itself; none where none are given."""
    return tuple(float(np.nextafter(begin, -np.inf)) for begin in begins or ())


def _cuts(values: NDArray[Any], shares: tuple[float, ...]) -> tuple[float, ...]:
    """The smallest value that each share of the values does not exceed; nothing interpolated."""
    if not len(values):
        return tuple(0.0 for _ in shares)
    ordered = np.sort(values)
    # The small step keeps 0.95 * 20 = 19.000000000000004 from becoming 20.
    places = np.ceil(np.array(shares) * len(ordered) - 1e-9).astype(np.int64) - 1
    return tuple(float(value) for value in ordered[np.maximum(places, 0)])


def _levels(
    values: NDArray[Any], cuts: tuple[float, ...], is_buyer: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """1 + the number of cuts below each value; 0 for who never bought."""
    return np.where(is_buyer, 1 + np.searchsorted(np.array(cuts), values, side="left"), 0)
