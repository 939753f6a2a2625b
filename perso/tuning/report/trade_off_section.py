"""The section on what accuracy costs: coverage and diversity of the same trials."""

import math
from typing import Final

import numpy as np

from perso.pages.parts import Part, Picture, Section, Text
from perso.pages.table import Cell, Table
from perso.tuning.report.drawing import value_limits
from perso.tuning.report.metric_words import meaning
from perso.tuning.report.pareto import pareto_front
from perso.tuning.report.pictures import Panel, draw_trade_offs
from perso.tuning.report.scoreboard import Candidate, Scoreboard
from perso.tuning.report.verdict_section import metric_text

_FRONT_TOLD: Final = 12
_TITLE: Final = "Accuracy, coverage and diversity"


def trade_off_section(board: Scoreboard) -> Section:
    """Accuracy against coverage and diversity, with the trials that no other beats in all."""
    parts = _parts(board)
    if not parts:
        parts = [Text(text="Neither coverage nor diversity was measured, or of one trial only.")]
    return Section(anchor="trade-offs", name="Trade-offs", title=_TITLE, parts=parts)


def _parts(board: Scoreboard) -> list[Part]:
    metrics = _shown_metrics(board)
    shown = [
        candidate
        for candidate in board.with_status("finished", "barred")
        if any(math.isfinite(candidate.metric(metric)) for metric in metrics)
    ]
    if len(shown) < 2:
        return []
    sign = board.spec.goal.sign
    y_N = np.array([candidate.value for candidate in shown])
    popular = board.result.validation_baseline.report.overall
    panels = []
    columns = [sign * y_N]
    for metric in metrics:
        x_N = np.array([candidate.metric(metric) for candidate in shown])
        columns.append(x_N)
        panels.append(
            Panel(
                label=metric,
                x_N=x_N,
                on_front_N=pareto_front(np.stack([sign * y_N, x_N], axis=1)),
                baseline=(popular.get(metric, math.nan), board.baseline_value),
            )
        )
    on_front_N = pareto_front(np.stack(columns, axis=1))
    front = [c for c, on_front in zip(shown, on_front_N, strict=True) if on_front]
    svg = draw_trade_offs(
        panels,
        y_N,
        families_N=[candidate.family for candidate in shown],
        colors=board.colors,
        objective=board.objective,
        limits=value_limits(list(y_N), board.baseline_value),
        winner=shown.index(board.winner) if board.winner in shown else None,
    )
    words = "; ".join(f"{metric}: {meaning(metric)}" for metric in metrics)
    return [
        Picture(
            svg=svg,
            alt=f"Points: {board.objective} of {len(shown)} combinations against "
            f"{' and '.join(metrics)}.",
            caption="How to read it: further up is more accurate, further right is more varied. "
            "Ringed and joined: nothing else is better in both (the Pareto front). Star: the "
            "winner. Cross: bestsellers. Trials that were stopped early are left out. "
            f"{words[:1].upper()}{words[1:]}.",
        ),
        _front_table(board, front, metrics),
    ]


def _shown_metrics(board: Scoreboard) -> list[str]:
    """Coverage and, where items have categories, diversity; else novelty. Not the objective."""
    k = board.longest_list
    measured = {
        name
        for candidate in board.measured()
        for name in candidate.trials[0].metrics
        if math.isfinite(candidate.metric(name))
    } - {board.objective}
    found = [f"coverage@{k}"] if f"coverage@{k}" in measured else []
    for base in ("intra_list_diversity", "novelty"):
        if f"{base}@{k}" in measured:
            return [*found, f"{base}@{k}"]
    return found


def _front_table(board: Scoreboard, front: list[Candidate], metrics: list[str]) -> Table:
    rows = [
        [
            Cell(
                text=candidate.family,
                small=candidate.settings_text,
                swatch=board.colors[candidate.family],
            ),
            Cell(text=candidate.numbers),
            Cell(text=metric_text(candidate.value), is_number=True),
            *(Cell(text=metric_text(candidate.metric(m)), is_number=True) for m in metrics),
        ]
        for candidate in front[:_FRONT_TOLD]
    ]
    told = f" The first {_FRONT_TOLD} of {len(front)}." if len(front) > _FRONT_TOLD else ""
    places = [place for place, candidate in enumerate(front) if candidate is board.winner]
    return Table(
        head=["Model", "Trial", f"{board.objective}#", *(f"{metric}#" for metric in metrics)],
        rows=rows,
        marked=frozenset(place for place in places if place < _FRONT_TOLD),
        caption="What can be had: of no combination in this table is another one better in all "
        f"columns. The most accurate first; the winner is marked.{told}",
        css="ranked",
    )
