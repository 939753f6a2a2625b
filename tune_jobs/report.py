"""A finished search as tables on a terminal: the trials, then popularity against the winner."""

import math
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from perso.distributed.fixed_search import FixedSearchResult
from perso.distributed.tuning import SearchResult
from perso.evaluation.report import EvaluationReport
from perso.tuning.trial import Trial


def print_report(result: SearchResult, *, console: Console | None = None) -> None:
    """Print the trials, the comparison on the test period and what became of the champion."""
    console = console or Console()
    console.print(trials_table(result))
    console.print(comparison_table(result))
    console.print(f"version {result.version.version}: {result.reason}", highlight=False)


def print_fixed_report(result: FixedSearchResult, *, console: Console | None = None) -> None:
    """Print the trials and the winner's test beside popularity's."""
    console = console or Console()
    console.print(trials_table(result))
    popularity, model = result.finalist.baseline.report, result.finalist.model_report
    table = _table("winner on the test rows")
    for column in ("metric", "popularity", "winner"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, value in model.overall.items():
        table.add_row(name, _number(popularity.overall.get(name)), _number(value))
    console.print(table)


def print_evaluation(result: dict[str, Any], *, console: Console | None = None) -> None:
    """Print one model's metrics and what they cost."""
    console = console or Console()
    table = _table(f"{result['spec']['model']['family']} on {Path(result['file']['path']).name}")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result["metrics"]["overall"].items():
        table.add_row(name, _number(value))
    console.print(table)
    cost = result["cost"]
    console.print(
        f"{result['metrics']['num_users']} users; trained in {cost['train_cpu_s']:.1f} CPU s "
        f"({cost['train_wall_s']:.1f} s), {cost['users_per_s']:.0f} users/s measured, "
        f"peak {cost['peak_memory_mib']:.0f} MiB",
        highlight=False,
    )


def trials_table(result: SearchResult | FixedSearchResult) -> Table:
    """Every trial on the validation period, best first, failed ones last."""
    objective = result.spec.objective
    names = [objective, f"recall@{max(result.spec.k)}", "rmse"]
    shown = [n for n in dict.fromkeys(names) if any(n in t.metrics for t in result.trials)]
    table = _table("trials on the validation period")
    table.add_column("family")
    table.add_column("settings")
    for name in (*shown, "seconds"):
        table.add_column(name, justify="right")
    sign = 1 if result.spec.minimizes else -1

    def worst_last(trial: Trial) -> tuple[bool, float]:
        return trial.error is not None, sign * trial.metrics.get(objective, 0.0)

    for trial in sorted(result.trials, key=worst_last):
        settings = " ".join(f"{n}={v}" for n, v in trial.settings.items() if n != "family")
        failure = "" if trial.error is None else f"failed: {trial.error}"
        table.add_row(
            trial.settings["family"],
            "\n".join(filter(None, (settings, failure))),
            *(_number(trial.metrics.get(name)) for name in shown),
            f"{trial.train_s + trial.evaluate_s:.1f}",
            style="bold" if trial == result.winner else None,
        )
    if isinstance(result, FixedSearchResult):
        return table
    popularity = result.validation_baseline.report.overall
    table.add_row(
        result.validation_baseline.name,
        "",
        *(_number(popularity.get(name)) for name in shown),
        "",
        style="dim",
    )
    return table


def comparison_table(result: SearchResult) -> Table:
    """Popularity and the tuned model on the test period, over all users and per segment."""
    k = max(result.spec.k)
    metrics = list(dict.fromkeys([f"recall@{k}", f"ndcg@{k}", result.spec.gate]))
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
