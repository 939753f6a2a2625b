"""A finished search as tables on a terminal: the trials, then popularity against the winner."""

import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from perso.distributed.tuning import SearchResult
from perso.evaluation.report import EvaluationReport
from perso.tuning import Trial


def print_report(result: SearchResult, *, console: Console | None = None) -> None:
    """Print the trials, the comparison on the test period and what became of the champion."""
    console = console or Console()
    console.print(trials_table(result))
    console.print(comparison_table(result))
    console.print(f"version {result.version.version}: {result.reason}", highlight=False)


def trials_table(result: SearchResult) -> Table:
    """Every trial on the validation period, best first, failed ones last."""
    objective = result.spec.objective
    names = [objective, f"recall@{max(result.spec.k)}", "rmse"]
    shown = [n for n in dict.fromkeys(names) if any(n in t.metrics for t in result.trials)]
    table = _table("trials on the validation period")
    for name in (*result.spec.grid, *shown, "seconds"):
        table.add_column(name, justify="right")

    def worst_last(trial: Trial) -> tuple[bool, float]:
        return trial.error is not None, -trial.metrics.get(objective, 0.0)

    for trial in sorted(result.trials, key=worst_last):
        values = [_number(trial.metrics.get(name)) for name in shown]
        if trial.error is not None:
            values = [f"failed: {trial.error}", *([""] * (len(shown) - 1))]
        table.add_row(
            *(str(setting) for setting in trial.settings.values()),
            *values,
            f"{trial.train_s + trial.evaluate_s:.1f}",
            style="bold" if trial == result.winner else None,
        )
    popularity = result.validation_baseline.report.overall
    table.add_row(
        result.validation_baseline.name,
        *([""] * (len(result.spec.grid) - 1)),
        *(_number(popularity.get(name)) for name in shown),
        "",
        style="dim",
    )
    return table


def comparison_table(result: SearchResult) -> Table:
    """Popularity and the tuned model on the test period, over all users and per segment."""
    k = max(result.spec.k)
    metrics = list(dict.fromkeys([f"recall@{k}", f"ndcg@{k}", result.spec.objective]))
    table = _table(f"{result.test_baseline.name} vs tuned model on the test period")
    table.add_column("segment", no_wrap=True)
    table.add_column("users", justify="right", no_wrap=True)
    for metric in metrics:
        for column in (f"{metric}\npopular", "\ntuned", "\nchange"):
            table.add_column(column, justify="right", no_wrap=True)
    popularity, model = result.test_baseline.report, result.test_model
    table.add_row("all", str(model.num_users), *_cells(metrics, popularity, model), style="bold")
    for segment in model.per_segment:
        table.add_row(
            segment,
            str(model.num_users_by_segment.get(segment, 0)),
            *_cells(metrics, popularity, model, segment),
        )
    return table


def _table(title: str) -> Table:
    """Narrow enough for 80 columns, the width of a job's log."""
    padding = (0, 1, 0, 0)
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=padding
    )


def _cells(
    metrics: list[str],
    popularity: EvaluationReport,
    model: EvaluationReport,
    segment: str | None = None,
) -> list[str]:
    before, after = (
        report.overall if segment is None else report.per_segment.get(segment, {})
        for report in (popularity, model)
    )
    cells: list[str] = []
    for metric in metrics:
        ours, theirs = after.get(metric), before.get(metric)
        gain = ours / theirs - 1 if ours is not None and theirs else math.nan
        cells += [_number(theirs), _number(ours), "" if math.isnan(gain) else f"{gain:+.0%}"]
    return cells


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"
