"""What the pictures of a search have in common: how winner, bestsellers and others look."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from perso.pages.drawing import GRID, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINNER: Final = "#d55e00"
STOPPED: Final = "#9aa5b1"
WIDTH: Final = 9.2


def set_grid(axes: "Axes", axis: Any = "y") -> None:
    """Thin lines below the picture."""
    axes.grid(axis=axis, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, labelsize=8.5)


def set_log_axis(axes: "Axes", which: Literal["x", "y"]) -> None:
    """An axis by magnitude with plain numbers at 1, 2 and 5 of each."""
    from matplotlib.ticker import LogLocator, NullFormatter

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def mark_baseline(axes: "Axes", value: float, *, named: bool = True) -> None:
    """A dashed line across at what bestsellers reach, if that is in the picture by now."""
    low, high = axes.get_ylim()
    if not low <= value <= high:  # nor if it is unknown
        return
    axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
    if named:
        axes.annotate(
            "bestsellers",
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=MUTED,
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
            zorder=4,
        )


def mark_winner(axes: "Axes", x: float, y: float) -> None:
    """A star."""
    axes.scatter(
        [x], [y], marker="*", s=170, color=WINNER, edgecolors="white", linewidths=0.8, zorder=5
    )


def value_limits(
    values: Sequence[float], baseline: float = np.nan, *, room: float = 0.06
) -> tuple[float, float]:
    """Ends of an axis: all values but those far from the others, which would flatten the rest.

    Args:
        values: Of the trials; ``nan`` is passed over.
        baseline: Of bestsellers; within the ends only if it is near the values.
        room: Share of the span that is added on both sides.
    """
    known = np.array([value for value in values if np.isfinite(value)])
    low, high = float(known.min()), float(known.max())
    first, third = np.percentile(known, [25, 75])
    if third > first:
        reach = 2.5 * (third - first)
        low, high = max(low, float(first - reach)), min(high, float(third + reach))
    span = high - low or abs(high) * 0.1 or 1.0
    if np.isfinite(baseline) and low - 1.5 * span < baseline < high + 1.5 * span:
        low, high = min(low, baseline), max(high, baseline)
    if low == high:
        low, high = low - span / 2, high + span / 2
    span = high - low
    return low - room * span, high + room * span
