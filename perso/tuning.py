"""What a grid search tries, what one trial does, which trial wins and whether it may serve.

Plain functions of arrays: :mod:`perso.distributed.tuning` runs the trials on Ray, a loop over
:meth:`SearchSpec.points` runs the same ones here. Two rules protect the answer: the winner is
chosen on the validation period alone, and the test period is looked at once, by the winner
retrained on everything before it and by popularity fitted on the same data. To serve, the winner
has to beat the better of two kinds of popularity there, the shop's and each segment's.
"""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions, PreparedData
from perso.errors import InputError, SearchError
from perso.evaluation.report import EvaluationReport, evaluate
from perso.models.bundle import save_bundle
from perso.models.factors import FactorModel
from perso.models.popularity import PopularityModel, fit_popularity
from perso.models.protocol import Recommender
from perso.models.seen import SeenItems
from perso.models.sgd_config import SgdConfig
from perso.schema import SPLITS
from perso.spec import parse_spec, spec_to_dict

OBJECTIVES: Final = ("recall", "ndcg", "map", "mrr")
"""Metrics that can choose a winner, each at a list length: a list is what the shopper gets.

RMSE is reported where there are ratings, but popularity predicts none to be beaten.
"""

PopularityKind = Literal["global", "segment"]


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """A grid over a model family's settings and how its trials are measured."""

    name: str = "grid"
    """Name of the search in MLflow."""
    family: Literal["sgd"] = "sgd"
    """The model that is tuned."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Settings of the model that every trial shares."""
    grid: dict[str, tuple[Any, ...]] = field(
        default_factory=lambda: {
            "num_factors": (32, 64),
            "learning_rate": (0.05, 0.1),
            "l2": (0.03, 0.1, 0.3),
        }
    )
    """Settings of the model with the values to try; each combination is one trial."""
    k: tuple[int, ...] = (10, 20)
    """List lengths at which every trial is measured; they cost no further training."""
    objective: str = "ndcg@20"
    """The metric on the validation period that decides, at one of the list lengths."""
    min_rating: float = 4.0
    """Least rating of a held-out item that a list should hold; items without one all count."""
    seed: int = 0
    """Start of every trial's random numbers."""
    cpus_per_trial: float = 1.0
    """Cores of one trial; its threads are held to them."""
    gpus_per_trial: float = 0.0
    """CUDA devices of one trial, or the share of one."""
    max_concurrent: int | None = None
    """Trials at once; none: as many as the cluster has room for."""

    def __post_init__(self) -> None:
        if not self.grid:
            raise ValueError("grid is empty; give at least one setting with the values to try")
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name} is empty; give the values to try")
            if len(set(values)) < len(values):
                raise ValueError(f"grid.{name} repeats a value: {list(values)}")
        if both := sorted(self.grid.keys() & self.fixed.keys()):
            raise ValueError(f"{both} stand in both grid and fixed; keep one")
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise ValueError(f"k is {list(self.k)}; give different list lengths of 1 or more")
        allowed = [f"{metric}@{k}" for metric in OBJECTIVES for k in self.k]
        if self.objective not in allowed:
            raise ValueError(
                f"objective {self.objective!r} is not measured; choose of {', '.join(allowed)}"
            )
        if self.cpus_per_trial <= 0 or self.gpus_per_trial < 0:
            raise ValueError(
                f"a trial cannot have {self.cpus_per_trial} CPUs and {self.gpus_per_trial} GPUs; "
                "give more than 0 CPUs and 0 or more GPUs"
            )
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError(f"max_concurrent is {self.max_concurrent}; give 1 or more")
        self.points()  # a wrong setting is an error now, not in the middle of a search

    def points(self) -> list[SgdConfig]:
        """One complete model config per trial: the last grid key varies fastest.

        Raises:
            ValueError: If the model has no such setting or refuses a value.
        """
        if given := {"seed"} & (self.grid.keys() | self.fixed.keys()):
            raise ValueError(f"{given} of the model is the search's own seed; set that")
        combinations = itertools.product(*self.grid.values())
        settings = [
            self.fixed | dict(zip(self.grid, values, strict=True)) | {"seed": self.seed}
            for values in combinations
        ]
        try:
            return [parse_spec(SgdConfig, point, origin="model settings") for point in settings]
        except InputError as error:
            known = ", ".join(sorted(f.name for f in fields(SgdConfig) if f.name != "seed"))
            raise ValueError(f"{error}; settings are: {known}") from error

    def varied(self, config: SgdConfig) -> dict[str, Any]:
        """The grid's own settings of a point, for tables and logs."""
        return {name: getattr(config, name) for name in self.grid}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one point of the grid. Plain values only, so it travels as JSON."""

    number: int
    """Place in :meth:`SearchSpec.points`, from 0."""
    settings: dict[str, Any]
    """The grid's own settings."""
    metrics: dict[str, float] = field(default_factory=dict)
    """On the validation period, over all users; empty if the trial failed."""
    per_segment: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same for each segment."""
    losses: tuple[float, ...] = ()
    """Training loss after each epoch."""
    train_s: float = 0.0
    """Seconds of training."""
    evaluate_s: float = 0.0
    """Seconds of evaluation."""
    error: str | None = None
    """Why the trial failed; None if it did not."""


def run_trial(
    spec: SearchSpec,
    number: int,
    *,
    train: Interactions,
    validation: Interactions,
    segments: UserGroups | None = None,
) -> Trial:
    """Train one point of the grid and measure it on the validation period.

    Whatever goes wrong inside is the trial's result, not an error: one bad point must not end a
    search, nor its worker.
    """
    from perso.models.sgd import fit_sgd

    config = spec.points()[number]
    losses: list[float] = []
    started = time.perf_counter()
    try:
        model = fit_sgd(train, config, on_epoch=lambda epoch, loss: losses.append(loss))
        trained = time.perf_counter()
        report = measure(model, spec, known=train, held_out=validation, segments=segments)
    except Exception as error:
        return Trial(
            number=number,
            settings=spec.varied(config),
            losses=tuple(losses),
            train_s=time.perf_counter() - started,
            error=f"{type(error).__name__}: {error}",
        )
    return Trial(
        number=number,
        settings=spec.varied(config),
        metrics=dict(report.overall),
        per_segment={name: dict(metrics) for name, metrics in report.per_segment.items()},
        losses=tuple(losses),
        train_s=trained - started,
        evaluate_s=time.perf_counter() - trained,
    )


def measure(
    model: Recommender,
    spec: SearchSpec,
    *,
    known: Interactions,
    held_out: Interactions,
    segments: UserGroups | None,
) -> EvaluationReport:
    """One model on one held-out period, as the spec measures."""
    return evaluate(
        model,
        train=known,
        held_out=held_out,
        ks=spec.k,
        segments=segments,
        min_rating=spec.min_rating,
    )


def best_trial(trials: Sequence[Trial], objective: str) -> Trial:
    """The trial with the highest objective; the earlier one on a tie.

    Raises:
        SearchError: If no trial finished with a value; the message has the first failure.
    """
    finished = [t for t in trials if math.isfinite(t.metrics.get(objective, math.nan))]
    if not finished:
        first = next((t.error for t in trials if t.error), f"{objective} was not measured")
        raise SearchError(f"none of {len(trials)} trials finished; the first: {first}")
    return max(finished, key=lambda t: (t.metrics[objective], -t.number))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a model has to beat on one period: the kind of popularity that does better there."""

    kind: PopularityKind
    """Everyone gets what sells in the whole shop, or in the own segment."""
    report: EvaluationReport
    """Of that kind, over the same users as the model's."""

    @property
    def name(self) -> str:
        """For tables and sentences."""
        return f"{self.kind} popularity"


