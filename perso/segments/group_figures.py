"""Figures of groups of customers: sizes and means, the RFM map, distributions.

Decides what is counted and over which customers a mean is taken. Sums are exact over integers, so
neither the order of rows nor the number of files changes a figure. N customers, G groups;
10 million customers take about a second a column.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.segments.migration import NO_LABEL

NUM_BANDS: Final = 5
BAND_WIDTH: Final = 20
"""The RFM map has five bands of recency_score: 1-20, 21-40, 41-60, 61-80, 81-100."""
NUM_QUARTILES: Final = 4
NUM_BINS: Final = 20
"""Bars of a distribution; fewer where whole numbers have fewer values."""
_ENDS: Final = (1.0, 99.0)  # per cent: a few giants must not squeeze everybody into one bar


@dataclass(frozen=True, kw_only=True)
class GroupFigures:
    """One segment or one cluster."""

    key: str
    """Name of the segment, id of the cluster; ``(none)``: customers without one."""
    label: str
    """What a cluster is called; of a segment its name again."""
    num_users: int
    """Customers in it."""
    share: float
    """Of all customers, 0 to 1."""
    spend: float
    """Sum of their spend in the window."""
    mean_spend: float | None
    """Spend per customer."""
    mean_orders: float | None
    """Orders per customer in the window."""
    mean_recency_days: float | None
    """Days since the last purchase, over who ever bought; None: nobody did."""
    mean_composite_score: float | None
    """Mean of the composite score, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class RfmCell:
    """Buyers with like recency and frequency."""

    recency_from: int
    """Lowest recency_score of the band, 1 to 81; the highest is 19 more."""
    frequency_quartile: int
    """1 to 4, 4 the most orders."""
    num_users: int
    """Customers in it, 0 if none."""
    mean_monetary: float | None
    """Total spend per customer; None without customers."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How the values of one feature are spread over the customers."""

    name: str
    """The feature's column."""
    low: float
    """Where the first bar begins: the 1st percentile, or half below it for whole numbers."""
    high: float
    """Where the last bar ends: the 99th percentile, or beyond it for whole numbers."""
    counts: tuple[int, ...]
    """Customers per bar, bars of equal width; who lies outside is in the first or last bar."""
    median: float
    """Half of the customers with a value have less."""
    num_zeros: int
    """Customers with exactly 0."""
    num_unknown: int
    """Customers without a value."""


def group_figures(
    rows: pa.Table, *, by: str, labels: Mapping[str, str] | None = None
) -> list[GroupFigures]:
    """The figures of each group, sorted by key.

    Args:
        rows: A row per customer: ``spend``, ``num_orders``, ``recency_days``,
            ``composite_score`` and the columns named here. Nulls are left out of means.
        by: Column of the groups; null is a group of its own, ``(none)``.
        labels: What groups are called, by key; a group that is missing is called by its key.
    """
    num_users = len(rows)
    if not num_users:
        return []
    groups = pc.fill_null(_text(rows[by]), NO_LABEL).combine_chunks().dictionary_encode()
    keys = groups.dictionary.to_pylist()
    codes_N = groups.indices.to_numpy()
    sizes = np.bincount(codes_N, minlength=len(keys)).tolist()
    sums: dict[str, list[float]] = {}
    counts: dict[str, list[int]] = {}
    for name in ("spend", "num_orders", "recency_days", "composite_score"):
        sums[name], counts[name] = _sums(numbers(rows[name]), codes_N, len(keys))

    def mean(name: str, code: int) -> float | None:
        return sums[name][code] / counts[name][code] if counts[name][code] else None

    return [
        GroupFigures(
            key=keys[code],
            label=(labels or {}).get(keys[code], keys[code]),
            num_users=sizes[code],
            share=sizes[code] / num_users,
            spend=sums["spend"][code],
            mean_spend=mean("spend", code),
            mean_orders=mean("num_orders", code),
            mean_recency_days=mean("recency_days", code),
            mean_composite_score=mean("composite_score", code),
        )
        for code in sorted(range(len(keys)), key=lambda code: keys[code])
    ]


