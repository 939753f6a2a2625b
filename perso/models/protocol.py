"""What evaluation and serving may ask of any trained model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class UserBatch:
    """The B users of one scoring call."""

    user_indices: NDArray[np.int64]
    """Rows of the user vocabulary, shape (B,); -1 for a stranger."""
    segment_names: tuple[str | None, ...] | None = None
    """Each user's segment, where the caller knows it."""


class Recommender(Protocol):
    """A trained model: scores, best first, over the whole item vocabulary.

    Scores are comparable within one user only. A stranger gets the model's fallback, never an
    error. Models are immutable; ``fit_…`` functions beside each class make them.
    """

    @property
    def num_items(self) -> int:
        """Length of a score row."""
        ...

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Scores of every item for each user, shape (B, num_items), float32."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model into an empty folder as arrays and JSON; no code, no pickle."""
        ...