def measure_popularity(
    popularity: PopularityModel,
    spec: SearchSpec,
    *,
    known: Interactions,
    held_out: Interactions,
    segments: UserGroups | None,
) -> Baseline:
    """The better of global and segment popularity by the objective; the global one on a tie.

    Neither is always the stronger: a segment may have a taste of its own, or too few purchases to
    show it.

    Args:
        popularity: Fitted on ``known``; without segments in it there is only the global kind.
        spec: The search, with the objective.
        known: All that popularity has counted.
        held_out: The period after it.
        segments: Each user's segment as of the end of ``known``.
    """
    kinds: dict[PopularityKind, PopularityModel] = {"global": replace(popularity, slices={})}
    if "segment" in popularity.slices:
        kinds["segment"] = popularity
    measured = [
        Baseline(
            kind=kind,
            report=measure(model, spec, known=known, held_out=held_out, segments=segments),
        )
        for kind, model in kinds.items()
    ]
    return max(measured, key=lambda baseline: baseline.report.overall[spec.objective])


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a tested model may serve, and why."""

    promoted: bool
    """Whether it becomes the champion."""
    reason: str
    """One sentence with both values."""


def judge(objective: str, *, model: Mapping[str, float], baseline: Baseline) -> Verdict:
    """A model may serve if it is strictly better than popularity on the test period.

    Args:
        objective: The metric that chose it.
        model: Its metrics over all test users.
        baseline: The better kind of popularity, fitted on the same data, over the same users.
    """
    ours = model.get(objective, math.nan)
    theirs = baseline.report.overall.get(objective, math.nan)
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return Verdict(
            promoted=False,
            reason=f"{objective} could not be measured on the test period: no user of it was "
            "seen before; the champion stays",
        )
    if ours <= theirs:
        return Verdict(
            promoted=False,
            reason=f"{objective} {ours:.4f} does not beat {baseline.name}'s {theirs:.4f} on the "
            "test period; the champion stays",
        )
    gain = f" (+{ours / theirs - 1:.0%})" if theirs > 0 else ""
    return Verdict(
        promoted=True,
        reason=f"{objective} {ours:.4f} beats {baseline.name}'s {theirs:.4f}{gain} on the test "
        "period",
    )


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """The winner's settings trained on all data before the test period, beside popularity."""

    factors: FactorModel
    popularity: PopularityModel
    model_report: EvaluationReport
    """On the test period."""
    baseline: Baseline
    """The better kind of popularity on the test period."""
    losses: tuple[float, ...]
    """Training loss after each epoch."""


