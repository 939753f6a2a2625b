"""A search over model families: what is tried, and how every trial is measured.

A spec is a list of grids, one family each; every combination of a grid's values is one trial.
"""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, Literal

from perso.errors import InputError
from perso.models.families import FAMILIES, ModelConfig, OneOfTheConfigs
from perso.spec import parse_spec

RANKING_OBJECTIVES: Final = ("recall", "ndcg", "map", "mrr", "precision", "hit_rate")
"""Metrics that can choose a winner, each at a list length; higher is better."""

ERROR_OBJECTIVES: Final = ("rmse", "mae")
"""Errors that can choose a winner among models that predict a number; lower is better."""

FamilyName = Literal["item_knn", "als", "spectral", "sgd", "hybrid", "blend"]
"""Families that a search tries; popularity is what they have to beat."""


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """Combinations of one family's settings."""

    family: FamilyName = "sgd"
    """The family of models."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Settings that every trial of the grid shares."""
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Settings with the values to try, each combination a trial; none: one trial. A setting
    inside another is written with a dot, ``learned.num_factors``, here and in ``fixed``; those
    beside it keep the family's defaults."""

    def __post_init__(self) -> None:
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name} is empty; give the values to try")
            if any(values.count(value) > 1 for value in values):
                raise ValueError(f"grid.{name} repeats a value: {list(values)}")
        if both := sorted(self.grid.keys() & self.fixed.keys()):
            raise ValueError(f"{both} stand in both grid and fixed; keep one")
        for name in self.grid.keys() | self.fixed.keys():
            if name.split(".")[-1] in {"seed", "family"}:
                raise ValueError(
                    f"{name!r} is no setting of a grid: family stands beside grid and fixed, and "
                    "one seed starts every trial of a search"
                )

    def combinations(self) -> list[dict[str, Any]]:
        """The grid's own settings of each trial: the last one varies fastest."""
        products = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, values, strict=True)) for values in products]

    def config(self, settings: Mapping[str, Any], *, seed: int) -> OneOfTheConfigs:
        """The family's complete settings for one combination.

        Raises:
            ValueError: If the family has no such setting or refuses a value.
        """
        document: dict[str, Any] = {"family": self.family}
        given = copy.deepcopy(self.fixed | dict(settings))
        for name in sorted(given, key=lambda name: name.count(".")):  # outer ones first
            _put(document, name.split("."), given[name])
        try:
            config: OneOfTheConfigs = parse_spec(ModelConfig, document, origin="model settings")
        except InputError as error:
            known = {f.name for f in fields(FAMILIES[self.family])}
            names = ", ".join(sorted(known - {"seed", "family"}))
            raise ValueError(f"{error}; settings of {self.family} are: {names}") from error
        seeded: OneOfTheConfigs = _with_seed(config, seed)
        return seeded


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """Grids over model families and how their trials are measured."""

    name: str = "grid"
    """Name of the search in MLflow."""
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
    """What is tried, in this order."""
    k: tuple[int, ...] = (10, 20)
    """List lengths at which every trial is measured; they cost no further training."""
    objective: str = "ndcg@20"
    """The metric on the validation period that decides: a ranking metric at one of the list
    lengths, or ``rmse`` or ``mae`` where every trial predicts a number."""
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
        if not self.grids:
            raise ValueError("grids is empty; give at least one family to try")
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise ValueError(f"k is {list(self.k)}; give different list lengths of 1 or more")
        allowed = [f"{metric}@{k}" for metric in RANKING_OBJECTIVES for k in self.k]
        allowed += ERROR_OBJECTIVES
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
        points = self.points()  # a wrong setting is an error now, not in the middle of a search
        if self.minimizes and any(getattr(p, "loss", None) != "squared" for p in points):
            raise ValueError(
                f"objective {self.objective!r} needs models that predict a number: family sgd "
                "with loss squared in every trial"
            )
        if self.minimizes and len({getattr(p, "target", None) for p in points}) > 1:
            raise ValueError(
                f"objective {self.objective!r} cannot compare stars with weights; give every "
                "trial the same target"
            )

    @property
    def minimizes(self) -> bool:
        """Whether a lower objective is better."""
        return self.objective in ERROR_OBJECTIVES

    @property
    def gate(self) -> str:
        """The metric on the test period that decides about serving.

        The objective; where that is an error the NDCG of the longest list, because popularity
        predicts no number that could be beaten, and a list is what the shopper gets.
        """
        return f"ndcg@{max(self.k)}" if self.minimizes else self.objective

    def points(self) -> list[OneOfTheConfigs]:
        """One complete model config per trial, grid after grid.

        Raises:
            ValueError: If a family has no such setting or refuses a value.
        """
        return [
            grid.config(settings, seed=self.seed)
            for grid in self.grids
            for settings in grid.combinations()
        ]

    def settings(self) -> list[dict[str, Any]]:
        """Per trial its family and its grid's own settings, for tables and logs."""
        return [
            {"family": grid.family, **settings}
            for grid in self.grids
            for settings in grid.combinations()
        ]


def _put(document: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value that may lie inside others."""
    place = document
    for depth, name in enumerate(path[:-1], start=1):
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ValueError(f"{'.'.join(path)!r}: {'.'.join(path[:depth])} has no settings inside")
    place[path[-1]] = value


def _with_seed(config: Any, seed: int) -> Any:
    """The config with one seed wherever it or a part of it has one."""
    parts = {f.name: getattr(config, f.name) for f in fields(config)}
    changes = {name: _with_seed(part, seed) for name, part in parts.items() if is_dataclass(part)}
    return replace(config, **changes, **({"seed": seed} if "seed" in parts else {}))
