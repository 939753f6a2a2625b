"""One score per customer from several dimensions, with what each of them contributes.

Decides how a dimension becomes a share between 0 and 1: by its place among all customers, or on a
linear scale between two quantiles, so that one customer with a thousand orders does not press
everybody else to 0. The scale is fitted once per instant, on a sample of customers; scoring is per
row.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# N customers, K dimensions


@dataclass(frozen=True, kw_only=True)
class ScoreDimension:
    """One dimension of the score."""

    name: str
    """How it is called in the contributions."""
    measure: str
    """The column of the measures that it reads; a null counts as the worst."""
    weight: float
    """Its share of the score; weights are divided by their sum."""
    higher_is_better: bool = True
    """Whether more of it raises the score."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight of {self.name!r} is {self.weight}; give a number above 0")


@dataclass(frozen=True, kw_only=True)
class CompositeSpec:
    """Dimensions, weights and normalisation of the composite score."""

    dimensions: tuple[ScoreDimension, ...] = (
        ScoreDimension(
            name="recency", measure="days_since_event", weight=0.4, higher_is_better=False
        ),
        ScoreDimension(name="purchase_volume", measure="spend", weight=0.3),
        ScoreDimension(name="engagement_depth", measure="engagement", weight=0.3),
    )
    """At least one."""
    normalize: Literal["quantile", "winsor"] = "quantile"
    """``quantile``: the share of customers below (ties count half); ``winsor``: linear between
    the two quantiles of ``winsor``, cut off outside."""
    winsor: tuple[float, float] = (0.05, 0.95)
    """Quantiles that are 0 and 1 of a winsorised scale."""

    def __post_init__(self) -> None:
        names = [dimension.name for dimension in self.dimensions]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"dimensions are named {names}; give at least one, each name once")
        low, high = self.winsor
        if not 0 <= low < high <= 1:
            raise ValueError(f"winsor is {self.winsor}; give two rising quantiles in 0 to 1")

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns that the score reads."""
        return tuple(dict.fromkeys(dimension.measure for dimension in self.dimensions))


@dataclass(frozen=True, kw_only=True)
class CompositeScale:
    """What is low and what is high in each dimension, as of one instant."""

    knots: tuple[NDArray[np.float64], ...] = field(repr=False)
    """Per dimension the sorted values of the sample (``quantile``) or the two ends (``winsor``)."""

    @classmethod
    def fit(cls, sample: pa.Table, spec: CompositeSpec) -> "CompositeScale":
        """The scale of a sample of customers, nulls left out.

        Raises:
            ValueError: If a measure of the spec is no numeric column of the sample.
        """
        return cls(knots=tuple(_knots(_column(sample, d.measure), spec) for d in spec.dimensions))

    def score(self, measures: pa.Table, spec: CompositeSpec) -> dict[str, Any]:
        """Columns composite_score, score_dimensions and score_contributions.

        The contributions add up to the score, up to float32.
        """
        total = sum(dimension.weight for dimension in spec.dimensions)
        parts = []
        for dimension, knots in zip(spec.dimensions, self.knots, strict=True):
            values = _column(measures, dimension.measure)
            share = _shares(values, knots, spec.normalize)
            if not dimension.higher_is_better:
                share = 1.0 - share
            share[np.isnan(values)] = 0.0
            parts.append(dimension.weight / total * share)
        parts_NK = np.stack(parts, axis=1)
        num_rows, num_dimensions = parts_NK.shape
        offsets = pa.array(np.arange(num_rows + 1, dtype=np.int32) * num_dimensions)
        names = pa.array([dimension.name for dimension in spec.dimensions] * num_rows, pa.string())
        flat = pa.array(parts_NK.astype(np.float32).reshape(-1))
        return {
            "composite_score": parts_NK.sum(axis=1).astype(np.float32),
            "score_dimensions": pa.ListArray.from_arrays(offsets, names),
            "score_contributions": pa.ListArray.from_arrays(offsets, flat),
        }


def _knots(values: NDArray[np.float64], spec: CompositeSpec) -> NDArray[np.float64]:
    known = np.sort(values[~np.isnan(values)])
    if spec.normalize == "quantile" or not len(known):
        return known
    return np.quantile(known, spec.winsor)


def _shares(
    values: NDArray[np.float64], knots: NDArray[np.float64], normalize: str
) -> NDArray[np.float64]:
    """Each value on the scale, 0 to 1; 0.5 where the scale has no extent."""
    if not len(knots):
        return np.full(len(values), 0.5)
    if normalize == "quantile":
        below = np.searchsorted(knots, values, side="left")
        not_above = np.searchsorted(knots, values, side="right")
        places: NDArray[np.float64] = (below + not_above) / (2 * len(knots))
        return places
    low, high = knots
    if high == low:
        return np.full(len(values), 0.5)
    inside: NDArray[np.float64] = np.clip((values - low) / (high - low), 0.0, 1.0)
    return inside


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    kind = table.schema.field(name).type if name in table.column_names else None
    if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(
            f"measure {name!r} is no number of a customer; see `perso segments describe`"
        )
    known = pc.fill_null(table[name].cast(pa.float64()), float("nan"))
    values: NDArray[np.float64] = known.to_numpy().copy()
    return values
