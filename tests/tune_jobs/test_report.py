"""What a finished search prints, on a log of 80 columns."""

import io
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console

from perso.evaluation.report import EvaluationReport
from perso.tuning.gate import Check, Verdict
from perso.tuning.grid import GridSpec
from perso.tuning.objective import Bound, Term
from perso.tuning.points import planned_points
from perso.tuning.result import SearchResult
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import best_trial
from perso.tuning.trial import Trial
from perso.tuning.verdict import Baseline
from tune_jobs.report import print_report


def report(recall, ndcg, **others):
    return EvaluationReport(
        overall={"recall@20": recall, "ndcg@20": ndcg, **others},
        per_segment={"potential_loyalists": {"recall@20": recall / 2, "ndcg@20": float("nan")}},
        num_users=9,
        num_users_by_segment={"potential_loyalists": 4},
        num_ratings=0,
    )


CHECKS = (
    Check(name="beats popularity", passed=True, reason="by [a lot]"),
    Check(name="floor of coverage@20", passed=False, reason="coverage@20 is 0.1000"),
)
GRIDS = (
    GridSpec(family="item_knn", grid={"num_neighbors": (50,)}),
    GridSpec(grid={"l2": (0.2,)}),
    GridSpec(family="blend", grid={"spectral.num_factors": (512,), "spectral_weight": (0.25,)}),
)


def ended(spec, number, metrics, **changes):
    """One trial of a search that is planned."""
    begun = Trial.begin(planned_points(spec)[number], spec)
    return replace(begun, **{"metrics": metrics, "status": "finished"} | changes)


def printed(spec=None, trials=None):
    spec = spec or SearchSpec(grids=GRIDS)
    metrics = ({"ndcg@20": 0.1, "recall@20": 0.2}, {}, {"ndcg@20": 0.3, "recall@20": 0.4})
    errors = (None, "MemoryError: no room", None)
    trials = trials or [
        ended(spec, n, metrics[n], error=errors[n], status="failed" if errors[n] else "finished")
        for n in range(3)
    ]
    result = SearchResult(
        spec=spec,
        trials=tuple(trials),
        winner=best_trial(trials, spec),
        validation_baseline=Baseline(kind="global", report=report(0.1, 0.05)),
        tested=report(0.5, 0.25, rmse=0.9),
        test_baseline=Baseline(kind="segment", report=report(0.25, 0.2)),
        champion=None,
        verdict=Verdict(promoted=True, reason="it is better", checks=CHECKS),
        version="7",
        lineage={"data_key": "d"},
        periods={},
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
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
    assert text.index("blend") < text.index("item_knn") < text.index("sgd") < text.index("no room")


def test_every_trial_shows_its_family_and_settings_in_full():
    text = printed()
    assert row(text, "item_knn")[:2] == ["item_knn", "num_neighbors=50"]
    assert row(text, "item_knn")[2:4] == ["0.1000", "0.2000"]
    for setting in ("spectral.num_factors=512", "spectral_weight=0.25"):
        assert setting in text


def test_of_errors_the_least_comes_first_and_lists_are_compared_on_the_test_period():
    grid = GridSpec(fixed={"loss": "squared"}, grid={"l2": (0.1, 0.3, 0.2)})
    spec = SearchSpec(grids=(grid,), objective="rmse")
    trials = [
        ended(spec, n, {"rmse": rmse, "recall@20": 0.1}) for n, rmse in enumerate((0.9, 1.1, 0.8))
    ]
    trials_part, comparison = printed(spec, trials).split("segment popularity vs tuned model")
    shown = [line.split()[1:3] for line in trials_part.splitlines() if "sgd" in line]
    assert shown == [["l2=0.2", "0.8000"], ["l2=0.1", "0.9000"], ["l2=0.3", "1.1000"]]
    assert "ndcg@20" in comparison
    assert "rmse" not in comparison  # popularity has none


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


def test_every_check_of_the_gate_is_printed_with_its_reason():
    text = printed()
    assert "passed: beats popularity: by [a lot]" in text
    assert "failed: floor of coverage@20: coverage@20 is 0.1000" in text


def test_a_point_is_one_row_with_the_mean_of_its_seeds_and_how_far_they_are_apart():
    spec = SearchSpec(grids=GRIDS[:1], seeds=(0, 1))
    trials = [ended(spec, n, {"ndcg@20": v}, train_s=1.5) for n, v in enumerate((0.2, 0.5))]
    text = printed(spec, trials)
    assert row(text, "item_knn") == ["item_knn", "num_neighbors=50", "0.3500", "3.0"]
    assert "2 seeds, spread 0.3000" in text


def test_a_row_says_that_a_trial_was_stopped_or_is_not_allowed():
    spec = SearchSpec(grids=GRIDS, constraints={"coverage@20": Bound(at_least=0.2)})
    trials = [
        ended(spec, 0, {"ndcg@20": 0.2, "coverage@20": 0.3}),
        ended(spec, 1, {"ndcg@20": 0.3, "coverage@20": 0.3}, status="stopped", epochs=3),
        ended(spec, 2, {"ndcg@20": 0.9, "coverage@20": 0.1}),
    ]
    text = printed(spec, trials)
    assert text.index("item_knn") < text.index("stopped at epoch 3") < text.index("blend")
    told = " ".join(text[text.index("blend") :].replace("0.9000", "").split())
    assert "not allowed:" in told
    assert "coverage@20" in text.splitlines()[2]
    assert max(map(len, text.splitlines())) <= 80


def test_the_objective_names_its_column_and_is_worked_out_for_popularity_too():
    spec = SearchSpec(
        grids=GRIDS[:1],
        min_segment_users=1,
        objective=(Term(metric="ndcg@20", weight=0.5), Term(metric="recall@20", weight=0.5)),
    )
    text = printed(spec, [ended(spec, 0, {"ndcg@20": 0.2, "recall@20": 0.4})])
    assert "0.3000" in row(text, "item_knn")
    assert "0.0750" in row(text, "global popularity")
