"""One family of models in a search: what its trials share, combine and draw."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np

from perso.errors import InputError
from perso.models.families import FAMILIES, ModelConfig, OneOfTheConfigs
from perso.spec import parse_spec
from perso.tuning.space import Distribution

FamilyName = Literal["item_knn", "als", "spectral", "sgd", "hybrid", "blend"]
"""Families that a search tries; popularity is what they have to beat."""


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """One family's settings: fixed ones, combinations, and distributions.

    A setting inside another is written with a dot, ``learned.num_factors``, in all three; those
    beside it keep the family's defaults.
    """

    family: FamilyName = "sgd"
    """The family of models."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Settings that every trial of the family shares."""
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Settings with the values to try: each combination is a trial of searcher ``grid``; the
    others draw of the values."""
    sample: dict[str, Distribution] = field(default_factory=dict)
    """Settings that are drawn; not for searcher ``grid``."""

    def __post_init__(self) -> None:
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name} is empty; give the values to try")
            if any(values.count(value) > 1 for value in values):
                raise ValueError(f"grid.{name} repeats a value: {list(values)}")
        names = [*self.fixed, *self.grid, *self.sample]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice} stand in several of fixed, grid and sample; keep one")
        for name in names:
            if name.split(".")[-1] in {"seed", "family"}:
                raise ValueError(
                    f"{name!r} is no setting of a grid: family stands beside fixed, grid and "
                    "sample, and a search has its seeds beside grids"
                )

    @property
    def space(self) -> dict[str, Distribution]:
        """All that is searched, values of a grid as choices."""
        choices = {name: Distribution(choice=values) for name, values in self.grid.items()}
        return choices | self.sample

    def combinations(self) -> list[dict[str, Any]]:
        """The grid's own settings of each trial: the last one varies fastest."""
        products = itertools.product(*self.grid.values())
        return [dict(zip(self.grid, values, strict=True)) for values in products]

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """One drawn combination of all that is searched."""
        return {name: distribution.draw(rng) for name, distribution in self.space.items()}

    def ends(self) -> list[dict[str, Any]]:
        """Combinations in which every value that a family might refuse stands once.

        The lowest and highest numbers and every choice; an inner value that is allowed only
        beside certain others is not found.
        """
        space = {name: d.examples() for name, d in self.space.items()}
        if not space:
            return [{}]
        longest = max(len(values) for values in space.values())
        return [
            {n: v[min(place, len(v) - 1)] for n, v in space.items()} for place in range(longest)
        ]

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
