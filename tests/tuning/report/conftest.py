"""Finished searches that never ran: five families, stopped and failed trials, eight segments."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from perso.evaluation.report import EvaluationReport
from perso.tuning.gate import Check, GateSpec, Verdict
from perso.tuning.grid import GridSpec
from perso.tuning.result import SearchResult
from perso.tuning.scheduling import AshaSpec
from perso.tuning.space import Distribution
from perso.tuning.spec import BudgetSpec, SearchSpec
from perso.tuning.trial import Trial
from perso.tuning.verdict import Baseline, Incumbent

SEGMENTS = {
    "champions": 812,
    "loyal": 1430,
    "potential_loyalists": 655,
    "new": 940,
    "need_attention": 388,
    "at_risk": 512,
    "cant_lose_them": 41,
    "hibernating": 1207,
    "(newcomers)": 1533,
    "(new items)": 274,
}
FAMILIES: dict[str, tuple[float, dict[str, Distribution], int]] = {
    "hybrid": (
        0.131,
        {
            "num_factors": Distribution(choice=(16, 32, 64, 128)),
            "learning_rate": Distribution(loguniform=(0.01, 0.3)),
            "l2": Distribution(choice=(0.0, 0.01, 0.1, 1.0)),
            "feature_dropout": Distribution(uniform=(0.0, 0.5)),
        },
        20,
    ),
    "sgd": (
        0.122,
        {
            "num_factors": Distribution(choice=(16, 32, 64, 128)),
            "learning_rate": Distribution(loguniform=(0.01, 0.3)),
            "loss": Distribution(choice=("bpr", "softmax", "logistic")),
        },
        20,
    ),
    "als": (
        0.126,
        {
            "num_factors": Distribution(choice=(16, 32, 64, 128)),
            "l2": Distribution(loguniform=(0.003, 3.0)),
            "confidence": Distribution(uniform=(1.0, 40.0)),
        },
        12,
    ),
    "item_knn": (
        0.117,
        {
            "num_neighbors": Distribution(quantized=(20, 400, 20)),
            "similarity": Distribution(choice=("cosine", "pearson")),
        },
        0,
    ),
    "spectral": (0.112, {"num_factors": Distribution(quantized=(16, 256, 16))}, 0),
}
ERRORS = (
    "ValueError: the loss is infinite after epoch 3; lower learning_rate",
    "WorkerCrashedError: the worker died: it was killed because node 10.0.0.7 ran low on memory "
    "(95 % of 7.6 GiB)",
)


def _metrics(rng: np.random.Generator, ndcg: float) -> dict[str, float]:
    metrics = {}
    for k, share in ((10, 0.86), (20, 1.0)):
        metrics |= {
            f"ndcg@{k}": ndcg * share,
            f"recall@{k}": ndcg * share * 1.55 + rng.normal(0, 0.002),
            f"hit_rate@{k}": ndcg * share * 2.7 + rng.normal(0, 0.004),
            f"coverage@{k}": float(np.clip(0.62 - 2.2 * ndcg + rng.normal(0, 0.06), 0.05, 0.95)),
            f"intra_list_diversity@{k}": float(np.clip(0.7 - ndcg + rng.normal(0, 0.04), 0, 1)),
            f"novelty@{k}": 9.5 - 12 * ndcg + rng.normal(0, 0.2),
            f"gini@{k}": float(np.clip(0.6 + ndcg + rng.normal(0, 0.03), 0, 1)),
        }
    return {name: float(value) for name, value in metrics.items()}


def make_report(
    ndcg: float, *, seed: int = 0, segments: dict[str, int] | None = None
) -> EvaluationReport:
    """Of lists as good as that."""
    rng = np.random.default_rng(seed)
    sizes = SEGMENTS if segments is None else segments
    per_segment = {
        name: _metrics(
            rng,
            ndcg
            * (0.4 if "(" in name else 0.75 + 0.5 * (place * 37 % 11) / 11)
            * (1 + float(rng.normal(0, 0.9)) / size**0.5),
        )
        for place, (name, size) in enumerate(sizes.items())
    }
    return EvaluationReport(
        overall=_metrics(rng, ndcg),
        per_segment=per_segment,
        num_users=sum(size for name, size in sizes.items() if "(" not in name),
        num_users_by_segment=sizes,
        num_ratings=0,
    )


def make_spec(families: dict[str, Any], num_trials: int, **changes: Any) -> SearchSpec:
    """A search by chance over some families, ended early by successive halving."""
    settings: dict[str, Any] = {
        "name": "spring-ranking",
        "searcher": "random",
        "scheduler": "asha",
        "asha": AshaSpec(first_epoch=2, reduction=3),
        "budget": BudgetSpec(trials=num_trials),
        "grids": tuple(
            GridSpec(family=family, sample=space)  # type: ignore[arg-type]
            for family, (_, space, _) in families.items()
        ),
        "gate": GateSpec(min_gain=0.01, floors={"coverage@20": 0.15}),
    }
    return SearchSpec(**settings | changes)


def _quality(family: str, settings: dict[str, Any], rng: np.random.Generator) -> float:
    top = FAMILIES[family][0]
    loss = 0.0
    if "num_factors" in settings:
        loss += (
            0.003 * (7 - np.log2(settings["num_factors"])) ** 1.2
            if (settings["num_factors"] <= 128)
            else 0.002
        )
    if "learning_rate" in settings:
        loss += 0.012 * np.log10(settings["learning_rate"] / 0.08) ** 2
    if "feature_dropout" in settings:
        loss += 0.05 * (settings["feature_dropout"] - 0.2) ** 2
    if "l2" in settings:
        loss += 0.003 * (np.log10(max(settings["l2"], 1e-3)) + 1) ** 2
    if "num_neighbors" in settings:
        loss += 0.004 * abs(np.log2(settings["num_neighbors"] / 100))
    if settings.get("loss") == "bpr":
        loss += 0.008
    return float(max(top - loss + rng.normal(0, 0.0015), 0.02))


def _trial(
    number: int, grid: int, family: str, rng: np.random.Generator, spec: SearchSpec
) -> Trial:
    settings = {"family": family, **spec.grids[grid].draw(rng)}
    quality = _quality(family, settings, rng)
    epochs = FAMILIES[family][2]
    trial = Trial(
        number=number,
        grid=grid,
        settings=settings,
        seed=0,
        cpus=1.0,
        node=f"10.0.0.{5 + number % 3}",
        peak_memory_mib=float(rng.uniform(700, 2600)),
        train_s=float(rng.lognormal(3.4 if epochs else 1.2, 0.5)),
        evaluate_s=float(rng.uniform(2, 5)),
        retries=int(number % 13 == 7),
    )
    if number % 11 == 5:
        return replace(trial, status="failed", error=ERRORS[number % 2], evaluate_s=0.0)
    rungs = spec.rungs(family, epochs)
    ends = epochs
    if rungs and quality < FAMILIES[family][0] - 0.007:
        ends = rungs[int(quality > FAMILIES[family][0] - 0.012)]

    def reached(epoch: int) -> float:
        return quality * (1 - 0.55 * float(np.exp(-epoch / 4.0)))

    value = reached(ends) if epochs else quality
    curve = tuple((epoch, reached(epoch)) for epoch in [*[r for r in rungs if r < ends], ends])
    report = make_report(value, seed=number)
    return replace(
        trial,
        status="stopped" if ends < epochs else "finished",
        metrics=report.overall | {"ndcg@20": value},
        per_segment={name: dict(values) for name, values in report.per_segment.items()},
        num_users_by_segment=dict(report.num_users_by_segment),
        losses=tuple(
            float(0.69 * np.exp(-epoch / 6) + 0.12 + rng.normal(0, 0.006) + 1.4 * (0.14 - quality))
            for epoch in range(1, ends + 1)
        ),
        curve=curve if epochs else ((1, value),),
        epochs=ends,
    )


def make_search(
    num_trials: int = 40,
    *,
    families: tuple[str, ...] = tuple(FAMILIES),
    promoted: bool = True,
    has_champion: bool = True,
    **changes: Any,
) -> SearchResult:
    """A finished search.

    Args:
        num_trials: Over all families in turn.
        families: Those tried.
        promoted: What the gate says.
        has_champion: Whether somebody served before.
        changes: Of the result.
    """
    rng = np.random.default_rng(3)
    spec = make_spec({family: FAMILIES[family] for family in families}, num_trials)
    trials = tuple(
        _trial(number, number % len(families), families[number % len(families)], rng, spec)
        for number in range(num_trials)
    )
    winner = max(
        (trial for trial in trials if trial.status == "finished"),
        key=lambda trial: trial.metrics["ndcg@20"],
    )
    tested, popular = make_report(0.1268, seed=101), make_report(0.0883, seed=102)
    champion = Incumbent(
        version="11",
        report=make_report(0.1187, seed=103),
        trained_until=datetime(2026, 2, 1, tzinfo=UTC),
    )
    checks = [
        Check(
            name="beats popularity",
            passed=True,
            reason="ndcg@20 0.1268 against popularity's 0.0883 (+43.6%): the difference, +0.0351 "
            "to +0.0419 with 95% confidence over 5985 test users, is above the asked +0.0009 "
            "(+1.0%)",
        ),
        Check(
            name="beats version 11",
            passed=promoted,
            reason="ndcg@20 0.1268 against version 11's 0.1187 (+6.8%): the difference, "
            f"{'+0.0043' if promoted else '-0.0004'} to +0.0166 with 95% confidence over 5985 test "
            "users, is "
            f"{'' if promoted else 'not clearly '}above the asked +0.0012 (+1.0%)",
        ),
        Check(
            name="no segment loses",
            passed=True,
            reason="the worst of 7 is at_risk -3.1% (ndcg@20 0.1120 against 0.1156, 512 test "
            "users): at most 10.0% may be lost against version 11",
        ),
        Check(
            name="floor of coverage@20",
            passed=True,
            reason="coverage@20 is 0.3121, asked is at least 0.15",
        ),
        Check(
            name="artifact answers",
            passed=True,
            reason="its files match their checksums, and 20 lists of 20 hold allowed items",
        ),
    ]
    reason = (
        "promoted, as all 5 checks hold"
        if promoted
        else "not promoted, version 11 stays: the check 'beats version 11' fails"
    )
    if not has_champion:
        checks.pop(1)
    result = SearchResult(
        spec=spec,
        trials=trials,
        winner=winner,
        validation_baseline=Baseline(kind="global", report=make_report(0.0912, seed=104)),
        tested=tested,
        test_baseline=Baseline(kind="segment", report=popular),
        champion=champion if has_champion else None,
        verdict=Verdict(promoted=promoted, reason=reason, checks=tuple(checks)),
        version="12",
        lineage={
            "data_key": "5f3b8f3f70c1a2de",
            "data_hash": "9c1185a5c5e9fc54612808977ee8f548b2258d31",
            "git_commit": "2b0b383d1f0c4d4b9a0e6f4a3c9e5d7b8a6c4e2f",
        },
        periods={
            "train": "1 September 2025 to 31 January 2026",
            "validation": "1 to 14 February 2026",
            "test": "15 to 28 February 2026",
        },
        started_at=datetime(2026, 3, 2, 8, 30, tzinfo=UTC),
        seconds=412.0,
    )
    return replace(result, **changes)


@pytest.fixture(scope="session")
def search() -> Callable[..., SearchResult]:
    """Makes finished searches."""
    return make_search
