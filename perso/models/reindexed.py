"""A served model asked about another dataset's users and items.

A champion may come from older data, whose vocabularies have other rows. Here it answers over the
rows of newer ones as the service would with it: users it does not know are strangers and get the
popularity it serves to strangers, items it does not know cannot be in its lists.
"""

# U users and I items of the newer dataset, B users of one call

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.data.vocabulary import Vocabulary
from perso.models.bundle import Bundle
from perso.models.popularity import PopularityModel
from perso.models.protocol import PersonalModel, UserBatch


@dataclass(frozen=True, kw_only=True)
class ReindexedModel:
    """One model and its fallback behind the rows of other vocabularies."""

    model: PersonalModel
    popularity: PopularityModel
    """What a stranger is served."""
    own_user_U: NDArray[np.int64]
    """The model's row of each user, -1 for whom it does not know."""
    own_item_I: NDArray[np.int64]
    """The model's row of each item, -1 for what it does not know."""

    @classmethod
    def of(cls, bundle: Bundle, *, users: Vocabulary, items: Vocabulary) -> "ReindexedModel":
        """The bundle's model over the rows of ``users`` and ``items``."""
        return cls(
            model=bundle.model,
            popularity=bundle.popularity,
            own_user_U=own_rows(users, bundle.users),
            own_item_I=own_rows(items, bundle.items),
        )

    @property
    def num_items(self) -> int:
        """Length of a score row."""
        return len(self.own_item_I)

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Scores of every item for each user, shape (B, I); ``-inf`` for an unknown item."""
        is_named_B = batch.user_indices >= 0
        own_B = np.where(is_named_B, self.own_user_U[batch.user_indices], -1)
        own = replace(batch, user_indices=own_B)
        scores_BJ = self.model.score(own)
        is_stranger_B = self._are_strangers(own)
        if is_stranger_B.any():
            fallback_BJ = self.popularity.score(own)
            scores_BJ = np.where(is_stranger_B[:, np.newaxis], fallback_BJ, scores_BJ)
        scores_BI = np.full((len(own_B), self.num_items), -np.inf, np.float32)
        is_known_I = self.own_item_I >= 0
        scores_BI[:, is_known_I] = scores_BJ[:, self.own_item_I[is_known_I]]
        return scores_BI

    def _are_strangers(self, own: UserBatch) -> NDArray[np.bool_]:
        """Whom the service would not answer by the model, shape (B,)."""
        segments = own.segment_names or (None,) * len(own.user_indices)
        contexts = [
            {name: value for name, values in own.context.items() if (value := values[row])}
            for row in range(len(own.user_indices))
        ]
        return np.array(
            [
                not self.model.knows(int(user))
                and not self.model.knows_request(segment=segment, context=context)
                for user, segment, context in zip(own.user_indices, segments, contexts, strict=True)
            ],
            np.bool_,
        )


def own_rows(newer: Vocabulary, own: Vocabulary) -> NDArray[np.int64]:
    """The row in ``own`` of each id of ``newer``, -1 where it has none, shape (len(newer),)."""
    found = pc.index_in(newer.ids.cast(pa.string()), value_set=own.ids.cast(pa.string()))
    rows: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
    return rows.astype(np.int64)
