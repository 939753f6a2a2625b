"""What evaluation and serving may ask of any trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# U users, I items, B users of one call, N items of one user


@dataclass(frozen=True, kw_only=True)
class UserBatch:
    """The B users of one scoring call."""

    user_indices: NDArray[np.int64]
    """Rows of the user vocabulary, shape (B,); -1 for a stranger."""
    segment_names: tuple[str | None, ...] | None = None
    """Each user's segment, where the caller knows it."""
    context: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Per context column (device, region, daypart, …) each user's value, where known."""


@dataclass(frozen=True, kw_only=True)
class WeightedItems:
    """What a user did that training has not seen: N distinct items."""

    item_indices: NDArray[np.int64]
    """Distinct rows of the item vocabulary, shape (N,)."""
    weights: NDArray[np.float64]
    """On the scale of training weights, positive, shape (N,)."""
    ratings: NDArray[np.float64]
    """Stars given to each, ``nan`` where none, shape (N,)."""

    @classmethod
    def empty(cls) -> "WeightedItems":
        """Nothing was done."""
        return cls(
            item_indices=np.empty(0, np.int64), weights=np.empty(0), ratings=np.empty(0, np.float64)
        )

    def __len__(self) -> int:
        return len(self.item_indices)


class Scorer(Protocol):
    """What can be measured: scores, best first, over the whole item vocabulary.

    Scores are comparable within one user only. A stranger gets a fallback, never an error.
    """

    @property
    def num_items(self) -> int:
        """Length of a score row."""
        ...

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Scores of every item for each user, shape (B, num_items), float32."""
        ...


class Recommender(Scorer, Protocol):
    """A trained model. Models are immutable; ``fit_…`` functions beside each class make them."""

    def save(self, folder: Path) -> None:
        """Write the model into an empty folder as arrays and JSON; no code, no pickle."""
        ...


class PersonalModel(Recommender, Protocol):
    """A model that can serve: it takes in the events of a minute ago and knows similar items."""

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary."""
        ...

    @property
    def recent_boost(self) -> float:
        """How many past interactions one of the current session outweighs."""
        ...

    @property
    def has_signal_I(self) -> NDArray[np.bool_]:
        """Items the model can say something personal about, shape (I,)."""
        ...

    def knows(self, user_index: int) -> bool:
        """Whether the model holds something of the user's own: a history, or features.

        False for -1.
        """
        ...

    def knows_request(
        self,
        *,
        segment: str | None,
        context: Mapping[str, str],
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether what a request tells alone moves the scores, so that even a stranger's differ."""
        ...

    def score_recent(
        self,
        user_index: int,
        recent: WeightedItems,
        *,
        segment: str | None = None,
        context: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Scores of every item for one user who did something new, shape (I,).

        With nothing new they are those of :meth:`score`. Cost is independent of the number of
        users.

        Args:
            user_index: Row of the user vocabulary, -1 for a stranger.
            recent: What happened since training.
            segment: The user's segment, where known.
            context: Values of context columns, where known; other columns are ignored.
            attributes: Features of a user of whom training knew nothing, by the names of
                ``SideData.user_features``; those of a known user are in the user's own vector.
        """
        ...

    def similarity(self, item_index: int) -> NDArray[np.float32]:
        """How alike every item is to one, shape (I,); 0 where the model cannot tell."""
        ...
