"""A search over model families: what is tried, what decides, and what it may cost.

A spec is a list of grids, one family each. Searcher ``grid`` tries every combination; the others
draw. Whatever is wrong with it is an error before anything starts.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from perso.models.families import OneOfTheConfigs
from perso.tuning.gate import GateSpec
from perso.tuning.grid import GridSpec
from perso.tuning.objective import (
    ERROR_METRICS,
    RANKING_METRICS,
    Bound,
    Mode,
    Objective,
    Term,
    default_mode,
    measured_metrics,
)
from perso.tuning.scheduling import AshaSpec, PbtSpec

FAMILIES_WITH_EPOCHS = ("als", "sgd", "hybrid")
"""Families that can be measured, stopped and continued between two epochs."""
VARIES_MIDWAY = frozenset(
    {
        "learning_rate",
        "l2",
        "dropout",
        "temperature",
        "negative_weight",
        "margin",
        "history_weight",
        "feature_dropout",
        "feature_rate",
        "confidence",
    }
)
"""Settings that training can go on with after they have changed."""


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What a search may use."""

    trials: int | None = None
    """Points that are tried, each with every seed; for a grid the most that it may have."""
    minutes: float | None = None
    """Wall time after which no trial goes on; what is measured by then decides."""

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"budget.trials is {self.trials}; give 1 or more")
        if self.minutes is not None and self.minutes <= 0:
            raise ValueError(f"budget.minutes is {self.minutes}; give more than 0")


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """Grids over model families, how their trials are measured, and who wins."""

    name: str = "grid"
    """Name of the search in MLflow and of its folder."""
    searcher: Literal["grid", "random", "tpe"] = "grid"
    """``grid`` tries every combination, ``random`` draws, ``tpe`` draws near what has been good
    (Optuna's tree-structured Parzen estimator)."""
    grids: tuple[GridSpec, ...] = field(
        default_factory=lambda: (
            GridSpec(
                grid={
                    "num_factors": (32, 64),
                    "learning_rate": (0.05, 0.1),
                    "l2": (0.03, 0.1, 0.3),
                }
            ),
        )
    )
    """What is tried, in this order; drawing searchers take the families in turn (tpe: as it sees
    fit)."""
    k: tuple[int, ...] = (10, 20)
    """List lengths at which every trial is measured; they cost no further training."""
    objective: str | Term | tuple[Term, ...] = "ndcg@20"
    """What decides on the validation period: a metric at one of the list lengths, the worst
    segment's, or a weighted sum; ``rmse`` or ``mae`` where every trial predicts a number."""
    mode: Mode | None = None
    """Whether the highest or the lowest objective wins; none: as its metric is better."""
    constraints: dict[str, Bound] = field(default_factory=dict)
    """Limits that the winner keeps on the validation period, such as ``coverage@20: {at_least:
    0.2}``. Searchers and schedulers look at the objective alone."""
    min_segment_users: int = 30
    """Users that a segment needs to be the worst one of an objective."""
    min_rating: float = 4.0
    """Least rating of a held-out item that a list should hold; items without one all count."""
    seeds: tuple[int, ...] = (0,)
    """Every point is trained once with each, and their mean decides."""
    scheduler: Literal["none", "asha", "pbt"] = "none"
    """``asha`` ends trials that are behind, ``pbt`` varies settings during training."""
    asha: AshaSpec = field(default_factory=AshaSpec)
    """Settings of ``asha``."""
    pbt: PbtSpec = field(default_factory=PbtSpec)
    """Settings of ``pbt``."""
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    """What the search may use."""
    cpus_per_trial: float = 1.0
    """Cores of one trial, or the share of one; its threads are held to them."""
    gpus_per_trial: float = 0.0
    """CUDA devices of one trial, or the share of one; whole ones for several workers."""
    workers_per_trial: int = 1
    """Processes that train one model together, each with the cores and devices above: ALS in
    shards, SGD and hybrid data-parallel. For models that are too much for one. Trials then run
    one at a time unless ``max_concurrent`` says more."""
    max_concurrent: int | None = None
    """Trials at once; none: as many as the cluster has room for."""
    retries: int = 2
    """How often a trial is tried again, from its checkpoint, after an error or a lost worker.
    A setting that a family refuses, or training that diverges, is not tried again."""
    checkpoint_every_s: float = 30.0
    """Seconds of training between two checkpoints of a trial; they lie beside its results."""
    gate: GateSpec = field(default_factory=GateSpec)
    """What the winner has to show before it serves."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .-]*", self.name):
            raise ValueError(
                f"name is {self.name!r}, but it names a folder too; give letters, digits, "
                "dashes, dots and spaces"
            )
        if not self.grids:
            raise ValueError("grids is empty; give at least one family to try")
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise ValueError(f"k is {list(self.k)}; give different list lengths of 1 or more")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {list(self.seeds)}; give different numbers from 0")
        self._check_objective()
        self._check_resources()
        self._check_searcher()
        configs = self.extremes()  # a wrong setting is an error now, not amid a search
        self._check_error_objective(configs)

    @property
    def goal(self) -> Objective:
        """The objective, resolved."""
        terms = self._terms
        return Objective(
            terms=terms,
            mode=self.mode or default_mode(terms),
            min_segment_users=self.min_segment_users,
        )

    @property
    def gate_metric(self) -> str:
        """The metric on the test period that decides about serving.

        The gate's own, else that of the objective's heaviest ranking term; where there is none
        the NDCG of the longest list, because a list is what the shopper gets.
        """
        if self.gate.metric is not None:
            return self.gate.metric
        ranking = [term for term in self._terms if term.base in RANKING_METRICS]
        heaviest = max(ranking, key=lambda term: term.weight, default=None)
        return f"ndcg@{max(self.k)}" if heaviest is None else heaviest.metric

    @property
    def num_trials(self) -> int:
        """Trials of the whole search: points times seeds."""
        points = self.budget.trials
        if self.searcher == "grid":
            points = sum(len(grid.combinations()) for grid in self.grids)
        assert points is not None
        return points * len(self.seeds)

    def rungs(self, family: str, epochs: int) -> list[int]:
        """Epochs at which a training is measured before its end."""
        if self.scheduler == "none" or family not in FAMILIES_WITH_EPOCHS:
            return []
        return (self.asha if self.scheduler == "asha" else self.pbt).rungs(epochs)

    def extremes(self) -> list[OneOfTheConfigs]:
        """Model configs in which every value that a family might refuse stands once.

        Raises:
            ValueError: If a family has no such setting or refuses a value.
        """
        return [
            grid.config(settings, seed=self.seeds[0])
            for grid in self.grids
            for settings in (grid.combinations() if self.searcher == "grid" else grid.ends())
        ]

    @property
    def _terms(self) -> tuple[Term, ...]:
        if isinstance(self.objective, tuple):
            return self.objective
        return (Term(metric=self.objective) if isinstance(self.objective, str) else self.objective,)

    def _check_objective(self) -> None:
        if not self._terms:
            raise ValueError("objective is empty; give a metric such as ndcg@20")
        allowed = measured_metrics(self.k)
        named = [(term.metric, "objective") for term in self._terms]
        named += [(name, "constraint") for name in self.constraints]
        named += [(name, "floor of the gate") for name in self.gate.floors]
        named += [(self.gate.metric, "metric of the gate")] if self.gate.metric else []
        for name, role in named:
            if name not in allowed:
                raise ValueError(f"{role} {name!r} is not measured; choose of {', '.join(allowed)}")
        if self.gate.metric and self.gate.metric.split("@")[0] not in RANKING_METRICS:
            raise ValueError(
                f"the gate compares users, so its metric is one of {', '.join(RANKING_METRICS)} "
                f"at a list length, not {self.gate.metric!r}"
            )
        if self.mode is None:
            default_mode(self._terms)
        if self.min_segment_users < 1:
            raise ValueError(f"min_segment_users is {self.min_segment_users}; give 1 or more")

    def _check_resources(self) -> None:
        if self.cpus_per_trial <= 0 or self.gpus_per_trial < 0:
            raise ValueError(
                f"a trial cannot have {self.cpus_per_trial} CPUs and {self.gpus_per_trial} GPUs; "
                "give more than 0 CPUs and 0 or more GPUs"
            )
        if self.gpus_per_trial > 1 and not float(self.gpus_per_trial).is_integer():
            raise ValueError(
                f"gpus_per_trial is {self.gpus_per_trial}; give a share of one or whole devices"
            )
        for name in ("workers_per_trial", "max_concurrent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give 1 or more")
        if self.retries < 0 or self.checkpoint_every_s < 0:
            raise ValueError(
                f"retries is {self.retries} and checkpoint_every_s {self.checkpoint_every_s}; "
                "give 0 or more"
            )
        families = {grid.family for grid in self.grids}
        if self.workers_per_trial > 1:
            if not float(self.gpus_per_trial).is_integer():
                raise ValueError(
                    f"gpus_per_trial is {self.gpus_per_trial}, but workers that train one model "
                    "take whole devices; give 0, 1 or more, or set workers_per_trial to 1"
                )
            if lone := sorted(families - set(FAMILIES_WITH_EPOCHS)):
                raise ValueError(
                    f"workers_per_trial is {self.workers_per_trial}, but {lone} train in one "
                    f"process; only {', '.join(FAMILIES_WITH_EPOCHS)} are shared"
                )
            if self.scheduler != "none":
                raise ValueError(
                    f"scheduler {self.scheduler} looks into one process; set workers_per_trial to 1"
                )

    def _check_searcher(self) -> None:
        sampled = [name for grid in self.grids for name in grid.sample]
        if self.searcher == "grid" and sampled:
            raise ValueError(
                f"searcher grid tries every combination and draws nothing, but sample has "
                f"{sampled}; list their values under grid, or take searcher random or tpe"
            )
        if self.searcher != "grid" and self.budget.trials is None:
            raise ValueError(f"searcher {self.searcher} draws without end; give budget.trials")
        if self.searcher == "grid" and self.budget.trials is not None:
            points = self.num_trials // len(self.seeds)
            if points > self.budget.trials:
                raise ValueError(
                    f"the grids have {points} combinations, but budget.trials is "
                    f"{self.budget.trials}; take values away, raise it, or take searcher random"
                )
        if self.scheduler == "asha" and len(self.seeds) > 1:
            raise ValueError(
                "asha stops seeds of one point apart from each other; give it one seed"
            )
        if self.scheduler == "pbt":
            self._check_population()

    def _check_population(self) -> None:
        families = {grid.family for grid in self.grids}
        if len(self.grids) != 1 or not families <= set(FAMILIES_WITH_EPOCHS):
            raise ValueError(
                f"pbt lets trials take over each other's vectors: give it one grid of one of "
                f"{', '.join(FAMILIES_WITH_EPOCHS)}, not {sorted(families)}"
            )
        if self.searcher != "random" or len(self.seeds) > 1 or (self.budget.trials or 0) < 4:
            raise ValueError("pbt needs searcher random, one seed and budget.trials of 4 or more")
        (grid,) = self.grids
        if fixed := sorted(name for name in grid.space if name not in VARIES_MIDWAY):
            raise ValueError(
                f"{fixed} cannot change during training; pbt varies "
                f"{', '.join(sorted(VARIES_MIDWAY))}; put them under fixed"
            )
        if not grid.sample:
            raise ValueError("pbt has nothing to vary; give settings under sample")

    def _check_error_objective(self, configs: list[OneOfTheConfigs]) -> None:
        errors = [term.metric for term in self._terms if term.base in ERROR_METRICS]
        if not errors:
            return
        if any(getattr(config, "loss", None) != "squared" for config in configs):
            raise ValueError(
                f"objective {errors[0]!r} needs models that predict a number: family sgd "
                "with loss squared in every trial"
            )
        if len({getattr(config, "target", None) for config in configs}) > 1:
            raise ValueError(
                f"objective {errors[0]!r} cannot compare stars with weights; give every "
                "trial the same target"
            )
