"""Lists of items for an item's page: what was bought together with it.

They are rows of the k-NN kernel, with baskets in the place of users. This file keeps lists ready to
read; what a list leaves out for one shopper (sold out, just seen) is decided where it is served, so
lists are longer than what a page shows. Memory: 8 bytes an item and place; at a million items and
20 places 160 MB, memory-mapped.

References:
    Tan, Kumar and Srivastava, Selecting the right interestingness measure for association
    patterns, KDD 2002 (the cosine of basket incidence: the root of lift times support).
"""

# I items, N places of a list, K baskets

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from perso.models.baskets import Baskets
from perso.models.knn_config import ItemKnnConfig
from perso.models.nearest_items import NearestItems, find_nearest, index_type

NUM_RELATED: Final = 20

BOUGHT_TOGETHER: Final = ItemKnnConfig(user_exponent=0.0, item_exponent=0.5, shrinkage=20.0)
"""Cosine of basket incidence, shrunk. Online Retail, from one item of a later basket the share of
ten that were in it too: cosine .132, shrunk by 5 .143, by 20 .146; lift .038, shrunk by 20 .121;
plain counts .151 at the price of lists of the same few bestsellers."""


@dataclass(frozen=True, kw_only=True)
class RelatedItems:
    """A list of related items per item, best first."""

    item_indices_IN: NDArray[np.int32]
    """Rows of the item vocabulary, shape (I, N); -1 pads short lists."""
    scores_IN: NDArray[np.float32]
    """Their scores, positive, falling; 0 where padded."""

    def __post_init__(self) -> None:
        if self.item_indices_IN.shape != self.scores_IN.shape:
            raise ValueError(
                f"item_indices_IN has shape {self.item_indices_IN.shape}, "
                f"scores_IN {self.scores_IN.shape}"
            )

    @classmethod
    def from_nearest(cls, nearest: NearestItems, *, num_related: int) -> "RelatedItems":
        """The nearest items as lists; of equal ones the lower item index comes first."""
        lengths_I = np.diff(nearest.indptr_I1)
        rows = np.repeat(np.arange(nearest.num_items), lengths_I)
        order = np.lexsort((nearest.item_indices, -nearest.similarities, rows))
        places = np.arange(len(rows)) - nearest.indptr_I1[rows]
        kept = places < num_related
        rows, places, order = rows[kept], places[kept], order[kept]
        shape = (nearest.num_items, num_related)
        item_indices_IN = np.full(shape, -1, np.int32)
        scores_IN = np.zeros(shape, np.float32)
        item_indices_IN[rows, places] = nearest.item_indices[order]
        scores_IN[rows, places] = nearest.similarities[order]
        return cls(item_indices_IN=item_indices_IN, scores_IN=scores_IN)

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return len(self.item_indices_IN)

    def of(self, item_index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Items related to one, best first, and their scores, without padding.

        Raises:
            IndexError: If the item is outside the vocabulary.
        """
        items_N = self.item_indices_IN[item_index]
        length = int((items_N >= 0).sum())
        return items_N[:length], self.scores_IN[item_index, :length]

    def save(self, folder: Path) -> None:
        """Write two arrays into an empty folder."""
        np.save(folder / "related_items.npy", self.item_indices_IN)
        np.save(folder / "related_scores.npy", self.scores_IN)

    @classmethod
    def load(cls, folder: Path) -> "RelatedItems":
        """The lists in a folder that :meth:`save` wrote; memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array, or the shapes disagree.
        """
        return cls(
            item_indices_IN=np.load(folder / "related_items.npy", mmap_mode="r"),
            scores_IN=np.load(folder / "related_scores.npy", mmap_mode="r"),
        )


def fit_bought_together(
    baskets: Baskets,
    config: ItemKnnConfig = BOUGHT_TOGETHER,
    *,
    num_related: int = NUM_RELATED,
) -> RelatedItems:
    """Items that lay in the same baskets more often than their popularity explains.

    Args:
        baskets: What was bought at one time, see :func:`perso.models.baskets.cut_baskets`.
        config: The association, with baskets in the place of users; its ``num_neighbors`` is
            without effect.
        num_related: Length of the lists.

    Raises:
        ValueError: If ``num_related`` is below 1.
    """
    config = _with_length(config, num_related)
    num_entries = len(baskets.item_indices)
    matrix_KI = sparse.csr_array(
        (
            np.ones(num_entries),
            baskets.item_indices,
            baskets.indptr_K1.astype(index_type(num_entries)),
        ),
        shape=(len(baskets), baskets.num_items),
    )
    return RelatedItems.from_nearest(find_nearest(matrix_KI, config), num_related=num_related)


def _with_length(config: ItemKnnConfig, num_related: int) -> ItemKnnConfig:
    if num_related < 1:
        raise ValueError(f"num_related is {num_related}; give 1 or more")
    return replace(config, num_neighbors=num_related)
