"""One trial: train a point of the search, measure it on the validation period.

Training may be measured midway, for a scheduler, and continued from a snapshot, after a worker was
lost. Whoever runs the trial decides what to do at an epoch; this file decides what is measured.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

from perso.data.prepared import Interactions
from perso.evaluation.report import EvaluationReport, evaluate
from perso.models.families import OneOfTheConfigs, fit_model
from perso.models.progress import Progress, TrainingState
from perso.models.protocol import Recommender
from perso.models.side_data import SideData
from perso.tuning.points import Point
from perso.tuning.spec import SearchSpec

TrialStatus = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one point. Plain values only, so it travels as JSON."""

    number: int
    """Of the point, from 0."""
    grid: int
    """Which of the spec's grids it belongs to."""
    settings: dict[str, Any]
    """The family and the searched settings."""
    seed: int
    """Start of its random numbers."""
    status: TrialStatus = "running"
    """``stopped`` by a scheduler or the budget: measured, but not trained to the end."""
    metrics: dict[str, float] = field(default_factory=dict)
    """On the validation period, over all users; empty if nothing was measured."""
    per_segment: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same for each segment."""
    num_users_by_segment: dict[str, int] = field(default_factory=dict)
    """Users behind each of them."""
    losses: tuple[float, ...] = ()
    """Training loss after each epoch."""
    curve: tuple[tuple[int, float], ...] = ()
    """Epoch and objective wherever the validation period was measured."""
    epochs: int = 0
    """Epochs trained; 0 for families without."""
    train_s: float = 0.0
    """Seconds of training."""
    evaluate_s: float = 0.0
    """Seconds of evaluation."""
    error: str | None = None
    """Why the trial failed; None if it did not."""
    retries: int = 0
    """How often it was begun again after an error or a lost worker."""
    node: str = ""
    """Address of the machine that ran it last."""
    cpus: float = 0.0
    """Cores that were set aside for it."""
    gpus: float = 0.0
    """CUDA devices that were set aside for it."""
    peak_memory_mib: float = 0.0
    """Peak of its process, which may have run other trials before."""

    @classmethod
    def begin(cls, point: Point, spec: SearchSpec) -> "Trial":
        """A trial of which nothing is known yet."""
        return cls(
            number=point.number,
            grid=point.grid,
            settings=point.settings(spec),
            seed=point.seed,
            cpus=spec.cpus_per_trial * spec.workers_per_trial,
            gpus=spec.gpus_per_trial * spec.workers_per_trial,
        )

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Trial":
        """The trial that :meth:`to_dict` told.

        Raises:
            ValueError: If it is something else.
        """
        try:
            curve = tuple((int(epoch), float(value)) for epoch, value in document["curve"])
            return cls(**document | {"curve": curve, "losses": tuple(document["losses"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no trial: {str(document)[:80]}") from error

    def to_dict(self) -> dict[str, Any]:
        """The trial as JSON-able values."""
        return asdict(self)

    @property
    def point(self) -> Point:
        """What was trained."""
        searched = {name: value for name, value in self.settings.items() if name != "family"}
        return Point(number=self.number, grid=self.grid, searched=searched, seed=self.seed)

    def fail(self, error: str) -> "Trial":
        """The trial as failed: what was measured of it midway decides nothing."""
        return replace(
            self,
            status="failed",
            error=error,
            metrics={},
            per_segment={},
            num_users_by_segment={},
        )

    def value(self, spec: SearchSpec) -> float:
        """The objective; ``nan`` if it was not measured."""
        return spec.goal.value(self.metrics, self.per_segment, self.num_users_by_segment)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where a training stands: all that it takes to go on elsewhere."""

    state: TrainingState
    """Of the model."""
    so_far: Trial
    """What was seen of it."""


class Watcher(Protocol):
    """Who runs a trial, between two epochs; raising ends the trial."""

    def __call__(self, so_far: Trial, snapshot: Callable[[], Snapshot], *, measured: bool) -> None:
        """Take note.

        Args:
            so_far: As if it had been stopped now.
            snapshot: Makes one, at the cost of a copy of the model.
            measured: Whether the validation period was measured after this epoch.
        """
        ...


