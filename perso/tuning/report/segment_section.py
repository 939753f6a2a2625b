"""The section on whom the winner serves better or worse: segment by segment, on the test period."""

import math
from collections.abc import Mapping
from typing import Final

from perso.evaluation.report import EvaluationReport
from perso.pages.number_text import counted
from perso.pages.parts import Part, Picture, Section, Text
from perso.pages.table import Cell, Table
from perso.tuning.report.pictures import draw_segments
from perso.tuning.report.scoreboard import Scoreboard
from perso.tuning.report.verdict_section import change_cell, metric_text, relative_change

_SEGMENTS_DRAWN: Final = 24
_TITLE: Final = "Each segment of shoppers"


def segment_section(board: Scoreboard) -> Section:
    """The winner beside champion and bestsellers in every segment."""
    result, metric = board.result, board.spec.gate_metric
    users = result.tested.num_users_by_segment
    names = sorted(
        (n for n, metrics in result.tested.per_segment.items() if metric in metrics),
        key=lambda name: (name.startswith("("), -users.get(name, 0), name),
    )
    if not names:
        return Section(
            anchor="segments",
            name="Segments",
            title=_TITLE,
            parts=[Text(text=f"{metric} was not measured per segment on the test period.")],
        )
    least = board.spec.gate.min_segment_users
    few = {name: users.get(name, 0) < least for name in names}
    who = _compared(board)
    drawn = names[:_SEGMENTS_DRAWN]
    parts: list[Part] = [Text(text=_in_words(board, names, few))]
    parts.append(
        Picture(
            svg=draw_segments(
                drawn,
                {
                    label: [_of(report, name, metric) for name in drawn]
                    for label, report in who.items()
                },
                [few[name] for name in drawn],
                metric,
            ),
            alt=f"{metric} of {', '.join(who)} in each segment; the table below has the numbers.",
            caption=f"How to read it: further right is better. Pale: fewer than {least} shoppers, "
            "so the places may be chance.",
        )
    )
    parts.append(_table(board, names, few, who))
    return Section(anchor="segments", name="Segments", title=_TITLE, parts=parts)


def _compared(board: Scoreboard) -> dict[str, EvaluationReport]:
    result = board.result
    who = {"bestsellers": result.test_baseline.report}
    if result.champion is not None:
        who["champion"] = result.champion.report
    return {**who, "winner": result.tested}


def _of(report: EvaluationReport, segment: str, metric: str) -> float:
    return report.per_segment.get(segment, {}).get(metric, math.nan)


def _in_words(board: Scoreboard, names: list[str], few: Mapping[str, bool]) -> str:
    """Who gains most and who loses, among segments of enough users."""
    result, metric = board.result, board.spec.gate_metric
    rival, other = (
        ("the champion", result.champion.report)
        if result.champion is not None
        else ("bestsellers", result.test_baseline.report)
    )
    changes = {
        name: change
        for name in names
        if not few[name] and not name.startswith("(")
        if (change := relative_change(*(_of(r, name, metric) for r in (result.tested, other))))
        is not None
    }
    if not changes:
        return (
            f"No segment has the {counted(board.spec.gate.min_segment_users, 'shopper')} that it "
            "takes to say more than chance does."
        )
    ranked = sorted(changes, key=lambda name: changes[name])
    losing = [name for name in ranked if changes[name] < 0]
    best = ranked[-1]
    certain = counted(len(changes), "segment with enough shoppers", "segments with enough shoppers")
    verb = "gain" if len(changes) - len(losing) != 1 else "gains"
    sentences = [f"Of {certain}, {len(changes) - len(losing)} {verb} against {rival}."]
    if changes[best] > 0:
        sentences.append(f"The most: {best}, {changes[best]:+.1%} {metric}.")
    if losing:
        told = ", ".join(f"{name} ({changes[name]:+.1%})" for name in losing[:4])
        sentences.append(f"{'Loses' if len(losing) == 1 else 'Lose'}: {told}.")
    return " ".join(sentences)


def _table(
    board: Scoreboard,
    names: list[str],
    few: Mapping[str, bool],
    who: Mapping[str, EvaluationReport],
) -> Table:
    metric, tested = board.spec.gate_metric, board.result.tested
    rivals = [label for label in ("champion", "bestsellers") if label in who]
    rows = []
    for name in names:
        pale = "pale" if few[name] else ""
        ours = _of(tested, name, metric)
        size = tested.num_users_by_segment.get(name, 0)
        rows.append(
            [
                Cell(text=name, small="few shoppers: uncertain" if few[name] else ""),
                Cell(text=f"{size:,}", is_number=True, css=pale),
                *(
                    Cell(
                        text=metric_text(_of(report, name, metric)),
                        is_number=True,
                        css=pale or ("strong" if label == "winner" else ""),
                    )
                    for label, report in who.items()
                ),
                *(change_cell(ours, _of(who[r], name, metric), metric, pale) for r in rivals),
            ]
        )
    return Table(
        head=[
            "Segment",
            "Shoppers#",
            *(f"{label.capitalize()}#" for label in who),
            *(f"vs {label}#" for label in rivals),
        ],
        rows=rows,
        caption=f"{metric} on the test period. Names in brackets are slices rather than segments: "
        "newcomers had bought nothing before it and are in no other figure of this page; of new "
        "items nobody had bought one.",
    )
