"""The points of a search: one model config each, planned where the searcher needs no results."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from perso.models.families import OneOfTheConfigs
from perso.tuning.spec import SearchSpec

_TRIES: Final = 50


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one trial trains. Plain values only, so it travels as JSON."""

    number: int
    """Of the trial, from 0."""
    grid: int
    """Which of the spec's grids it belongs to."""
    searched: dict[str, Any]
    """The grid's searched settings."""
    seed: int
    """Start of its random numbers."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Point":
        """The point that :meth:`to_dict` told."""
        return cls(**document)

    def to_dict(self) -> dict[str, Any]:
        """The point as JSON-able values."""
        return asdict(self)

    def config(self, spec: SearchSpec) -> OneOfTheConfigs:
        """The complete model config."""
        return spec.grids[self.grid].config(self.searched, seed=self.seed)

    def settings(self, spec: SearchSpec) -> dict[str, Any]:
        """Family and searched settings, for tables and logs."""
        return {"family": spec.grids[self.grid].family, **self.searched}


def planned_points(spec: SearchSpec) -> list[Point]:
    """Every point of a search by grid or by chance, numbered; the same for the same spec.

    A drawn point is drawn again where it is there already; a space that is used up gives fewer
    points than the budget.

    Raises:
        ValueError: If the searcher waits for results.
    """
    if spec.searcher == "grid":
        chosen = [
            (place, searched)
            for place, grid in enumerate(spec.grids)
            for searched in grid.combinations()
        ]
    elif spec.searcher == "random":
        chosen = _drawn(spec)
    else:
        raise ValueError(f"searcher {spec.searcher} plans nothing: it waits for results")
    return [
        Point(number=number, grid=place, searched=searched, seed=seed)
        for number, ((place, searched), seed) in enumerate(
            (pair, seed) for pair in chosen for seed in spec.seeds
        )
    ]


def _drawn(spec: SearchSpec) -> list[tuple[int, dict[str, Any]]]:
    assert spec.budget.trials is not None
    rng = np.random.default_rng([*spec.seeds, len(spec.grids)])
    drawn: list[tuple[int, dict[str, Any]]] = []
    exhausted: set[int] = set()
    place = 0
    while len(drawn) < spec.budget.trials and len(exhausted) < len(spec.grids):
        grid = place % len(spec.grids)
        place += 1
        if grid in exhausted:
            continue
        for _ in range(_TRIES):
            pair = (grid, spec.grids[grid].draw(rng))
            if pair not in drawn:
                drawn.append(pair)
                break
        else:
            exhausted.add(grid)
    return drawn
