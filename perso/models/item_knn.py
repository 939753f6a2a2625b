"""Item k-NN: what a user did, and what is near to it.

A score is a sum over the user's items of weight times similarity, so that whole histories and the
events of a minute ago are scored by one rule, and nothing is solved. What no neighbour speaks for
follows in the order of its popularity, below everything that one does; a stranger gets popularity
alone. Memory: 8 bytes a neighbour and 8 bytes an interaction, memory-mapped; at 100 million
interactions and a million items with 100 neighbours each 1.6 GB. How near items are is decided in
``perso.models.nearest_items``.

References:
    Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 22, 2004 (the few
    nearest of each item, added up over the basket).
"""

# U users, I items, B users of one call, N items of one user

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from perso.data.prepared import Interactions
from perso.models.history import History
from perso.models.knn_config import ItemKnnConfig
from perso.models.nearest_items import (
    BLOCK_ENTRIES,
    NearestItems,
    find_nearest,
    index_type,
    matrix_of,
)
from perso.models.protocol import UserBatch, WeightedItems

RECENT_BOOST: Final = 20.0
"""Online Retail, half of a basket known, Recall@20 of the other half for known customers: without
it .141, with boost 1 .177, 5 .214, 10 .230, 20 .241, 50 .249."""


@dataclass(frozen=True, kw_only=True)
class ItemKnnModel:
    """Neighbours of every item and the weighted items of every user.

    Users' items count by their weight, even where similarities count every pair as 1: on Online
    Retail Recall@20 .081 against .076.
    """

    nearest: NearestItems
    history: History
    popularity_I: NDArray[np.float32]
    """Shares of demand, a stranger's scores."""
    recent_boost: float
    """How many past interactions one of the current session outweighs."""

    def __post_init__(self) -> None:
        if self.nearest.num_items != len(self.popularity_I):
            raise ValueError(
                f"neighbours of {self.nearest.num_items} items, "
                f"popularity of {len(self.popularity_I)}"
            )

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary."""
        return self.history.num_users

    @property
    def num_items(self) -> int:
        """Length of a score row."""
        return len(self.popularity_I)

    @cached_property
    def has_signal_I(self) -> NDArray[np.bool_]:
        """Items with a neighbour."""
        return np.diff(self.nearest.indptr_I1) > 0

    @cached_property
    def _similarity_II(self) -> Any:
        arrays = (
            self.nearest.similarities,
            self.nearest.item_indices,
            # scipy copies the neighbours where the two kinds of index differ in width.
            self.nearest.indptr_I1.astype(index_type(len(self.nearest.item_indices))),
        )
        return sparse.csr_array(arrays, shape=(self.num_items, self.num_items))

    def knows(self, user_index: int) -> bool:
        """Whether training has seen an interaction of the user; False for -1."""
        return len(self.history.of(user_index)[0]) > 0

    def knows_request(
        self,
        *,
        segment: str | None,
        context: Mapping[str, str],
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """False: neighbours follow from items alone."""
        return False

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Scores of every item for each user, shape (B, I).

        Raises:
            IndexError: If a user index is outside the model's vocabulary.
        """
        if len(batch.user_indices) and batch.user_indices.max() >= self.num_users:
            raise IndexError(
                f"user_index {batch.user_indices.max()} is outside the model's "
                f"{self.num_users} users"
            )
        parts = [self.history.of(int(user)) for user in batch.user_indices]
        return self._scores([items for items, _ in parts], [weights for _, weights in parts])

    def score_recent(
        self,
        user_index: int,
        recent: WeightedItems,
        *,
        segment: str | None = None,
        context: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Scores after new events, shape (I,); see :class:`perso.models.protocol.PersonalModel`.

        Segment, context and attributes are without effect.
        """
        items, weights = self.history.of(user_index)
        all_items = np.concatenate([items, recent.item_indices.astype(np.int32)])
        all_weights = np.concatenate([weights, recent.weights.astype(np.float32)])
        scores_I: NDArray[np.float32] = self._scores([all_items], [all_weights])[0]
        return scores_I

    def similarity(self, item_index: int) -> NDArray[np.float32]:
        """How alike every item is to one, shape (I,); 0 beyond the neighbours.

        The item itself is the most alike, at least 1.
        """
        items, similarities = self.nearest.of(item_index)
        similarity_I = np.zeros(self.num_items, np.float32)
        similarity_I[items] = similarities
        if len(items):
            similarity_I[item_index] = max(1.0, similarities.max())
        return similarity_I

    def _scores(
        self, items_BN: list[NDArray[np.int32]], weights_BN: list[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Sums over given items, a list of them per user, shape (B, I)."""
        ends_B = np.cumsum([0, *map(len, items_BN)])
        rows_BI = sparse.csr_array(
            (
                np.concatenate([np.empty(0, np.float32), *weights_BN]),
                np.concatenate([np.empty(0, np.int32), *items_BN]),
                ends_B.astype(index_type(int(ends_B[-1]))),
            ),
            shape=(len(items_BN), self.num_items),
        )
        personal_BI = rows_BI @ self._similarity_II
        scale_B = np.ones(len(items_BN), np.float32)
        has_any_B = np.diff(personal_BI.indptr) > 0
        if has_any_B.any():
            # Half of the least personal score, so that popularity reorders none of them.
            starts = personal_BI.indptr[:-1][has_any_B]
            scale_B[has_any_B] = np.minimum.reduceat(personal_BI.data, starts) / 2
            scale_B[has_any_B] /= self.popularity_I.max()
        scores_BI: NDArray[np.float32] = np.outer(scale_B, self.popularity_I)
        users_E = np.repeat(np.arange(len(items_BN)), np.diff(personal_BI.indptr))
        scores_BI[users_E, personal_BI.indices] = personal_BI.data
        return scores_BI

    def save(self, folder: Path) -> None:
        """Write the arrays and ``model.json`` into an empty folder."""
        np.save(folder / "nearest_indptr.npy", self.nearest.indptr_I1)
        np.save(folder / "nearest_items.npy", self.nearest.item_indices)
        np.save(folder / "nearest_similarities.npy", self.nearest.similarities)
        np.save(folder / "popularity.npy", self.popularity_I)
        self.history.save(folder)
        (folder / "model.json").write_text(
            json.dumps({"class": "item_knn", "recent_boost": self.recent_boost})
        )

    @classmethod
    def load(cls, folder: Path) -> "ItemKnnModel":
        """The model in a folder that :meth:`save` wrote; its arrays are memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON, or the arrays disagree.
            KeyError: If a parameter is missing.
        """
        scalars = json.loads((folder / "model.json").read_text())
        return cls(
            nearest=NearestItems(
                indptr_I1=np.load(folder / "nearest_indptr.npy", mmap_mode="r"),
                item_indices=np.load(folder / "nearest_items.npy", mmap_mode="r"),
                similarities=np.load(folder / "nearest_similarities.npy", mmap_mode="r"),
            ),
            history=History.load(folder),
            popularity_I=np.load(folder / "popularity.npy", mmap_mode="r"),
            recent_boost=float(scalars["recent_boost"]),
        )


def fit_item_knn(
    interactions: Interactions,
    config: ItemKnnConfig | None = None,
    *,
    block_entries: int = BLOCK_ENTRIES,
) -> ItemKnnModel:
    """Neighbours by what the same users did; deterministic, without a seed.

    Args:
        interactions: What to learn from; not changed.
        config: The similarity; the defaults if not given.
        block_entries: About how many similarities to hold at once; changes no result.
    """
    config = config or ItemKnnConfig()
    demand_I = np.bincount(interactions.item_indices, interactions.weights, interactions.num_items)
    return ItemKnnModel(
        nearest=find_nearest(matrix_of(interactions, config), config, block_entries=block_entries),
        history=History.from_interactions(interactions),
        popularity_I=(demand_I / max(demand_I.sum(), 1e-12)).astype(np.float32),
        recent_boost=RECENT_BOOST,
    )
