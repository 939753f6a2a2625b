"""What a finished search prints, on a log of 80 columns."""

import io
from pathlib import Path

from rich.console import Console

from perso.distributed.tuning import SearchResult
from perso.evaluation.report import EvaluationReport
from perso.registry import ModelVersion
from perso.tuning.spec import GridSpec, SearchSpec
from perso.tuning.trial import Trial, best_trial
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


GRIDS = (
    GridSpec(family="item_knn", grid={"num_neighbors": (50,)}),
    GridSpec(grid={"l2": (0.2,)}),
    GridSpec(family="blend", grid={"spectral.num_factors": (512,), "spectral_weight": (0.25,)}),
)


def printed(spec=None, trials=None):
    spec = spec or SearchSpec(grids=GRIDS)
    metrics = ({"ndcg@20": 0.1, "recall@20": 0.2}, {}, {"ndcg@20": 0.3, "recall@20": 0.4})
    errors = (None, "MemoryError: no room", None)
    trials = trials or [
        Trial(number=n, settings=settings, metrics=metrics[n], error=errors[n])
        for n, settings in enumerate(spec.settings())
    ]
    result = SearchResult(
        spec=spec,
        trials=tuple(trials),
        winner=best_trial(trials, spec),
        validation_baseline=Baseline(kind="global", report=report(0.1, 0.05)),
        test_model=report(0.5, 0.25, rmse=0.9),
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
        Trial(number=n, settings=settings, metrics={"rmse": rmse, "recall@20": 0.1})
        for n, (settings, rmse) in enumerate(zip(spec.settings(), (0.9, 1.1, 0.8), strict=True))
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
