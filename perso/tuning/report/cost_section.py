"""The section on what the search cost: time, memory, failures, and what more time bought."""

import math
from statistics import median
from typing import Final

from perso.pages.number_text import counted, number
from perso.pages.parts import Heading, Part, Picture, Section, Text
from perso.pages.table import Cell, Table
from perso.tuning.report.drawing import value_limits
from perso.tuning.report.metric_words import duration, memory
from perso.tuning.report.pictures import draw_cost
from perso.tuning.report.scoreboard import Scoreboard
from perso.tuning.report.verdict_section import metric_text
from perso.tuning.trial import Trial

_SLOWEST_TOLD: Final = 5


def cost_section(board: Scoreboard) -> Section:
    """Per family and in all, the slowest trials, and accuracy against training time."""
    trials = board.result.trials
    parts: list[Part] = [Text(text=_in_words(board)), _by_family(board)]
    parts += _accuracy_by_cost(board)
    if len(trials) > 1:
        parts += [Heading(text="The slowest trials"), _slowest(board)]
    return Section(anchor="cost", name="Cost", title="What the search cost", parts=parts)


def cpu_seconds(trial: Trial) -> float:
    """Seconds of training and evaluation times the cores set aside."""
    return (trial.train_s + trial.evaluate_s) * trial.cpus


def _in_words(board: Scoreboard) -> str:
    trials = board.result.trials
    gpu = sum((t.train_s + t.evaluate_s) * t.gpus for t in trials)
    retries = sum(trial.retries for trial in trials)
    nodes = {trial.node for trial in trials if trial.node}
    work = sum(trial.train_s + trial.evaluate_s for trial in trials)
    words = [
        f"{duration(board.result.seconds)} of wall time for {counted(len(trials), 'trial')}: "
        f"{duration(sum(map(cpu_seconds, trials)))} of CPU time"
        + (f" and {duration(gpu)} of GPU time" if gpu else "")
        + " set aside for them"
        + (f", on {counted(len(nodes), 'machine')}." if nodes else ".")
    ]
    if len(trials) > 1 and board.result.seconds > 0:
        words.append(f"On average {number(work / board.result.seconds)} trials ran at once.")
    if retries:
        tried = sum(trial.retries > 0 for trial in trials)
        words.append(
            f"{counted(tried, 'trial was', 'trials were')} begun again, "
            f"{counted(retries, 'time')} in all, after an error or a lost worker."
        )
    else:
        words.append("No trial had to be begun again.")
    return " ".join(words)


def _by_family(board: Scoreboard) -> Table:
    head = ["Family", "Trials#", "Finished#", "Stopped#", "Failed#", "Retries#", "CPU time#"]
    head += ["GPU time#", "Median training#", "Peak memory#", f"Best {board.objective}#"]
    rows = [
        [
            Cell(text=family, swatch=board.colors[family]),
            *_figures([t for c in board.of_family(family) for t in c.trials]),
            Cell(text=_best(board, family), is_number=True),
        ]
        for family in board.families
    ]
    if len(rows) > 1:
        everything = [Cell(text="All"), *_figures(list(board.result.trials))]
        best = next((metric_text(c.value) for c in board.measured()), "–")
        rows.append([*everything, Cell(text=best, is_number=True)])
    if not any(trial.gpus for trial in board.result.trials):
        place = head.index("GPU time#")
        head = head[:place] + head[place + 1 :]
        rows = [row[:place] + row[place + 1 :] for row in rows]
    return Table(
        head=head,
        rows=rows,
        caption="CPU and GPU time: seconds of training and evaluation times what was set aside. "
        "Median training: of the trials that finished. Peak memory: of the process, which may have "
        "run other trials before.",
        css="tight",
        marked=frozenset([len(rows) - 1]) if len(rows) > 1 else frozenset(),
    )


def _figures(trials: list[Trial]) -> list[Cell]:
    statuses = [trial.status for trial in trials]
    peak = max((trial.peak_memory_mib for trial in trials), default=0.0)
    finished = [trial.train_s for trial in trials if trial.status == "finished"]
    texts = [
        f"{len(trials):,}",
        *(f"{statuses.count(status):,}" for status in ("finished", "stopped", "failed")),
        f"{sum(trial.retries for trial in trials):,}",
        duration(sum(map(cpu_seconds, trials))),
        duration(sum((t.train_s + t.evaluate_s) * t.gpus for t in trials)),
        duration(median(finished)) if finished else "–",
        memory(peak) if peak else "–",
    ]
    return [Cell(text=text, is_number=True) for text in texts]


def _best(board: Scoreboard, family: str) -> str:
    return next((metric_text(c.value) for c in board.of_family(family) if c.is_measured), "–")


def _accuracy_by_cost(board: Scoreboard) -> list[Part]:
    shown = [
        candidate
        for candidate in board.measured()
        if candidate.status != "stopped" and sum(map(cpu_seconds, candidate.trials)) > 0
    ]
    if len(shown) < 2:
        return []
    values = [candidate.value for candidate in shown]
    winner = shown.index(board.winner) if board.winner in shown else None
    svg = draw_cost(
        [sum(map(cpu_seconds, candidate.trials)) for candidate in shown],
        values,
        families_N=[candidate.family for candidate in shown],
        colors=board.colors,
        objective=board.objective,
        limits=value_limits(values, board.baseline_value),
        winner=winner,
        baseline=board.baseline_value if math.isfinite(board.baseline_value) else math.nan,
    )
    return [
        Picture(
            svg=svg,
            alt=f"Points: {board.objective} of {len(shown)} combinations against their CPU time.",
            caption="How to read it: every step to the right costs a multiple of time; points at "
            "the upper left are cheap and good. Star: the winner. Stopped trials are left out.",
        )
    ]


def _slowest(board: Scoreboard) -> Table:
    slowest = sorted(board.result.trials, key=lambda t: (-(t.train_s + t.evaluate_s), t.number))
    by_number = {t.number: c for c in board.candidates for t in c.trials}
    rows = []
    for trial in slowest[:_SLOWEST_TOLD]:
        candidate = by_number[trial.number]
        rows.append(
            [
                Cell(
                    text=candidate.family,
                    small=candidate.settings_text,
                    swatch=board.colors[candidate.family],
                ),
                Cell(text=str(trial.number)),
                Cell(text=trial.status),
                Cell(text=duration(trial.train_s), is_number=True),
                Cell(text=duration(trial.evaluate_s), is_number=True),
                Cell(
                    text=memory(trial.peak_memory_mib) if trial.peak_memory_mib else "–",
                    is_number=True,
                ),
                Cell(text=trial.node or "–"),
            ]
        )
    return Table(
        head=["Model", "Trial", "Status", "Training#", "Evaluation#", "Peak memory#", "Machine"],
        rows=rows,
        caption=f"The {len(rows)} trials that took longest.",
        css="ranked",
    )
