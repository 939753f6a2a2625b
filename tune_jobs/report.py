"""A finished search as tables on a terminal: the trials, then popularity against the winner."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perso.evaluation.report import EvaluationReport
from perso.tuning.estimate import Estimate
from perso.tuning.points import Point
from perso.tuning.result import FixedSearchResult, SearchResult
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import Standing, standings
from perso.tuning.wording import in_words


def print_report(result: SearchResult, *, console: Console | None = None) -> None:
    """Print the trials, the comparison on the test period and what became of the champion."""
    console = console or Console()
    console.print(trials_table(result))
    console.print(comparison_table(result))
    for check in result.verdict.checks:
        mark = "passed" if check.passed else "[bold]failed[/bold]"
        console.print(f"{mark}: {escape(check.name)}: {escape(check.reason)}", highlight=False)
    told = f"version {result.version}: {result.verdict.reason}"
    console.print(told, highlight=False, markup=False)


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
    """Every point on the validation period, best first, failed ones last; of seeds the mean."""
    spec = result.spec
    goal = spec.goal.name
    extra = [f"recall@{max(spec.k)}", "rmse", *spec.constraints]
    shown = [
        n for n in dict.fromkeys(extra) if n != goal and any(n in t.metrics for t in result.trials)
    ]
    table = _table("trials on the validation period")
    table.add_column("family")
    table.add_column("settings")
    for name in (goal, *shown, "seconds"):
        table.add_column(name, justify="right")
    for standing in standings(result.trials, spec):
        first = standing.first
        settings = in_words(first.point.searched)
        table.add_row(
            first.settings["family"],
            escape("\n".join(filter(None, (settings, *_remarks(standing, spec))))),
            _number(standing.value),
            *(_number(_mean(standing, name)) for name in shown),
            f"{sum(t.train_s + t.evaluate_s for t in standing.trials):.1f}",
            style="bold" if first == result.winner else None,
        )
    if isinstance(result, FixedSearchResult):
        return table
    popularity = result.validation_baseline.report
    value = spec.goal.value(
        popularity.overall, popularity.per_segment, popularity.num_users_by_segment
    )
    table.add_row(
        result.validation_baseline.name,
        "",
        _number(value),
        *(_number(popularity.overall.get(name)) for name in shown),
        "",
        style="dim",
    )
    return table


def print_plan(
    spec: SearchSpec,
    points: Sequence[Point],
    estimates: Mapping[int, Estimate],
    *,
    console: Console | None = None,
) -> None:
    """Print what a search would try and what it would take; nothing runs.

    Args:
        spec: The search.
        points: Its trials; empty where the searcher waits for results.
        estimates: By number of the trial, those that could be estimated.
        console: Where to print.
    """
    console = console or Console()
    count = len(points) or spec.num_trials  # a space may hold fewer points than the budget
    table = _table(f"{spec.name}: {count} trials by searcher {spec.searcher}")
    table.add_column("trial", justify="right")
    table.add_column("family")
    table.add_column("settings")
    table.add_column("CPU s, about", justify="right")
    for point in points:
        found = estimates.get(point.number)
        searched = in_words(point.searched)
        table.add_row(
            str(point.number),
            spec.grids[point.grid].family,
            escape(searched + (f" seed={point.seed}" if len(spec.seeds) > 1 else "")),
            "" if found is None else f"{found.cpu_s:.1f}",
        )
    console.print(table)
    if estimates:
        total = sum(found.cpu_s for found in estimates.values())
        told = f"{total:.0f} CPU s of training in all, about; measuring comes on top"
        console.print(told, highlight=False)


def _remarks(standing: Standing, spec: SearchSpec) -> list[str]:
    """What a reader has to know of a point beside its figures."""
    remarks = [f"failed: {t.error}" for t in standing.trials if t.error is not None]
    remarks += [f"stopped at epoch {t.epochs}" for t in standing.trials if t.status == "stopped"]
    remarks += [f"not allowed: {violation}" for violation in standing.violations]
    if len(spec.seeds) > 1:
        remarks.append(f"{len(standing.trials)} seeds, spread {_number(standing.spread)}")
    return remarks


def _mean(standing: Standing, metric: str) -> float:
    values = [trial.metrics.get(metric, math.nan) for trial in standing.trials]
    return math.fsum(values) / len(values)


def comparison_table(result: SearchResult) -> Table:
    """Popularity and the tuned model on the test period, over all users and per segment."""
    k = max(result.spec.k)
    metrics = list(dict.fromkeys([f"recall@{k}", f"ndcg@{k}", result.spec.gate_metric]))
    table = _table(f"{result.test_baseline.name} vs tuned model on the test period")
    table.add_column("segment", no_wrap=True)
    table.add_column("users", justify="right", no_wrap=True)
    for metric in metrics:
        for column in (f"{metric}\npopular", "\ntuned", "\nchange"):
            table.add_column(column, justify="right", no_wrap=True)
    popularity, model = result.test_baseline.report, result.tested
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