Fit = Callable[..., Recommender]
"""Called as :func:`perso.models.families.fit_model`."""


def run_trial(
    spec: SearchSpec,
    point: Point,
    *,
    train: Interactions,
    validation: Interactions,
    side: SideData | None = None,
    watch: Watcher | None = None,
    resume: Snapshot | None = None,
    fit: Fit = fit_model,
) -> Trial:
    """Train one point of the search and measure it on the validation period.

    A ``ValueError`` says that the family refuses the settings or the data, or that training
    diverged: it would again, so it is the trial's result. Anything else is raised.

    Args:
        spec: The search.
        point: What to train.
        train: What to learn from.
        validation: The period after it.
        side: Segments and features as of the end of train.
        watch: Told after each epoch.
        resume: Where to go on.
        fit: Trains a model; another one where processes share the work.
    """
    side = side or SideData()
    trial = Trial.begin(point, spec)
    if resume is not None:
        trial = replace(resume.so_far, **_of_point(trial), retries=trial.retries)
    training = None
    try:
        config = point.config(spec)
        training = _Training(
            spec, config, trial, train=train, validation=validation, side=side, watch=watch
        )
        state = None if resume is None else resume.state
        model = fit(train, config, side, on_epoch=training, resume=state)
        return training.end(model)
    except ValueError as error:
        so_far = trial if training is None else training.so_far
        return so_far.fail(f"{type(error).__name__}: {error}")


class _Training:
    """The record of a training that goes on."""

    def __init__(
        self,
        spec: SearchSpec,
        config: OneOfTheConfigs,
        trial: Trial,
        *,
        train: Interactions,
        validation: Interactions,
        side: SideData,
        watch: Watcher | None,
    ) -> None:
        self._spec, self._trial, self._watch = spec, trial, watch
        self._train, self._validation, self._side = train, validation, side
        self._rungs = set(spec.rungs(config.family, getattr(config, "epochs", 0)))
        self._started = time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        """After an epoch: measure at a rung, and tell who watches."""
        losses = (*self._trial.losses[: progress.epoch - 1], progress.loss)
        self._trial = replace(
            self._trial,
            losses=losses,
            epochs=progress.epoch,
            train_s=self._trial.train_s + self._lap(),
            peak_memory_mib=_peak_memory_mib(),
        )
        measured = progress.epoch in self._rungs and progress.model is not None
        if measured and progress.model is not None:
            self._measure(progress.model(), epoch=progress.epoch)
        if self._watch is not None and progress.state is not None:
            so_far, state = replace(self._trial, status="stopped"), progress.state
            self._watch(
                so_far,
                lambda: Snapshot(state=state(), so_far=so_far),
                measured=measured,
            )
            self._lap()  # what a watcher takes is not the trial's

    @property
    def so_far(self) -> Trial:
        """What was seen of it by the last epoch."""
        return self._trial

    def end(self, model: Recommender) -> Trial:
        """The finished trial."""
        self._trial = replace(self._trial, train_s=self._trial.train_s + self._lap())
        self._measure(model, epoch=max(self._trial.epochs, 1))
        return replace(self._trial, status="finished", peak_memory_mib=_peak_memory_mib())

    def _measure(self, model: Recommender, *, epoch: int) -> None:
        report = measure(
            model, self._spec, known=self._train, held_out=self._validation, side=self._side
        )
        measured = replace(
            self._trial,
            metrics=dict(report.overall),
            per_segment={name: dict(metrics) for name, metrics in report.per_segment.items()},
            num_users_by_segment=dict(report.num_users_by_segment),
            evaluate_s=self._trial.evaluate_s + self._lap(),
        )
        point = (epoch, measured.value(self._spec))
        earlier = tuple(pair for pair in measured.curve if pair[0] < epoch)
        self._trial = replace(measured, curve=(*earlier, point))

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._started = now - self._started, now
        return lap


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


def _of_point(trial: Trial) -> dict[str, Any]:
    """What a trial has from its point, which may have taken over another's snapshot."""
    names = ("number", "grid", "settings", "seed", "cpus", "gpus")
    return {name: getattr(trial, name) for name in names}


def _peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
