"""The leaderboard: best first, the stopped and the failed with their reasons, and popularity."""

import math
from collections import defaultdict
from typing import Final

from perso.pages.number_text import counted
from perso.pages.parts import Heading, Part, Section, Text
from perso.pages.table import Cell, Table
from perso.tuning.report.metric_words import duration
from perso.tuning.report.scoreboard import Candidate, Scoreboard
from perso.tuning.report.verdict_section import bestsellers, metric_text

_BEST_TOLD: Final = 20
_STOPPED_TOLD: Final = 10
_REASONS_TOLD: Final = 8
_REASON_LENGTH: Final = 220
_NUMBERS_TOLD: Final = 6


def leaderboard_section(board: Scoreboard) -> Section:
    """Every combination that was tried, as far as a reader would read."""
    finished = board.with_status("finished")
    parts: list[Part] = [_finished(board, finished)]
    if barred := board.with_status("barred"):
        parts += [Heading(text="Outside the constraints"), _barred(board, barred)]
    if stopped := board.with_status("stopped"):
        parts += [Heading(text="Stopped early"), _stopped(board, stopped)]
    if lost := board.with_status("failed", "unmeasured"):
        parts += [Heading(text="Failed"), _failed(board, lost)]
    else:
        parts.append(Text(text="No trial failed.", css="note"))
    return Section(anchor="leaderboard", name="Leaderboard", title="Leaderboard", parts=parts)


def _finished(board: Scoreboard, finished: list[Candidate]) -> Table:
    k = board.longest_list
    terms = [term.metric for term in board.spec.goal.terms if term.metric != board.objective]
    wanted = [*terms, f"recall@{k}", f"hit_rate@{k}", f"coverage@{k}"]
    shown = [
        name
        for name in dict.fromkeys(wanted)
        if name != board.objective and any(name in c.trials[0].metrics for c in board.candidates)
    ]
    sign, popular = board.spec.goal.sign, board.result.validation_baseline
    ahead = sum(sign * c.value > sign * board.baseline_value for c in finished)
    rows: list[list[Cell]] = []
    marked = set()
    for place, candidate in enumerate(finished[:_BEST_TOLD]):
        if candidate is board.winner:
            marked.add(len(rows) + (ahead <= place))
        rows.append(
            [
                Cell(text=str(place + 1)),
                Cell(
                    text=candidate.family,
                    small=candidate.settings_text,
                    swatch=board.colors[candidate.family],
                ),
                Cell(text=candidate.numbers),
                _objective_cell(candidate),
                *(Cell(text=metric_text(candidate.metric(m)), is_number=True) for m in shown),
                Cell(text=_train_time(candidate), is_number=True),
            ]
        )
    baseline = [
        Cell(text="–"),
        Cell(text=bestsellers(popular), small="to be beaten; nothing to search"),
        Cell(text=""),
        Cell(text=metric_text(board.baseline_value), is_number=True),
        *(Cell(text=metric_text(popular.report.overall.get(m)), is_number=True) for m in shown),
        Cell(text="", is_number=True),
    ]
    rows.insert(min(ahead, len(rows)), baseline)
    left = finished[_BEST_TOLD:]
    more = (
        ""
        if not left
        else f" Left out: {counted(len(left), 'more combination')}, {board.objective} from "
        f"{metric_text(left[-1].value)} to {metric_text(left[0].value)}."
    )
    order = "highest" if sign > 0 else "lowest"
    barred = " of those within the constraints" if board.spec.constraints else ""
    seeds = len(board.spec.seeds)
    means = "" if seeds == 1 else f" Means over {seeds} seeds; in small type how far they spread."
    return Table(
        head=["", "Model", "Trial", f"{board.objective}#", *(f"{m}#" for m in shown), "Training#"],
        rows=rows,
        marked=frozenset(marked),
        caption=f"On the validation period, {order} {board.objective} first{barred}; the winner "
        f"is marked.{means}{more}",
        css="ranked",
    )


