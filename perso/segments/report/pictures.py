"""The pictures of the segment report, as SVG text that is the same for the same figures.

Decides the form of each; what may be shown is decided before: a value that is None is not drawn.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray

from perso.pages.drawing import (
    GRID,
    INK,
    LIMIT,
    MUTED,
    new_figure,
    set_count_axis,
    set_date_axis,
    set_title,
    short_number,
    styled,
    to_days,
    to_svg,
)
from perso.segments.group_figures import Distribution
from perso.segments.names import NOISE
from perso.segments.report.colors import segment_colors


@styled
def draw_size_and_value(
    names: Sequence[str],
    users: Sequence[float | None],
    spend: Sequence[float | None],
    colors: Sequence[str],
) -> str:
    """Two bars per segment: its share of the customers and its share of the spend, 0 to 1."""
    figure, (left, right) = new_figure(9.2, 0.36 * len(names) + 0.9, columns=2, sharey=True)
    places = np.arange(len(names))
    largest = max([value for value in (*users, *spend) if value is not None], default=1.0)
    for axes, title, values in (
        (left, "Share of all customers", users),
        (right, "Share of all spend", spend),
    ):
        set_title(axes, title)
        drawn = [0.0 if value is None else value for value in values]
        axes.barh(places, drawn, color=list(colors), edgecolor=MUTED, linewidth=0.4, height=0.72)
        for place, value in zip(places, values, strict=True):
            text = "hidden" if value is None else f"{value:.1%}"
            at = max(value or 0.0, 0.0) + largest * 0.015
            axes.text(at, place, text, va="center", fontsize=9, color=MUTED)
        axes.set_xlim(min([0.0, *drawn]), largest * 1.16)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
    left.set_yticks(places, names, color=INK)
    left.invert_yaxis()
    return to_svg(figure)


@styled
def draw_sizes_over_time(
    instants: Sequence[datetime],
    sizes: Mapping[str, Sequence[int | None]],
    names: Mapping[str, str],
) -> str:
    """Customers per segment as bands over the weeks, named at the right end; first at the top."""
    figure, axes = new_figure(9.2, 4.4, layout=None)  # the names at the right need their own room
    keys = list(sizes)[::-1]
    heights = np.array([[value or 0 for value in sizes[key]] for key in keys], np.float64)
    colors = segment_colors(keys)
    days = to_days(instants)
    axes.stackplot(
        days,
        heights,
        colors=[colors[key] for key in keys],
        edgecolor="white",
        linewidth=0.6,
    )
    tops = heights[:, -1].cumsum()
    total = max(float(heights.sum(axis=0).max()), 1.0)
    wanted = [float(top - height / 2) for top, height in zip(tops, heights[:, -1], strict=True)]
    shown = [place for place, height in enumerate(heights[:, -1]) if height > 0]
    spots = _spread([wanted[place] for place in shown], gap=total * 0.047)
    span = days[-1] - days[0] or 1.0
    for place, spot in zip(shown, spots, strict=True):
        axes.annotate(
            names[keys[place]],
            (days[-1], wanted[place]),
            (days[-1] + span * 0.025, spot),
            va="center",
            fontsize=9,
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkB": 0},
        )
    axes.set_xlim(days[0], days[-1] if days[-1] > days[0] else days[0] + 1)
    axes.set_ylim(0, total * 1.02)
    axes.set_ylabel("customers")
    set_count_axis(axes)
    set_date_axis(axes, instants)
    figure.subplots_adjust(left=0.085, right=0.83, top=0.97, bottom=0.1)
    return to_svg(figure)


@styled
def draw_stability(
    instants: Sequence[datetime],
    panels: Sequence[tuple[str, Mapping[str, Sequence[float | None]], float, bool]],
) -> str:
    """Lines over the weeks, a panel per figure, each with its limit.

    Args:
        instants: The weeks.
        panels: Title, values per line, limit, and whether the limit is a highest value.
    """
    figure, all_axes = new_figure(9.2, 2.7, columns=len(panels))
    days = to_days(instants)
    for axes, (title, lines, limit, is_highest) in zip(all_axes, panels, strict=True):
        set_title(axes, title)
        values = [v for line in lines.values() for v in line if v is not None]
        low = 0.0 if is_highest else min([limit, *values]) - 0.1
        high = max([limit, *values]) * 1.15 if is_highest else 1.02
        red = (limit, high) if is_highest else (low, limit)
        axes.axhspan(*red, color=LIMIT, alpha=0.07, linewidth=0)
        axes.axhline(limit, color=LIMIT, linewidth=1, linestyle=(0, (5, 3)))
        for (name, line), color, marker in zip(
            lines.items(), ("#0072b2", "#e69f00"), ("o", "s"), strict=False
        ):
            known = [np.nan if value is None else value for value in line]
            axes.plot(days, known, color=color, marker=marker, ms=3, lw=1.4, label=name)
        axes.set_ylim(low, high)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        set_date_axis(axes, instants, most=3)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8.5, loc="best", handlelength=1.4)
    return to_svg(figure)


@styled
def draw_scatter(
    x_N: NDArray[np.float64],
    y_N: NDArray[np.float64],
    groups_N: NDArray[np.object_],
    colors: Mapping[str, str],
    names: Mapping[str, str],
) -> str:
    """Customers as points on the two main axes, coloured and numbered by cluster.

    Args:
        x_N: First axis.
        y_N: Second axis.
        groups_N: Cluster of each point; points of a cluster without a name are not drawn.
        colors: Of every cluster, in the order of their numbers, which begin with 1.
        names: What each cluster that is drawn is called.
    """
    figure, axes = new_figure(9.2, 6.1)
    sizes = {key: int((groups_N == key).sum()) for key in names}
    # The largest first, so that it does not cover the others; noise below them all.
    for key in sorted(names, key=lambda key: (key != NOISE, -sizes[key], key)):
        inside_N = groups_N == key
        # As an image inside the SVG: thousands of circles would be megabytes.
        axes.scatter(
            x_N[inside_N],
            y_N[inside_N],
            s=9,
            color=colors[key],
            alpha=0.55,
            linewidths=0,
            rasterized=True,
        )
    for limits, values_N in ((axes.set_xlim, x_N), (axes.set_ylim, y_N)):
        low, high = np.percentile(values_N, [0.5, 99.5])
        room = (high - low or 1.0) * 0.06
        limits(low - room, high + room)
    centers = {
        key: (float(np.median(x_N[groups_N == key])), float(np.median(y_N[groups_N == key])))
        for key in names
        if key != NOISE and sizes[key]
    }
    spots = _apart(centers, axes.get_xlim(), axes.get_ylim())
    handles = []
    for number, key in enumerate(colors, 1):
        if key not in names:
            continue
        text = names[key] if key == NOISE else f"{number}  {names[key]}"
        text = "\n".join(wrap(text, 56))
        handles.append(axes.scatter([], [], s=40, color=colors[key], label=text))
        if key in centers:
            axes.annotate(
                str(number),
                centers[key],
                spots[key],
                ha="center",
                va="center",
                fontsize=11,
                fontweight="bold",
                color=INK,
                bbox={"boxstyle": "circle,pad=0.32", "fc": "white", "ec": colors[key], "lw": 2},
                arrowprops={"arrowstyle": "-", "color": colors[key], "linewidth": 1.2},
            )
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=2,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handletextpad=0.3,
    )
    axes.set_xlabel("first principal component (no unit)")
    axes.set_ylabel("second principal component (no unit)")
    axes.set_xticks([])
    axes.set_yticks([])
    return to_svg(figure)


@styled
def draw_distributions(shown: Sequence[tuple[Distribution, str, str]], minimum: int) -> str:
    """Small histograms side by side.

    Args:
        shown: Each with its title and unit.
        minimum: Bars of fewer customers are left out.
    """
    columns = 4
    num_rows = -(-len(shown) // columns)
    figure, grid = new_figure(9.2, 1.75 * num_rows, columns=columns, rows=num_rows)
    places = np.asarray(grid, dtype=object).ravel()
    for axes, (spread, title, unit) in zip(places, shown, strict=False):
        edges = np.linspace(spread.low, spread.high, len(spread.counts) + 1)
        counts = np.array(spread.counts, np.float64)
        counts[counts < minimum] = 0
        percent = counts / max(sum(spread.counts), 1) * 100
        axes.bar(edges[:-1], percent, np.diff(edges), align="edge", color="#2f7ebc", lw=0)
        axes.axvline(spread.median, color=INK, linewidth=1.1)
        set_title(axes, "\n".join(wrap(title, 26)), size=9.5)
        axes.set_xlabel(unit, fontsize=8.5)
        axes.tick_params(labelsize=8, length=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}%")
        axes.locator_params(axis="y", nbins=3)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
        axes.set_xlim(spread.low, spread.high)
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    return to_svg(figure)


def _apart(
    centers: Mapping[str, tuple[float, float]],
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> dict[str, tuple[float, float]]:
    """A place near each center where its number covers no other: on it, or on a ring around."""
    width, height = x_limits[1] - x_limits[0], y_limits[1] - y_limits[0]
    gap = 0.055  # of the height; the picture is about 1.7 times as wide as high
    rings = [(0.0, 0.0)] + [
        (gap * ring * np.cos(angle), gap * ring * np.sin(angle))
        for ring in range(1, 6)
        for angle in np.arange(0.5, 8) * np.pi / 4
    ]
    taken: list[tuple[float, float]] = []
    spots = {}
    for key, (x, y) in centers.items():
        for across, up in rings:
            spot = (x / width * 1.7 + across, y / height + up)
            if all(np.hypot(spot[0] - u, spot[1] - v) >= gap for u, v in taken):
                break
        taken.append(spot)
        spots[key] = (spot[0] * width / 1.7, spot[1] * height)
    return spots


def _spread(wanted: Sequence[float], *, gap: float) -> list[float]:
    """Places in rising order as near to the wanted ones as the gap allows."""
    spots: list[float] = []
    for want in wanted:
        spots.append(max(want, spots[-1] + gap) if spots else want)
    return spots
