"""What share of a user's history has each category, brand or other value of an item column."""

# U users, I items, S values of the column

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from perso.data.prepared import Interactions
from perso.models.feature_matrix import FeatureMatrix, matrix_from_columns


def affinity_name(column: str) -> str:
    """The column of a user's shares in the values of an item column."""
    return f"affinity to {column}"


def affinity(interactions: Interactions, items: FeatureMatrix, column: str) -> FeatureMatrix:
    """Shares by user, scaled to length 1; a user without interactions has none.

    Cost: a sparse product, 10 ns a pair and value; memory 12 bytes a user and value met.

    Args:
        interactions: The histories, each pair counting by its weight.
        items: Feature values of every item.
        column: One of its columns.

    Returns:
        One column, named by :func:`affinity_name`.
    """
    weights_UI = sparse.csr_array(
        (interactions.weights, (interactions.user_indices, interactions.item_indices)),
        shape=(interactions.num_users, interactions.num_items),
        dtype=np.float64,
    )
    shares_US = (weights_UI @ items.csr[:, items.span(column)]).tocoo()
    user_E, value_E = (axis.astype(np.int64) for axis in shares_US.coords)
    lengths_U = np.sqrt(np.bincount(user_E, shares_US.data**2, interactions.num_users))
    entries = (
        shares_US.shape[1],
        user_E,
        value_E,
        (shares_US.data / lengths_U[user_E]).astype(np.float32),
    )
    return matrix_from_columns({affinity_name(column): entries}, interactions.num_users)
