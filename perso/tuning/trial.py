"""One trial: train a point of the search, measure it on the validation period."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perso.data.prepared import Interactions
from perso.errors import SearchError
from perso.evaluation.report import EvaluationReport, evaluate
from perso.models.families import fit_model
from perso.models.protocol import Recommender
from perso.models.side_data import SideData
from perso.tuning.spec import SearchSpec


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one point of the grid. Plain values only, so it travels as JSON."""

    number: int
    """Place in :meth:`SearchSpec.points`, from 0."""
    settings: dict[str, Any]
    """The family and the grid's own settings."""
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
    side: SideData | None = None,
) -> Trial:
    """Train one point of the search and measure it on the validation period.

    Whatever goes wrong inside is the trial's result, not an error: one bad point must not end a
    search, nor its worker.
    """
    config, settings = spec.points()[number], spec.settings()[number]
    side = side or SideData()
    losses: list[float] = []
    started = time.perf_counter()
    try:
        model = fit_model(train, config, side, on_epoch=lambda epoch, loss: losses.append(loss))
        trained = time.perf_counter()
        report = measure(model, spec, known=train, held_out=validation, side=side)
    except Exception as error:
        return Trial(
            number=number,
            settings=settings,
            losses=tuple(losses),
            train_s=time.perf_counter() - started,
            error=f"{type(error).__name__}: {error}",
        )
    return Trial(
        number=number,
        settings=settings,
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
    side: SideData,
) -> EvaluationReport:
    """One model on one held-out period, as the spec measures."""
    return evaluate(
        model,
        train=known,
        held_out=held_out,
        ks=spec.k,
        segments=side.segments,
        catalog=side.item_features,
        min_rating=spec.min_rating,
    )


def best_trial(trials: Sequence[Trial], spec: SearchSpec) -> Trial:
    """The trial with the best objective; the earlier one on a tie.

    Raises:
        SearchError: If no trial finished with a value; the message has the first failure.
    """
    objective = spec.objective
    finished = [t for t in trials if math.isfinite(t.metrics.get(objective, math.nan))]
    if not finished:
        first = next((t.error for t in trials if t.error), f"{objective} was not measured")
        raise SearchError(f"none of {len(trials)} trials finished; the first: {first}")
    sign = -1.0 if spec.minimizes else 1.0
    return max(finished, key=lambda t: (sign * t.metrics[objective], -t.number))
