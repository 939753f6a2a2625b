"""Distributions that a search draws settings from, as YAML writes them.

A distribution is a mapping of one key to its arguments::

    learning_rate: {loguniform: [0.01, 0.3]}
    l2:            {uniform: [0, 0.2]}
    num_factors:   {choice: [32, 64, 128]}
    dropout:       {quantized: [0, 0.5, 0.1]}
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Where one setting is drawn from: exactly one of the four is given.

    Raises:
        ValueError: If none or several are given, a range is empty or does not ascend, or
            ``loguniform`` begins at 0 or below.
    """

    choice: tuple[Any, ...] | None = None
    """Values, each as likely as the others."""
    uniform: tuple[float, float] | None = None
    """Any number from the first to the second."""
    loguniform: tuple[float, float] | None = None
    """The same with even chances for each order of magnitude; above 0."""
    quantized: tuple[float, float, float] | None = None
    """From the first in steps of the third up to the second, which is included where a step ends
    on it; whole numbers where the first and the step are whole."""

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a distribution is one of choice, uniform, loguniform, quantized, not {given}"
            )
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice is empty; give the values to draw from")
            if any(self.choice.count(value) > 1 for value in self.choice):
                raise ValueError(f"choice repeats a value: {list(self.choice)}")
            return
        low, high = self._ends
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{given[0]} goes from {low} to {high}; give two ascending numbers")
        if self.loguniform is not None and low <= 0:
            raise ValueError(f"loguniform begins at {low}; give a number above 0")
        if self.quantized is not None and not 0 < self.quantized[2] <= high - low:
            raise ValueError(
                f"quantized steps by {self.quantized[2]} from {low} to {high}; give a step above "
                "0 that fits in between"
            )

    @property
    def _ends(self) -> tuple[float, float]:
        span = self.uniform or self.loguniform or self.quantized
        assert span is not None
        return float(span[0]), float(span[1])

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest number; None for a choice."""
        return None if self.choice is not None else self._ends

    @property
    def steps(self) -> tuple[float | int, ...]:
        """The numbers of ``quantized``, ascending; empty for the others."""
        if self.quantized is None:
            return ()
        low, high, step = self.quantized
        count = math.floor((high - low) / step + 1e-9) + 1
        is_whole = float(low).is_integer() and float(step).is_integer()
        found = [low + n * step for n in range(count)]
        if is_whole:
            return tuple(int(value) for value in found)
        # Of 0.1 · 3 the last digits are noise that would make two names of one value.
        return tuple(min(max(float(f"{value:.12g}"), low), high) for value in found)

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        if values := self.choice or self.steps:
            return values[int(rng.integers(len(values)))]
        low, high = self._ends
        if self.loguniform is not None:
            return float(np.clip(np.exp(rng.uniform(np.log(low), np.log(high))), low, high))
        return float(rng.uniform(low, high))

    def nearest(self, value: Any) -> Any:
        """The value that can be drawn nearest to one that may not: numbers are moved inside."""
        if self.choice is not None:
            numbers = [v for v in self.choice if isinstance(v, int | float)]
            is_number = isinstance(value, int | float) and len(numbers) == len(self.choice)
            if value in self.choice or not is_number:
                return value
            return min(numbers, key=lambda allowed: abs(allowed - value))
        if self.quantized is not None:
            return min(self.steps, key=lambda allowed: abs(allowed - value))
        low, high = self._ends
        return float(np.clip(value, low, high))

    def examples(self) -> tuple[Any, ...]:
        """Values that tell whether a family takes it at all.

        Every choice, or the ends of a range and a fraction inside it: what counts something takes
        only whole numbers, and both ends may be whole.
        """
        if self.choice is not None:
            return self.choice
        if values := self.steps:
            return values[0], values[-1]
        low, high = self._ends
        return low, low + (high - low) / math.pi, high