def rfm_map(rows: pa.Table) -> list[RfmCell]:
    """Buyers by band of recency and quartile of frequency; the lowest scores first.

    Args:
        rows: ``recency_score`` 1 to 100, ``frequency_quartile`` 1 to 4 (0: never bought, left
            out) and ``monetary``.
    """
    recency_N = numbers(rows["recency_score"])
    quartile_N = numbers(rows["frequency_quartile"])
    is_buyer_N = (recency_N >= 1) & (quartile_N >= 1)
    band_N = (recency_N[is_buyer_N].astype(np.int64) - 1) // BAND_WIDTH
    codes_N = band_N * NUM_QUARTILES + quartile_N[is_buyer_N].astype(np.int64) - 1
    num_cells = NUM_BANDS * NUM_QUARTILES
    sizes = np.bincount(codes_N, minlength=num_cells).tolist()
    sums, counts = _sums(numbers(rows["monetary"])[is_buyer_N], codes_N, num_cells)
    return [
        RfmCell(
            recency_from=code // NUM_QUARTILES * BAND_WIDTH + 1,
            frequency_quartile=code % NUM_QUARTILES + 1,
            num_users=sizes[code],
            mean_monetary=sums[code] / counts[code] if counts[code] else None,
        )
        for code in range(num_cells)
    ]


def distributions(rows: pa.Table, names: Sequence[str]) -> list[Distribution]:
    """How each of some numeric columns is spread; columns without any value are left out."""
    found = []
    for name in names:
        values_N = numbers(rows[name])
        known_N = values_N[~np.isnan(values_N)]
        if not known_N.size:
            continue
        low, median, high = np.percentile(known_N, [_ENDS[0], 50.0, _ENDS[1]]).tolist()
        num_bins = NUM_BINS
        if (known_N == np.rint(known_N)).all():  # a bar for each value, or for equally many
            span = math.floor(high) - math.floor(low) + 1
            width = -(-span // NUM_BINS)
            num_bins = -(-span // width)
            low = math.floor(low) - 0.5
            high = low + num_bins * width
        elif high <= low:  # nearly everybody has one value
            low, high = low - 0.5, high + 0.5
        counts, _ = np.histogram(np.clip(known_N, low, high), num_bins, (low, high))
        found.append(
            Distribution(
                name=name,
                low=low,
                high=high,
                counts=tuple(counts.tolist()),
                median=median,
                num_zeros=int((known_N == 0).sum()),
                num_unknown=len(values_N) - len(known_N),
            )
        )
    return found


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """The values of a numeric column, ``nan`` for null and for what is not finite."""
    values_N: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    is_finite_N = np.isfinite(values_N)
    return values_N if is_finite_N.all() else np.where(is_finite_N, values_N, np.nan)


def labels_of(rows: pa.Table) -> dict[str, str]:
    """What each cluster is called, by id; the first by name where it has several labels.

    Args:
        rows: ``cluster`` and ``cluster_label``; a row without either says nothing.
    """
    pairs = pa.table({"key": _text(rows["cluster"]), "label": _text(rows["cluster_label"])})
    named = pairs.group_by("key").aggregate([("label", "min")])
    found = zip(named["key"].to_pylist(), named["label_min"].to_pylist(), strict=True)
    return {key: label for key, label in found if key is not None and label is not None}


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _sums(
    values_N: NDArray[np.float64], codes_N: NDArray[Any], num_groups: int
) -> tuple[list[float], list[int]]:
    """Sum and number of the known values of each group.

    Values are rounded to a grid so fine that integers below 2⁵³ hold every sum: such sums are
    exact, whatever the order of the rows (Demmel and Nguyen, Fast reproducible floating-point
    summation, ARITH 2013).
    """
    is_known_N = ~np.isnan(values_N)
    if not is_known_N.all():
        values_N, codes_N = values_N[is_known_N], codes_N[is_known_N]
    largest = float(np.abs(values_N).max(initial=0.0)) * len(values_N)
    bits = 52 - math.frexp(largest)[1] if largest else 0
    on_grid_N = np.rint(np.ldexp(values_N, bits))
    sums_G = np.bincount(codes_N, weights=on_grid_N, minlength=num_groups)
    counts_G = np.bincount(codes_N, minlength=num_groups)
    return np.ldexp(sums_G, -bits).tolist(), counts_G.tolist()
