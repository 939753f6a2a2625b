"""Segments as models and metrics see them, read through the feature store like everyone else."""

from datetime import datetime

from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.features.store import Features


def user_groups(features: Features, users: Vocabulary, *, as_of: datetime) -> UserGroups:
    """The segment that each user was known to be in at an instant.

    Returns:
        Groups by ``user_index``; users nothing was known about have none.

    Raises:
        FeatureStoreError: If no rows were ever written or nothing is applied.
    """
    rows = features.read_historical(users.ids.to_pylist(), as_of=as_of)
    return UserGroups.from_names(rows["segment"].to_pylist())