def _barred(board: Scoreboard, barred: list[Candidate]) -> Table:
    return Table(
        head=["Model", "Trial", f"{board.objective}#", "Why it cannot win"],
        rows=[
            [
                *_name_cells(board, c),
                _objective_cell(c),
                Cell(text="; ".join(c.standing.violations)),
            ]
            for c in barred[:_STOPPED_TOLD]
        ],
        caption=_told("trained to the end, but not within the search's constraints", barred),
        css="told",
    )


def _stopped(board: Scoreboard, stopped: list[Candidate]) -> Table:
    reason = {
        "asha": "At a rung they were behind the others (successive halving), or the budget was "
        "used up.",
        "pbt": "The population went on without them, or the budget was used up.",
        "none": "The budget was used up.",
    }[board.spec.scheduler]
    return Table(
        head=["Model", "Trial", "Epochs#", f"{board.objective} then#"],
        rows=[
            [
                *_name_cells(board, candidate),
                Cell(text=str(max(t.epochs for t in candidate.trials)), is_number=True),
                _objective_cell(candidate),
            ]
            for candidate in stopped[:_STOPPED_TOLD]
        ],
        caption=f"{_told('not trained to the end', stopped)} {reason}",
        css="ranked",
    )


def _failed(board: Scoreboard, lost: list[Candidate]) -> Table:
    """Reasons rather than trials: a hundred trials mostly fail for one reason."""
    by_reason: defaultdict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for candidate in lost:
        error = next((t.error for t in candidate.trials if t.error), "")
        by_reason[candidate.family, _reason(error, board.objective)].append(candidate)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[1][0].number))
    left = sum(len(candidates) for _, candidates in ordered[_REASONS_TOLD:])
    more = f"; {counted(left, 'more with another reason', 'more with other reasons')}" * (left > 0)
    return Table(
        head=["Model", "Trials", "Why"],
        rows=[
            [
                Cell(
                    text=family,
                    small=candidates[0].settings_text if len(candidates) == 1 else "",
                    swatch=board.colors[family],
                ),
                Cell(text=_numbers(candidates)),
                Cell(text=reason, small=_retries(candidates)),
            ]
            for (family, reason), candidates in ordered[:_REASONS_TOLD]
        ],
        caption=f"{counted(len(lost), 'combination')} without a result, by reason{more}.",
        css="told",
    )


def _retries(candidates: list[Candidate]) -> str:
    retries = sum(trial.retries for candidate in candidates for trial in candidate.trials)
    return f"after {counted(retries, 'retry', 'retries')}" if retries else ""


def _name_cells(board: Scoreboard, candidate: Candidate) -> list[Cell]:
    return [
        Cell(
            text=candidate.family,
            small=candidate.settings_text,
            swatch=board.colors[candidate.family],
        ),
        Cell(text=candidate.numbers),
    ]


def _objective_cell(candidate: Candidate) -> Cell:
    small = ""
    if len(candidate.trials) > 1 and math.isfinite(candidate.standing.spread):
        small = f"spread {candidate.standing.spread:.4f}"
    return Cell(text=metric_text(candidate.value), small=small, is_number=True, css="strong")


def _train_time(candidate: Candidate) -> str:
    return duration(sum(trial.train_s for trial in candidate.trials))


def _reason(error: str, objective: str) -> str:
    line = " ".join(error.split()) or f"{objective} was not measured"
    return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}…"


def _numbers(candidates: list[Candidate]) -> str:
    numbers = sorted(trial.number for candidate in candidates for trial in candidate.trials)
    shown = ", ".join(map(str, numbers[:_NUMBERS_TOLD]))
    left = len(numbers) - _NUMBERS_TOLD
    more = f" and {left} more" if left > 0 else ""
    return f"{'trial' if len(numbers) == 1 else 'trials'} {shown}{more}"


def _told(what: str, candidates: list[Candidate]) -> str:
    left = len(candidates) - _STOPPED_TOLD
    told = f"The best {_STOPPED_TOLD} of " if left > 0 else ""
    return f"{told}{counted(len(candidates), 'combination')} {what}."
