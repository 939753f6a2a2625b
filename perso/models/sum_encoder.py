"""A user's vector as a weighted sum of item rows: any history or session folds in for free.

With transformed weights w and input vectors e, over history and session alike:

    u = sum_n w_n e_n / (sum_n w_n)^(1/2)

The root keeps vectors of long and short histories on one scale; it changes no ranking.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from perso.models.protocol import WeightedItems

if TYPE_CHECKING:
    from perso.models.factors import FactorModel

# I items, D factors


@dataclass(frozen=True, kw_only=True)
class SumEncoder:
    """Input vectors of the items, and how weights count."""

    kind: ClassVar[str] = "sum"
    input_ID: NDArray[np.float32]
    """What an item adds to the vector of who touched it."""
    weight_unit: float
    """Event weight that counts as one interaction: divide event weights by it."""
    weight_exponent: float
    """Power to which a weight is raised then."""
    recent_boost: float
    """How many past interactions one of the current session outweighs."""

    def solve(
        self,
        model: "FactorModel",
        user_index: int,
        recent: WeightedItems,
        offset_D: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """One sum; see :class:`perso.models.encoder.UserEncoder`. The offset changes nothing."""
        past = float(model.user_weight_U[user_index]) if user_index >= 0 else 0.0
        weights_N = (recent.weights / self.weight_unit) ** self.weight_exponent
        sum_D = np.sqrt(past) * model.own_vector(user_index)
        sum_D = sum_D + weights_N @ self.input_ID[recent.item_indices]
        return np.asarray(sum_D / np.sqrt(past + weights_N.sum()), np.float32)

    def save(self, folder: Path) -> None:
        """Write the input vectors and ``encoder.json`` into the folder."""
        np.save(folder / "encoder_input.npy", self.input_ID)
        scalars = {
            "kind": self.kind,
            "weight_unit": self.weight_unit,
            "weight_exponent": self.weight_exponent,
            "recent_boost": self.recent_boost,
        }
        (folder / "encoder.json").write_text(json.dumps(scalars, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> "SumEncoder":
        """The encoder in a folder that :meth:`save` wrote; memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON.
            KeyError: If a parameter is missing.
        """
        scalars = json.loads((folder / "encoder.json").read_text())
        return cls(
            input_ID=np.load(folder / "encoder_input.npy", mmap_mode="r"),
            weight_unit=float(scalars["weight_unit"]),
            weight_exponent=float(scalars["weight_exponent"]),
            recent_boost=float(scalars["recent_boost"]),
        )
