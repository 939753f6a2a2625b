"""The cube of recency, frequency and monetary scores, and the name of every cell.

Decides that names are boxes of the cube, given by the shop, and that every cell has exactly one:
a gap or an overlap is an error when the spec is read, not a customer without a name.

References:
    Hughes, Strategic Database Marketing, 1994 (RFM); the names are those that marketing tools use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.segments.names import OTHER

BROWSERS: Final = "browsers"
"""The segment of who has never bought: no scores, but the widest audience of a shop."""

SHAPE: Final = (100, 4, 4)
"""Recency scores 1 to 100, frequency quartiles 1 to 4, monetary tiers 1 to 4."""

_AXES: Final = ("recency", "frequency", "monetary")


@dataclass(frozen=True, kw_only=True)
class SegmentBox:
    """One box of the cube and its name; several boxes may share one."""

    name: str
    """Lower case with underscores."""
    recency: tuple[int, int] = (1, 100)
    """Recency scores from and to, both included; 100 bought just now."""
    frequency: tuple[int, int] = (1, 4)
    """Frequency quartiles from and to; 4 orders most."""
    monetary: tuple[int, int] = (1, 4)
    """Monetary tiers from and to; 4 spends most."""

    def __post_init__(self) -> None:
        for axis, size in zip(_AXES, SHAPE, strict=True):
            low, high = getattr(self, axis)
            if not 1 <= low <= high <= size:
                raise ValueError(
                    f"{axis} of segment {self.name!r} is {low} to {high}; "
                    f"give two rising numbers in 1 to {size}"
                )
        if self.name in {BROWSERS, OTHER}:
            raise ValueError(f"segment name {self.name!r} is taken: it means something else here")


DEFAULT_BOXES: Final = (
    # Bought in the last month (of the default horizon of half a year).
    SegmentBox(name="champions", recency=(84, 100), frequency=(3, 4), monetary=(3, 4)),
    SegmentBox(name="loyal", recency=(84, 100), frequency=(3, 4), monetary=(1, 2)),
    SegmentBox(name="potential_loyalists", recency=(84, 100), frequency=(2, 2)),
    SegmentBox(name="new", recency=(84, 100), frequency=(1, 1)),
    # One to two months ago.
    SegmentBox(name="loyal", recency=(67, 83), frequency=(3, 4)),
    SegmentBox(name="potential_loyalists", recency=(67, 83), frequency=(2, 2)),
    SegmentBox(name="promising", recency=(67, 83), frequency=(1, 1)),
    # Two to three months ago.
    SegmentBox(name="need_attention", recency=(51, 66), frequency=(2, 4)),
    SegmentBox(name="about_to_sleep", recency=(51, 66), frequency=(1, 1)),
    # Three to six months ago: named by what they are worth.
    SegmentBox(name="cant_lose_them", recency=(2, 50), monetary=(4, 4)),
    SegmentBox(name="at_risk", recency=(2, 50), monetary=(2, 3)),
    SegmentBox(name="hibernating", recency=(2, 50), monetary=(1, 1)),
    # Not in half a year.
    SegmentBox(name="cant_lose_them", recency=(1, 1), monetary=(4, 4)),
    SegmentBox(name="lost", recency=(1, 1), monetary=(1, 3)),
)
"""Who still comes is named by how often they order; who has gone quiet by what they spent."""


class SegmentCube:
    """The name of every cell.

    Example:
        >>> cube = SegmentCube(DEFAULT_BOXES)
        >>> cube.name_of(95, 4, 4), cube.name_of(1, 1, 4), cube.name_of(0, 0, 0)
        ('champions', 'cant_lose_them', 'browsers')
    """

    def __init__(self, boxes: Sequence[SegmentBox]) -> None:
        """Lay the boxes into the cube.

        Raises:
            ValueError: If two boxes meet in a cell or a cell has none; the message names the
                first such cell.
        """
        self.names = (*dict.fromkeys(box.name for box in boxes), BROWSERS)
        """Every segment there is, in the order of the boxes."""
        cells = np.full(SHAPE, -1, np.int64)
        for box in boxes:
            inside = tuple(
                slice(low - 1, high) for low, high in (box.recency, box.frequency, box.monetary)
            )
            if (taken := np.argwhere(cells[inside] >= 0)).size:
                cell = taken[0] + [part.start for part in inside]
                other = self.names[int(cells[tuple(cell)])]
                raise ValueError(
                    f"segments {other!r} and {box.name!r} overlap at {_place(cell)}; "
                    "make one of the boxes smaller"
                )
            cells[inside] = self.names.index(box.name)
        if (empty := np.argwhere(cells < 0)).size:
            raise ValueError(
                f"no segment covers {_place(empty[0])}, and {len(empty) - 1} more of "
                f"{cells.size} cells; add or widen a box"
            )
        self._cells = cells

    def codes(
        self, recency: NDArray[np.int64], frequency: NDArray[np.int64], monetary: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The place in ``names`` of each customer's cell; scores of 0 are ``browsers``.

        Args:
            recency: Scores 1 to 100, or 0: never bought.
            frequency: Quartiles 1 to 4; not read where recency is 0.
            monetary: Tiers 1 to 4; not read where recency is 0.
        """
        scores = [np.maximum(score - 1, 0) for score in (recency, frequency, monetary)]
        codes: NDArray[np.int64] = self._cells[tuple(scores)]
        return np.where(recency > 0, codes, len(self.names) - 1)

    def name_of(self, recency: int, frequency: int, monetary: int) -> str:
        """The segment of one cell; three zeros: never bought.

        Raises:
            ValueError: If the scores are no cell.
        """
        scores = (recency, frequency, monetary)
        is_cell = all(1 <= s <= size for s, size in zip(scores, SHAPE, strict=True))
        if scores != (0, 0, 0) and not is_cell:
            raise ValueError(
                f"scores {scores} are no cell: give 1 to 100, 1 to 4 and 1 to 4, or 0 for all"
            )
        (code,) = self.codes(*(np.array([score]) for score in scores))
        return self.names[int(code)]


def _place(cell: NDArray[np.int64]) -> str:
    return ", ".join(f"{axis} {score + 1}" for axis, score in zip(_AXES, cell, strict=True))
