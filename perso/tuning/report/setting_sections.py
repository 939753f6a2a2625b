"""The sections on the searched settings: which go together, and what each of them does."""

import math
from collections.abc import Sequence
from typing import Final

from perso.pages.number_text import counted
from perso.pages.parts import Bullets, Heading, Part, Picture, Section, Text
from perso.tuning.report.drawing import value_limits
from perso.tuning.report.scoreboard import Candidate, Scoreboard, setting_text
from perso.tuning.report.setting_axis import SettingAxis, varied_axes
from perso.tuning.report.setting_pictures import draw_each_setting, draw_parallel

_AXES_DRAWN: Final = 8
_EDGE: Final = 0.05
_EACH_CAPTION: Final = (
    " How to read it: a point per combination; the other settings differ from point to point. "
    "Where there were few values to choose from, a line joins the best of each. Hollow: stopped "
    "early. Star: the winner."
)


def together_section(board: Scoreboard) -> Section:
    """Parallel coordinates, one picture per family."""
    parts: list[Part] = []
    for family in board.families:
        candidates = board.of_family(family)
        axes = varied_axes(candidates, board.spec)
        if len(axes) < 2 or not _can_be_drawn(candidates, axes):
            continue
        failed = sum(not candidate.is_measured for candidate in candidates)
        stopped = sum(candidate.status == "stopped" for candidate in candidates)
        parts += [
            Heading(text=family),
            Picture(
                svg=draw_parallel(
                    candidates,
                    axes[:_AXES_DRAWN],
                    objective=board.objective,
                    limits=value_limits([c.value for c in candidates], room=0),
                    sign=board.spec.goal.sign,
                    winner=board.winner,
                ),
                alt=f"Lines through the settings of {counted(len(candidates), 'combination')} of "
                f"{family} to their {board.objective}; the leaderboard has the numbers.",
                caption=_parallel_caption(board, family, stopped, failed)
                + _left_out(axes[_AXES_DRAWN:]),
            ),
        ]
    intro = (
        "Each line is one combination of settings; follow the dark ones to see what the good ones "
        "have in common."
        if parts
        else "In no family were two settings searched at once, so there is nothing to draw."
    )
    return Section(
        anchor="settings",
        name="Settings together",
        title="Which settings go together",
        parts=[Text(text=intro), *parts],
    )


def each_section(board: Scoreboard) -> Section:
    """The objective against each setting, and where a wider search may find more."""
    parts: list[Part] = []
    edges = winner_at_edges(board)
    if edges:
        parts += [Text(text="Where a wider search may find more:"), Bullets(sentences=edges)]
    for family in board.families:
        candidates = board.of_family(family)
        axes = varied_axes(candidates, board.spec)
        if not _can_be_drawn(candidates, axes):
            continue
        parts += [
            Heading(text=family),
            Picture(
                svg=draw_each_setting(
                    candidates,
                    axes,
                    objective=board.objective,
                    limits=value_limits([c.value for c in candidates], board.baseline_value),
                    sign=board.spec.goal.sign,
                    color=board.colors[family],
                    winner=board.winner,
                    baseline=board.baseline_value,
                ),
                alt=f"Points: {board.objective} of {family} against each of "
                f"{', '.join(axis.name for axis in axes)}.",
                caption=f"{board.objective} of {family} against each of its settings."
                + (_EACH_CAPTION if not parts or isinstance(parts[-1], Bullets) else ""),
            ),
        ]
    return Section(
        anchor="each",
        name="Each setting",
        title="What each setting does",
        parts=[*parts, *_not_searched(board)],
    )


def winner_at_edges(board: Scoreboard) -> list[str]:
    """Sentences on settings of the winner that lie at an end of what was tried."""
    winner = board.winner
    told = []
    for axis in varied_axes(board.of_family(winner.family), board.spec):
        if not axis.is_number or axis.name not in winner.searched:
            continue
        value = winner.searched[axis.name]
        place = axis.place(value)
        if value == 0 or _EDGE < place < 1 - _EDGE:
            continue
        end, further = ("upper", "higher") if place > 0.5 else ("lower", "lower")
        told.append(
            f"The winner's {axis.name}, {setting_text(value)}, lies at the {end} end of what was "
            f"tried: {further} values may be better still."
        )
    return told


def _can_be_drawn(candidates: Sequence[Candidate], axes: Sequence[SettingAxis]) -> bool:
    return bool(axes) and any(candidate.is_measured for candidate in candidates)


def _parallel_caption(board: Scoreboard, family: str, stopped: int, failed: int) -> str:
    best = "higher" if board.spec.goal.sign > 0 else "lower"
    words = [f"darker lines have a {best} {board.objective}, which is better."]
    if board.winner.family == family:
        words.append("Orange: the winner.")
    if stopped:
        words.append(f"Dashed: {stopped} stopped early, with what they had reached.")
    if failed:
        words.append(f"Red dots: {failed} without a result.")
    return "How to read it: " + " ".join(words)


def _left_out(axes: Sequence[SettingAxis]) -> str:
    if not axes:
        return ""
    return f" Not drawn for want of room: {', '.join(axis.name for axis in axes)}."


def _not_searched(board: Scoreboard) -> list[Part]:
    """Families of which there is nothing to draw, and why."""
    told = []
    for family in board.families:
        candidates = board.of_family(family)
        if not varied_axes(candidates, board.spec):
            told.append(
                f"{family}: only one combination was tried, so there is nothing to compare."
            )
        elif not any(math.isfinite(candidate.value) for candidate in candidates):
            told.append(
                f"{family}: none of {counted(len(candidates), 'combination')} was measured."
            )
    return [Bullets(sentences=told)] if told else []
