"""Pictures of one family's searched settings: all of them together, and one by one."""

import math
from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Any

import numpy as np

from perso.pages.drawing import GRID, INK, LIMIT, MUTED, new_figure, set_title, styled, to_svg
from perso.tuning.report.drawing import (
    STOPPED,
    WIDTH,
    WINNER,
    mark_baseline,
    mark_winner,
    set_grid,
)
from perso.tuning.report.scoreboard import Candidate
from perso.tuning.report.setting_axis import SettingAxis

_SHADES = ("#dbe7f2", "#9ecae1", "#4292c6", "#08519c", "#08306b")


@styled
def draw_parallel(
    candidates: Sequence[Candidate],
    axes_shown: Sequence[SettingAxis],
    *,
    objective: str,
    limits: tuple[float, float],
    sign: float,
    winner: Candidate,
) -> str:
    """A line per candidate through its settings to its objective; better ones are darker.

    Args:
        candidates: Of one family, best first.
        axes_shown: One upright line each.
        objective: What stands over the last one.
        limits: Of the objective; values outside are drawn at the end.
        sign: 1 where the highest objective is the best, else -1.
        winner: Drawn in its own colour if it is among them.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    shades = LinearSegmentedColormap.from_list("objective", _SHADES)
    figure, axes = new_figure(WIDTH, 3.1)
    low, high = limits
    last = len(axes_shown)
    lines: list[list[tuple[int, float]]] = []
    looks: list[tuple[str, float, Any]] = []
    for candidate in reversed(candidates):  # the best on top
        places = [
            axis.place(candidate.searched[axis.name]) if axis.name in candidate.searched else np.nan
            for axis in axes_shown
        ]
        share = float(np.clip((candidate.value - low) / (high - low), 0, 1))
        lines.append(list(enumerate([*places, share])))
        good = share if sign > 0 else 1 - share
        if candidate is winner:
            looks.append((WINNER, 2.8, "solid"))
        elif not candidate.is_measured:
            looks.append((LIMIT, 0.9, (0, (1, 2))))
        elif candidate.status == "stopped":
            looks.append((to_hex(shades(good)), 0.9, (0, (4, 2))))
        else:
            looks.append((to_hex(shades(good)), 1.0 + 0.9 * good, "solid"))
    colors, widths, styles = zip(*looks, strict=True)
    axes.add_collection(
        LineCollection(lines, colors=colors, linewidths=widths, linestyles=styles, zorder=2)
    )
    for place, axis in enumerate(axes_shown):
        axes.axvline(place, color=GRID, linewidth=1.2, zorder=0)
        for spot, text in zip(*axis.ticks(), strict=True):
            axes.annotate(
                "\n".join(wrap(text, 16)),
                (place, spot),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8.5,
                color=MUTED,
                bbox={"boxstyle": "square,pad=0.08", "fc": "white", "ec": "none", "alpha": 0.75},
                zorder=6,
            )
    digits = max(0, 3 - math.floor(math.log10(max(abs(low), abs(high), 1e-9))))
    steps = np.linspace(0, 1, 65)
    for lower, upper in pairwise(steps):
        good = lower if sign > 0 else 1 - lower
        axes.fill_between(
            [last, last + 0.035 * (last + 0.6)], lower, upper, color=shades(good), linewidth=0.6
        )
    for spot in np.linspace(0, 1, 4):
        axes.annotate(
            f"{low + spot * (high - low):.{digits}f}",
            (last + 0.035 * (last + 0.6), spot),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED,
            annotation_clip=False,
        )
    names = [*(_title(axis) for axis in axes_shown), objective]
    axes.set_xticks(range(last + 1), names, color=INK)
    axes.tick_params(axis="x", length=0, pad=6, labelsize=9.5, top=False)
    axes.xaxis.set_ticks_position("top")
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.12 * max(last, 1) - 0.06, last * 1.1 + 0.05)
    axes.set_ylim(-0.05, 1.05)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return to_svg(figure)


@styled
def draw_each_setting(
    candidates: Sequence[Candidate],
    axes_shown: Sequence[SettingAxis],
    *,
    objective: str,
    limits: tuple[float, float],
    sign: float,
    color: str,
    winner: Candidate,
    baseline: float,
) -> str:
    """The objective against each setting, a point per candidate that was measured.

    Args:
        candidates: Of one family.
        axes_shown: A small picture each.
        objective: What the points' height is.
        limits: Of the height; points outside are drawn at its end.
        sign: 1 where the highest objective is the best, else -1.
        color: Of the family.
        winner: A star if it is among them.
        baseline: What bestsellers reach; ``nan``: not drawn.
    """
    columns = min(max(len(axes_shown), 3), 4)
    rows = -(-len(axes_shown) // columns)
    figure, grid = new_figure(WIDTH, 2.35 * rows, columns=columns, rows=rows, sharey=True)
    panels = np.asarray(grid, dtype=object).ravel()
    measured = [candidate for candidate in candidates if candidate.is_measured]
    for place, (axes, axis) in enumerate(zip(panels, axes_shown, strict=False)):
        points: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        best: dict[float, float] = {}
        for candidate in measured:
            if axis.name not in candidate.searched:
                continue
            x = axis.place(candidate.searched[axis.name])
            y = float(np.clip(candidate.value, *limits))
            stopped = candidate.status == "stopped"
            points[stopped].append((x, y))
            if not stopped:
                best[x] = max(best.get(x, -sign * np.inf) * sign, y * sign) * sign
            if candidate is winner:
                mark_winner(axes, x, y)
        look: dict[str, object] = {"s": 20, "alpha": 0.85, "clip_on": False}
        if points[True]:
            x_N, y_N = np.array(points[True]).T
            axes.scatter(x_N, y_N, facecolors="none", edgecolors=STOPPED, zorder=2, **look)
        if points[False]:
            x_N, y_N = np.array(points[False]).T
            axes.scatter(x_N, y_N, color=color, edgecolors="white", lw=0.4, zorder=3, **look)
        if axis.is_stepped and len(best) > 1:
            xs = sorted(best)
            axes.plot(xs, [best[x] for x in xs], color=color, linewidth=1.2, alpha=0.6, zorder=2)
        set_title(axes, _title(axis), size=9.5)
        spots, texts = axis.ticks()
        axes.set_xticks(spots, ["\n".join(wrap(text, 12)) for text in texts])
        axes.set_xlim(-0.08, 1.08)
        axes.set_ylim(*limits)
        mark_baseline(axes, baseline, named=place == 0)
        set_grid(axes)
    for axes in panels[::columns]:
        axes.set_ylabel(objective if len(objective) < 26 else "objective", fontsize=9)
    for axes in panels[len(axes_shown) :]:
        axes.set_axis_off()
    return to_svg(figure)


def _title(axis: SettingAxis) -> str:
    name = "\n".join(wrap(axis.name.replace("_", " ").replace(".", ". "), 20))
    return name.replace(" ", "_").replace("._", ".")
