"""How every picture of a page looks: style, colours, axes, and SVG that never changes.

matplotlib is loaded with the first picture, and its figures are drawn without pyplot, which would
keep them.
"""

import io
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK: Final = "#1f2933"
MUTED: Final = "#5b6774"
GRID: Final = "#e4e8ec"
LIMIT: Final = "#b3261e"

# Okabe and Ito, Color Universal Design, 2008; the yellow is left out: it is lost on white.
CATEGORY_COLORS: Final = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#3c3c3c",
)
_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "perso",
    "svg.fonttype": "none",  # text stays text: sharp, small, and found by a search in the file
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
}


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """The same function in the pages' style, which matplotlib reads while a text is made."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def new_figure(
    width: float,
    height: float,
    *,
    columns: int = 1,
    rows: int = 1,
    sharey: bool = False,
    layout: Literal["constrained"] | None = "constrained",
) -> tuple["Figure", Any]:
    """A figure in inches and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.subplots(rows, columns, sharey=sharey)


def to_svg(figure: "Figure") -> str:
    """The figure as SVG text, without a date."""
    written = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(written, format="svg", metadata=metadata, dpi=160)
    return written.getvalue()


def set_title(axes: "Axes", text: str, size: float = 10.5) -> None:
    """A title above the left end, in points."""
    axes.set_title(text, loc="left", fontsize=size, color=INK)


def to_days(instants: Sequence[datetime]) -> NDArray[np.float64]:
    """Places of instants on an axis, in days."""
    return np.array([instant.timestamp() / 86_400 for instant in instants])


def set_date_axis(axes: "Axes", instants: Sequence[datetime], most: int = 8) -> None:
    """Ticks on weeks that there are, evenly spaced."""
    step = -(-len(instants) // most)
    ticks = list(range(len(instants) - 1, -1, -step))[::-1]
    days = to_days(instants)
    axes.set_xticks(
        [days[place] for place in ticks],
        [f"{instants[place].day} {instants[place]:%b}" for place in ticks],
    )


def set_count_axis(axes: "Axes") -> None:
    """Whole numbers with separators, and lines across below the picture."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def short_number(value: float) -> str:
    """A number for a tick.

    Example:
        >>> short_number(1500.0), short_number(0.25)
        ('1.5k', '0.25')
    """
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if abs(value) >= 1_000 else f"{value:g}"
