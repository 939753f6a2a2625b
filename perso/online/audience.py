"""Whom lists are written for, and what is known of them beside the model.

Decides which of a customer's features a batch of lists needs and when two audiences are the same;
it reads them through the feature store, as training and the service do.
"""

# U users, B users of the audience

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.data.fingerprints import add_values
from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.features.customers import read_customers
from perso.features.store import Features


@dataclass(frozen=True, kw_only=True)
class Audience:
    """Users in the order of their lists: 12 bytes a user beside the attributes."""

    user_indices_B: NDArray[np.int64]
    """Rows of the user vocabulary, distinct."""
    segment_names: tuple[str, ...]
    """Names of segments."""
    segment_codes_B: NDArray[np.int32]
    """Place of each user's segment in ``segment_names``, -1 where unknown."""
    attributes: pa.Table | None = None
    """What the feature store knows of each user, one row a user; None: nothing, or not asked."""

    def __len__(self) -> int:
        return len(self.user_indices_B)

    @classmethod
    def of(
        cls,
        user_indices_B: NDArray[np.int64],
        *,
        segments: UserGroups | None = None,
        attributes: pa.Table | None = None,
    ) -> "Audience":
        """Some users of a vocabulary.

        Args:
            user_indices_B: Whom, distinct.
            segments: Of every user of the vocabulary; None: nobody's is known.
            attributes: Of every user of the vocabulary, row ``i`` for user_index ``i``.
        """
        return cls(
            user_indices_B=user_indices_B,
            segment_names=segments.names if segments else (),
            segment_codes_B=segments.codes_U[user_indices_B]
            if segments
            else np.full(len(user_indices_B), -1, np.int32),
            attributes=None if attributes is None else attributes.take(pa.array(user_indices_B)),
        )

    def rows(self, start: int, stop: int) -> "Audience":
        """The users from one place up to another."""
        return Audience(
            user_indices_B=self.user_indices_B[start:stop],
            segment_names=self.segment_names,
            segment_codes_B=self.segment_codes_B[start:stop],
            attributes=None
            if self.attributes is None
            else self.attributes.slice(start, stop - start),
        )

    def segment_of(self, place: int) -> str | None:
        """The segment of one user, None where unknown."""
        code = self.segment_codes_B[place]
        return None if code < 0 else self.segment_names[code]

    def fingerprint(self) -> str:
        """A key of users, segments and attributes: 16 hexadecimal characters."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update("\0".join(self.segment_names).encode())
        digest.update(np.ascontiguousarray(self.user_indices_B).data)
        digest.update(np.ascontiguousarray(self.segment_codes_B).data)
        if self.attributes is not None:
            for name in self.attributes.column_names:
                digest.update(name.encode())
                add_values(self.attributes[name].combine_chunks(), digest)
        return digest.hexdigest()


def read_audience(
    features: Features,
    users: Vocabulary,
    user_indices_B: NDArray[np.int64],
    *,
    as_of: datetime,
    with_attributes: bool,
) -> Audience:
    """Users with the segment that the feature store knows of each at an instant.

    Before the first `perso segments run` nobody has one. Memory: that of one read of the whole
    vocabulary, as before a training.

    Args:
        features: The store.
        users: The vocabulary.
        user_indices_B: Whom, distinct.
        as_of: Aware instant, such as now.
        with_attributes: Whether attributes are read too: rules and models with user features ask
            for them.

    Raises:
        FeatureStoreError: If the store cannot be read.
    """
    if not features.written():
        return Audience.of(user_indices_B)
    segments, attributes = read_customers(features, users, as_of=as_of)
    return Audience.of(
        user_indices_B, segments=segments, attributes=attributes if with_attributes else None
    )


def select_users(users: Vocabulary, user_ids: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Rows of the given users in ascending order, each once, and how many ids are unknown."""
    rows = users.indices_of(user_ids)
    return np.unique(rows[rows >= 0]), int((rows < 0).sum())
