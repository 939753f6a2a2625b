"""How a user's vector follows from what the user did: one rule per family, one protocol.

Training ends with the rule that the request path uses for newer events, so folding a whole
history into a stranger gives that user's trained vector.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from perso.models.protocol import WeightedItems

if TYPE_CHECKING:
    from perso.models.factors import FactorModel

# D factors


class UserEncoder(Protocol):
    """Solves one user's vector with every item vector fixed."""

    @property
    def recent_boost(self) -> float:
        """How many past interactions one of the current session outweighs."""
        ...

    def solve(
        self,
        model: "FactorModel",
        user_index: int,
        recent: WeightedItems,
        offset_D: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The user's own vector after what is new, shape (D,), without the offset.

        Args:
            model: The trained model that this encoder belongs to.
            user_index: Row of the trained users, -1 for a stranger.
            recent: At least one item.
            offset_D: What context and features add to the user's own vector in every score; the
                own vector has to explain only the rest. Zero for models without features.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write ``encoder.json``, whose ``kind`` names the rule, and arrays into the folder."""
        ...
