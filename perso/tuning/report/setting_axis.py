"""Where the values of a searched setting lie on an axis: linear, by magnitude, or one by one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from perso.tuning.report.scoreboard import Candidate, setting_text
from perso.tuning.spec import SearchSpec

_FEW: Final = 8  # so many different numbers get a tick each
_MAGNITUDES: Final = 10.0  # highest over lowest from which on an axis goes by magnitude


@dataclass(frozen=True, kw_only=True)
class SettingAxis:
    """An axis from 0, its lower end, to 1."""

    name: str
    """Of the setting."""
    is_number: bool
    """Whether values have an order of their own."""
    is_log: bool
    """Whether it goes by magnitude."""
    low: float
    """The number at 0; its logarithm where it goes by magnitude."""
    high: float
    """The number at 1."""
    choices: tuple[str, ...]
    """Texts of values that are evenly spaced; empty on an axis of numbers."""
    few: tuple[float, ...]
    """The numbers there were to choose from, if they are few."""

    @classmethod
    def of(
        cls, name: str, values: Sequence[Any], *, bounds: tuple[float, float] | None = None
    ) -> "SettingAxis":
        """The axis that fits some values, of which there are two different ones or more.

        Args:
            name: Of the setting.
            values: All that were tried.
            bounds: The range that they were drawn from; None: they were chosen one by one.
        """
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values) or not all(map(math.isfinite, numbers)):
            return cls._of_choices(name, sorted({setting_text(value) for value in values}))
        distinct = sorted({*numbers, *(bounds or ())})
        is_few = bounds is None and len(distinct) <= _FEW
        positive = [number for number in distinct if number > 0]
        spans = bool(positive) and positive[-1] / positive[0] >= _MAGNITUDES
        if distinct[0] <= 0 and spans and is_few:
            # A zero beside magnitudes, such as "no regularization", has no place on either axis.
            texts = [setting_text(number) for number in distinct]
            return cls._of_choices(name, texts, is_number=True)
        is_log = distinct[0] > 0 and (spans or (is_few and _is_geometric(distinct)))
        low, high = distinct[0], distinct[-1]
        return cls(
            name=name,
            is_number=True,
            is_log=is_log,
            low=math.log10(low) if is_log else low,
            high=math.log10(high) if is_log else high,
            choices=(),
            few=tuple(distinct) if is_few else (),
        )

    @classmethod
    def _of_choices(cls, name: str, texts: list[str], *, is_number: bool = False) -> "SettingAxis":
        return cls(
            name=name,
            is_number=is_number,
            is_log=False,
            low=0,
            high=len(texts) - 1,
            choices=tuple(texts),
            few=(),
        )

    @property
    def is_stepped(self) -> bool:
        """Whether there were only few values to choose from."""
        return bool(self.choices or self.few)

    def place(self, value: Any) -> float:
        """Where a value lies, 0 to 1; ``nan`` for none of this axis."""
        if self.choices:
            text = setting_text(value)
            return self.choices.index(text) / self.high if text in self.choices else math.nan
        number = math.log10(value) if self.is_log else float(value)
        return (number - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Places and texts: every value to choose from if they are few, else round numbers."""
        if self.choices:
            return [place / self.high for place in range(len(self.choices))], list(self.choices)
        values = list(self.few) or self._round_numbers()
        return [self.place(value) for value in values], [setting_text(value) for value in values]

    def _round_numbers(self) -> list[float]:
        from matplotlib.ticker import LogLocator, MaxNLocator

        def inside(ticks: Sequence[float]) -> list[float]:
            rounded = [float(f"{tick:.12g}") for tick in ticks]
            return [tick for tick in rounded if -1e-9 <= self.place(tick) <= 1 + 1e-9]

        if not self.is_log:
            return inside(MaxNLocator(nbins=4).tick_values(self.low, self.high))
        ends = 10**self.low, 10**self.high
        found = inside(LogLocator(subs=(1,)).tick_values(*ends))
        return found if len(found) > 2 else inside(LogLocator(subs=(1, 3)).tick_values(*ends))


def varied_axes(candidates: Sequence[Candidate], spec: SearchSpec) -> list[SettingAxis]:
    """An axis for each setting of which several values were tried; all of one family."""
    spaces = [spec.grids[grid].space for grid in sorted({c.grid for c in candidates})]
    names = dict.fromkeys(name for candidate in candidates for name in candidate.searched)
    axes = []
    for name in names:
        values = [c.searched[name] for c in candidates if name in c.searched]
        if len({setting_text(value) for value in values}) < 2:
            continue
        drawn = [space[name] for space in spaces if name in space]
        # Of a few steps each gets its tick; many are a range.
        ends = [d.bounds for d in drawn if d.bounds is not None and not 0 < len(d.steps) <= _FEW]
        bounds = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
        axes.append(SettingAxis.of(name, values, bounds=bounds))
    return axes


def _is_geometric(distinct: Sequence[float]) -> bool:
    """Whether each of some numbers is a multiple of the one before: 16, 32, 64."""
    ratios = [after / before for before, after in pairwise(distinct)]
    return len(ratios) > 1 and min(ratios) >= 1.4 and distinct[-1] / distinct[0] >= 4
