"""The section on learning: loss per epoch, what was measured midway, where trials were stopped."""

from collections.abc import Sequence
from typing import Final

from perso.pages.number_text import counted
from perso.pages.parts import Heading, Part, Picture, Section, Text
from perso.tuning.report.pictures import draw_curves
from perso.tuning.report.scoreboard import Scoreboard
from perso.tuning.trial import Trial

_LINES_DRAWN: Final = 60


def curve_section(board: Scoreboard) -> Section:
    """Learning curves, a picture per family that has epochs."""
    parts: list[Part] = []
    without = []
    for family in board.families:
        trials = [
            trial
            for candidate in board.of_family(family)
            for trial in candidate.trials
            if _has_line(trial)
        ]
        if not trials:
            without.append(family)
            continue
        drawn = _drawn(trials)
        stopped = sorted({trial.epochs for trial in trials if trial.status == "stopped"})
        epochs = max(trial.epochs for trial in trials)
        rungs = sorted({*board.spec.rungs(family, epochs)} & {*stopped}) or stopped
        parts += [
            Heading(text=family),
            Picture(
                svg=draw_curves(
                    drawn,
                    objective=board.objective,
                    color=board.colors[family],
                    winner=board.result.winner.number,
                    baseline=board.baseline_value,
                    rungs=rungs,
                ),
                alt=f"Lines: training loss of {counted(len(drawn), 'trial')} of {family} after "
                "each epoch, and the objective where it was measured midway.",
                caption=_caption(
                    trials,
                    drawn,
                    rungs,
                    scheduler=board.spec.scheduler,
                    has_winner=family == board.winner.family,
                ),
            ),
        ]
    if without and parts:
        parts.append(Text(text=f"Without epochs to draw: {', '.join(without)}.", css="note"))
    if not parts:
        parts.append(Text(text="No trial kept losses of its epochs, so there is nothing to draw."))
    return Section(anchor="curves", name="Learning", title="How the trials learned", parts=parts)


def _drawn(trials: Sequence[Trial]) -> list[Trial]:
    """Of the trials with a line the best; where they are many some of the stopped too."""
    stopped = [trial for trial in trials if trial.status == "stopped"]
    others = [trial for trial in trials if trial.status != "stopped"]
    few_stopped = stopped[: max(_LINES_DRAWN // 3, _LINES_DRAWN - len(others))]
    return [*others[: _LINES_DRAWN - len(few_stopped)], *few_stopped]


def _has_line(trial: Trial) -> bool:
    return bool(trial.losses) or len(trial.curve) > 1


def _caption(
    with_line: Sequence[Trial],
    drawn: Sequence[Trial],
    rungs: Sequence[int],
    *,
    scheduler: str,
    has_winner: bool,
) -> str:
    words = [
        "How to read it: a line per trial" + ("; the winner in orange." if has_winner else ".")
    ]
    if stopped := sum(trial.status == "stopped" for trial in with_line):
        epochs = ", ".join(map(str, rungs[:8])) + ("…" if len(rungs) > 8 else "")
        who = {"asha": " by successive halving", "pbt": " by the population"}.get(scheduler, "")
        after = f"{'epoch' if len(rungs) == 1 else 'epochs'} {epochs}"
        words.append(f"Grey with a cross: {stopped} stopped{who} (after {after}).")
    if not any(len(trial.curve) > 1 for trial in with_line):
        words.append("The objective was measured only at the end, so it has no line.")
    if len(drawn) < len(with_line):
        words.append(f"Drawn are {len(drawn)} of {counted(len(with_line), 'trial')}, the best.")
    return " ".join(words)
