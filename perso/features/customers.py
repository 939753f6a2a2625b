"""Customers as models and metrics see them, read through the feature store like everyone else."""

from datetime import datetime
from typing import Final

import pyarrow as pa

from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.dictionary import RECOMMENDER_V1
from perso.features.store import Features

ATTRIBUTES: Final = (
    "cluster",
    "engagement_level",
    "top_categories",
    "top_brands",
    "top_lifestyle_tags",
)
"""The columns of ``recommender_v1`` that a model may learn from, beside the segment."""


def read_customers(
    features: Features, users: Vocabulary, *, as_of: datetime
) -> tuple[UserGroups, pa.Table]:
    """What was known of each user at an instant: the segment, and ATTRIBUTES.

    Returns:
        Groups and attributes by ``user_index``; a user nothing was known about has no group and
        nulls.

    Raises:
        FeatureStoreError: If no rows were ever written or nothing is applied.
    """
    rows = features.read_historical(users.ids.to_pylist(), as_of=as_of, service=RECOMMENDER_V1.name)
    return UserGroups.from_names(rows["segment"].to_pylist()), rows.select(ATTRIBUTES)
