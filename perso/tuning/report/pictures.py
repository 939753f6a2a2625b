"""Pictures of a search beside those of its settings: curves, trade-offs, segments, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perso.pages.drawing import INK, MUTED, new_figure, set_title, styled, to_svg
from perso.tuning.report.drawing import (
    STOPPED,
    WIDTH,
    WINNER,
    mark_baseline,
    mark_winner,
    set_grid,
    set_log_axis,
)
from perso.tuning.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def draw_curves(
    trials: Sequence[Trial],
    *,
    objective: str,
    color: str,
    winner: int,
    baseline: float,
    rungs: Sequence[int],
) -> str:
    """Loss after each epoch, and the objective where it was measured midway.

    Args:
        trials: Of one family.
        objective: Name of what is measured midway.
        color: Of the family.
        winner: Number of the winning trial.
        baseline: The objective of bestsellers; ``nan``: not drawn.
        rungs: Epochs at which trials were stopped.
    """
    from matplotlib.ticker import MaxNLocator

    has_losses = any(trial.losses for trial in trials)
    measured = [trial for trial in trials if len(trial.curve) > 1 or trial.status == "stopped"]
    has_curves = any(trial.curve for trial in measured)
    columns = int(has_losses) + int(has_curves)
    figure, grid = new_figure(WIDTH if columns == 2 else WIDTH * 0.7, 2.9, columns=columns)
    panels = list(np.atleast_1d(np.asarray(grid, dtype=object)))
    if has_losses:
        axes = panels.pop(0)
        set_title(axes, "Training loss")
        for trial in trials:
            _line(axes, list(enumerate(trial.losses, 1)), trial, color, winner)
        set_grid(axes)
        axes.set_xlabel("epoch", fontsize=9)
        positive = [loss for trial in trials for loss in trial.losses if np.isfinite(loss)]
        if positive and min(positive) > 0 and max(positive) / min(positive) > 20:
            set_log_axis(axes, "y")
    if has_curves:
        axes = panels.pop(0)
        set_title(axes, f"{objective} on the validation period")
        for trial in trials:
            _line(axes, list(trial.curve), trial, color, winner, marker="o")
        axes.autoscale_view()
        mark_baseline(axes, baseline)
        set_grid(axes)
        axes.set_xlabel("epoch", fontsize=9)
        for rung in rungs:
            axes.axvline(rung, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    return to_svg(figure)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One trade-off: accuracy against something else."""

    label: str
    """Of the axis to the right."""
    x_N: NDArray[np.float64]
    """Of each point; ``nan``: not drawn."""
    on_front_N: NDArray[np.bool_]
    """Points that no other one beats in both."""
    baseline: tuple[float, float]
    """Bestsellers."""


@styled
def draw_trade_offs(
    panels: Sequence[Panel],
    y_N: NDArray[np.float64],
    *,
    families_N: Sequence[str],
    colors: Mapping[str, str],
    objective: str,
    limits: tuple[float, float],
    winner: int | None,
) -> str:
    """Accuracy against coverage, diversity or the like, with the points that nothing beats.

    Args:
        panels: Side by side.
        y_N: The objective of each point.
        families_N: Of each point.
        colors: Of each family.
        objective: Its name.
        limits: Of the height; points outside are drawn at its end.
        winner: Place of the winner; None: it is not among them.
    """
    figure, grid = new_figure(WIDTH, 4.1, columns=len(panels), sharey=True)
    heights_N = np.clip(y_N, *limits)
    for axes, panel in zip(np.atleast_1d(np.asarray(grid, dtype=object)), panels, strict=True):
        _scatter_families(axes, panel.x_N, heights_N, families_N, colors, size=26)
        front = np.flatnonzero(panel.on_front_N)
        front = front[np.argsort(panel.x_N[front], kind="stable")]
        axes.plot(panel.x_N[front], heights_N[front], color=INK, linewidth=1.0, alpha=0.7, zorder=2)
        axes.scatter(
            panel.x_N[front],
            heights_N[front],
            s=62,
            facecolors="none",
            edgecolors=INK,
            linewidths=1.0,
            zorder=4,
        )
        x, y = panel.baseline
        if np.isfinite(x) and np.isfinite(y):
            axes.scatter([x], [y], marker="X", s=70, color=INK, label="bestsellers", zorder=4)
        if winner is not None:
            mark_winner(axes, float(panel.x_N[winner]), float(heights_N[winner]))
        axes.set_xlabel(panel.label)
        set_grid(axes, "both")
    figure.axes[0].set_ylabel(objective)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=7,
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
        columnspacing=1.4,
    )
    return to_svg(figure)


