"""What a finished search prints, on a log of 80 columns."""

import io
from pathlib import Path

from rich.console import Console

from perso.distributed.tuning import SearchResult
from perso.evaluation.report import EvaluationReport
from perso.registry import ModelVersion
from perso.tuning import Baseline, SearchSpec, Trial
from tune_jobs.report import print_report


def report(recall, ndcg):
    return EvaluationReport(
        overall={"recall@20": recall, "ndcg@20": ndcg},
        per_segment={"potential_loyalists": {"recall@20": recall / 2, "ndcg@20": float("nan")}},
        num_users=9,
        num_users_by_segment={"potential_loyalists": 4},
        num_ratings=0,
    )


def printed():
    trials = (
        Trial(number=0, settings={"l2": 0.1}, metrics={"ndcg@20": 0.1, "recall@20": 0.2}),
        Trial(number=1, settings={"l2": 0.2}, error="MemoryError: no room"),
        Trial(number=2, settings={"l2": 0.3}, metrics={"ndcg@20": 0.3, "recall@20": 0.4}),
    )
    result = SearchResult(
        spec=SearchSpec(grid={"l2": (0.1, 0.2, 0.3)}),
        trials=trials,
        winner=trials[2],
        validation_baseline=Baseline(kind="global", report=report(0.1, 0.05)),
        test_model=report(0.5, 0.25),
        test_baseline=Baseline(kind="segment", report=report(0.25, 0.2)),
        promoted=True,
        reason="it is better",
        version=ModelVersion(
            version="7", folder=Path("x"), run_id="r", aliases=(), metrics={}, tags={}
        ),
        seconds=1.0,
    )
    console = Console(file=io.StringIO(), width=80)
    print_report(result, console=console)
    return console.file.getvalue()


def row(text, start):
    (line,) = (line for line in text.splitlines() if line.strip().startswith(start))
    return line.split()


def test_trials_come_best_first_and_failed_ones_last_with_their_error():
    text = printed()
    assert text.index(" 0.3 ") < text.index(" 0.1 ") < text.index("MemoryError: no room")


def test_each_table_names_the_popularity_that_it_compares_with():
    trials, comparison = printed().split("segment popularity vs tuned model on the test period")
    assert "0.0500" in next(line for line in trials.splitlines() if "global popularity" in line)
    assert "global" not in comparison


def test_the_comparison_shows_both_models_and_the_change_overall_and_per_segment():
    text = printed()
    overall = ["9", "0.2500", "0.5000", "+100%", "0.2000", "0.2500", "+25%"]
    assert row(text, "all") == ["all", *overall]
    assert row(text, "potential_loyalists")[:5] == [
        "potential_loyalists",
        "4",
        "0.1250",
        "0.2500",
        "+100%",
    ]
    assert "nan" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "version 7: it is better" in text
