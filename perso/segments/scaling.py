"""Measures of customers on one robust scale, and back.

Decides how a measure becomes a number that distances may add up: a logarithm for counts and
money, cut off at two quantiles, the median as 0, and a usual deviation as 1. What is unknown is the
median: it neither sets a customer apart nor makes them alike to others.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.segments.cluster_config import ClusterSpec

# N customers, F features

_IQR_OF_NORMAL = 1.349
"""Distance of the quartiles of a normal distribution, in its standard deviations."""
_ROUNDING = 1e-12
"""Relative deviation up to which values are one value, summed up with rounding."""


@dataclass(frozen=True, kw_only=True)
class RobustScale:
    """Fitted to a sample; per feature, arrays of shape (F,)."""

    features: tuple[str, ...]
    is_log_F: NDArray[np.bool_]
    low_F: NDArray[np.float64]
    """Values are cut off here, after the logarithm, as is ``high_F``."""
    high_F: NDArray[np.float64]
    center_F: NDArray[np.float64]
    """The median."""
    spread_F: NDArray[np.float64]
    """A usual deviation: of the quartiles, or the standard deviation where those meet."""

    @classmethod
    def fit(cls, sample: pa.Table, spec: ClusterSpec) -> "RobustScale":
        """The scale of a sample; features that say nothing in it are left out.

        Raises:
            ValueError: If a feature is no number, or none says anything.
        """
        kept: dict[str, tuple[float, ...]] = {}
        for name in spec.features:
            if name not in sample.column_names:
                continue
            values = _numbers(sample, name)
            # Sorted, so that sums round alike whatever the order of the rows.
            known = np.sort(values[~np.isnan(values)])
            if not len(known):
                continue
            known = np.log1p(np.maximum(known, 0.0)) if name in spec.log_features else known
            low, high = np.quantile(known, spec.winsor)
            inside = np.clip(known, low, high)
            lower, center, upper = np.quantile(inside, (0.25, 0.5, 0.75))
            deviation = float(inside.std())
            spread = (upper - lower) / _IQR_OF_NORMAL
            # Where most values are alike, the quartiles meet: the few others must not be giants.
            spread = max(float(spread), deviation)
            if deviation > _ROUNDING * max(1.0, abs(float(center))):
                kept[name] = (float(low), float(high), float(center), spread)
        if not kept:
            raise ValueError(
                f"none of the features {list(spec.features)} tells two customers apart; name others"
            )
        columns = np.array(list(kept.values()))
        return cls(
            features=tuple(kept),
            is_log_F=np.array([name in spec.log_features for name in kept], np.bool_),
            low_F=columns[:, 0],
            high_F=columns[:, 1],
            center_F=columns[:, 2],
            spread_F=columns[:, 3],
        )

    def transform(self, measures: pa.Table) -> NDArray[np.float64]:
        """Each customer's features on the scale, shape (N, F); one that is missing is 0.

        Raises:
            ValueError: If a feature is no number.
        """
        scaled_NF = np.zeros((len(measures), len(self.features)))
        for place, name in enumerate(self.features):
            if name in measures.column_names:
                values = _numbers(measures, name)
                values = np.log1p(np.maximum(values, 0.0)) if self.is_log_F[place] else values
                inside = np.clip(values, self.low_F[place], self.high_F[place])
                scaled_NF[:, place] = (inside - self.center_F[place]) / self.spread_F[place]
        return np.nan_to_num(scaled_NF, nan=0.0)

    def restore(self, scaled_CF: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measures that points on the scale stand for, shape as given."""
        values_CF = scaled_CF * self.spread_F + self.center_F
        values_CF[:, self.is_log_F] = np.expm1(values_CF[:, self.is_log_F])
        return values_CF


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    kind = table.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(
            f"cluster feature {name!r} is {kind}, no number; see `perso segments describe`"
        )
    values: NDArray[np.float64] = pc.fill_null(
        table[name].cast(pa.float64()), float("nan")
    ).to_numpy()
    return values