def train_finalist(
    spec: SearchSpec,
    number: int,
    *,
    known: Interactions,
    held_out: Interactions,
    segments: UserGroups | None = None,
) -> Finalist:
    """Retrain the winning point on train and validation, and test it and popularity once.

    The returned factors are the tested ones: what is measured is what serves.

    Args:
        spec: The search.
        number: The winning point.
        known: Train and validation, merged.
        held_out: The test period.
        segments: Each user's segment as of the end of validation.
    """
    from perso.models.sgd import fit_sgd

    losses: list[float] = []
    factors = fit_sgd(
        known, spec.points()[number], on_epoch=lambda epoch, loss: losses.append(loss)
    )
    popularity = fit_popularity(known, segments)
    return Finalist(
        factors=factors,
        popularity=popularity,
        model_report=measure(factors, spec, known=known, held_out=held_out, segments=segments),
        baseline=measure_popularity(
            popularity, spec, known=known, held_out=held_out, segments=segments
        ),
        losses=tuple(losses),
    )


def save_finalist(
    finalist: Finalist,
    folder: Path,
    *,
    data: PreparedData,
    spec: SearchSpec,
    number: int,
    now: datetime,
) -> Path:
    """The finalist as a bundle: the tested model with everything that serving it takes.

    Model and popularity are the tested ones, from before the test period; what a user already
    had is from all three periods, so that nobody is recommended what they have just bought.

    Args:
        finalist: What :func:`train_finalist` returned.
        folder: Must not exist yet.
        data: The dataset behind it.
        spec: The search.
        number: The winning point.
        now: Aware; kept in the manifest.

    Raises:
        ArtifactError: If the folder exists.
    """
    return save_bundle(
        folder,
        users=data.users,
        items=data.items,
        factors=finalist.factors,
        popularity=finalist.popularity,
        catalog=data.catalog(),
        seen=SeenItems.from_interactions(data.interactions(*SPLITS)),
        data_key=data.key,
        spec={
            "prepare": data.manifest["spec"],
            "search": spec_to_dict(spec),
            "model": spec_to_dict(spec.points()[number]),
        },
        metrics={
            "model": finalist.model_report.to_dict(),
            "popularity": {"kind": finalist.baseline.kind, **finalist.baseline.report.to_dict()},
        },
        trained_until=data.split_end("validation"),
        created_at=now,
    )
