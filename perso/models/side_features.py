"""Feature values of users, visits and items, aligned with the pairs that training reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perso.models.feature_matrix import FeatureMatrix


@dataclass(frozen=True, kw_only=True)
class SideFeatures:
    """What is known beside who touched what; nothing by default."""

    users: FeatureMatrix | None = None
    """By user_index: what stays with a user between requests."""
    visits: FeatureMatrix | None = None
    """By visit (a user in one context): what a request tells."""
    visit_of_pair: NDArray[np.int64] | None = None
    """Visit of each pair; given with ``visits``."""
    items: FeatureMatrix | None = None
    """By item_index."""
    from_history: frozenset[str] = frozenset()
    """Columns that only users with a history have: steps that drop own vectors drop them too."""