@styled
def draw_segments(
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    few: Sequence[bool],
    metric: str,
) -> str:
    """A row per segment with the place of bestsellers, champion and winner.

    Args:
        names: Of the segments, from top to bottom.
        values: Of each of those compared, the winner last; ``nan``: not drawn.
        few: Segments of so few users that their values are uncertain; drawn paler.
        metric: What the axis says.
    """
    figure, axes = new_figure(WIDTH, 0.36 * len(names) + 1.1)
    looks = {
        "bestsellers": {"marker": "X", "color": INK, "s": 50},
        "champion": {"marker": "s", "color": "#0072b2", "s": 42},
        "winner": {"marker": "*", "color": WINNER, "s": 150},
    }
    rows = np.arange(len(names))
    table_RS = np.array(list(values.values()), np.float64)
    for row in rows:
        known = table_RS[:, row][np.isfinite(table_RS[:, row])]
        if len(known):
            axes.plot([known.min(), known.max()], [row, row], color="#cbd2d9", lw=2.2, zorder=1)
    for who, line in values.items():
        axes.scatter(
            list(line),
            rows,
            alpha=[0.4 if is_few else 1.0 for is_few in few],
            label=who,
            zorder=3,
            edgecolors="white",
            linewidths=0.6,
            **looks[who],
        )
    axes.set_yticks(rows, names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(metric)
    axes.set_xlim(left=0)
    set_grid(axes, "x")
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, handletextpad=0.2)
    return to_svg(figure)


@styled
def draw_cost(
    seconds_N: Sequence[float],
    values_N: Sequence[float],
    *,
    families_N: Sequence[str],
    colors: Mapping[str, str],
    objective: str,
    limits: tuple[float, float],
    winner: int | None,
    baseline: float,
) -> str:
    """The objective against the seconds of training, by magnitude.

    Args:
        seconds_N: Above 0.
        values_N: The objective of each point.
        families_N: Of each point.
        colors: Of each family.
        objective: Its name.
        limits: Of the height; points outside are drawn at its end.
        winner: Place of the winner; None: it is not among them.
        baseline: The objective of bestsellers; ``nan``: not drawn.
    """
    figure, axes = new_figure(WIDTH, 3.4)
    x_N, y_N = np.array(seconds_N), np.clip(np.array(values_N), *limits)
    _scatter_families(axes, x_N, y_N, families_N, colors, size=28)
    if winner is not None:
        mark_winner(axes, float(x_N[winner]), float(y_N[winner]))
    axes.set_ylim(*limits)
    mark_baseline(axes, baseline)
    set_log_axis(axes, "x")
    axes.set_xlabel("CPU seconds of training and evaluation")
    axes.set_ylabel(objective)
    set_grid(axes, "both")
    figure.legend(loc="outside upper left", ncols=7, frameon=False, fontsize=9, handletextpad=0.2)
    return to_svg(figure)


def _line(
    axes: "Axes",
    points: Sequence[tuple[int, float]],
    trial: Trial,
    color: str,
    winner: int,
    marker: str = "",
) -> None:
    known = [(epoch, value) for epoch, value in points if np.isfinite(value)]
    if not known:
        return
    epochs, values = zip(*known, strict=True)
    stopped, won = trial.status != "finished", trial.number == winner
    (line,) = axes.plot(
        epochs,
        values,
        color=WINNER if won else STOPPED if stopped else color,
        linewidth=2.4 if won else 0.9 if stopped else 1.2,
        alpha=1.0 if won else 0.75,
        marker=marker or ("o" if len(known) == 1 else ""),
        markersize=4 if won else 2.6,
        zorder=4 if won else 2 if stopped else 3,
    )
    line.set_in_layout(False)  # it lies inside its axes; asking each line takes seconds
    if stopped:
        axes.plot(epochs[-1], values[-1], "x", ms=4.5, color=MUTED, mew=1.1, in_layout=False)


def _scatter_families(
    axes: "Axes",
    x_N: NDArray[np.float64],
    y_N: NDArray[np.float64],
    families_N: Sequence[str],
    colors: Mapping[str, str],
    *,
    size: float,
) -> None:
    """Points in the colour of their family."""
    for family, color in colors.items():
        inside_N = np.array([name == family for name in families_N])
        axes.scatter(
            x_N[inside_N],
            y_N[inside_N],
            s=size,
            color=color,
            edgecolors="white",
            linewidths=0.5,
            alpha=0.85,
            label=family,
            zorder=3,
        )
