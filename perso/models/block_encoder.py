"""A user's vector as the unit vectors of several models, one behind the other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from perso.models.protocol import WeightedItems

if TYPE_CHECKING:
    from perso.models.factors import FactorModel

# D factors of all parts


@dataclass(frozen=True, kw_only=True)
class BlockEncoder:
    """The parts, each with its own rule; item vectors carry the parts' weights."""

    kind: ClassVar[str] = "blocks"
    parts: tuple["FactorModel", ...]
    """Whole models: a part's rule needs its own vectors' length, which the blend has lost."""

    @property
    def recent_boost(self) -> float:
        """The parts' mean."""
        return float(np.mean([part.recent_boost for part in self.parts]))

    def solve(
        self,
        model: "FactorModel",
        user_index: int,
        recent: WeightedItems,
        offset_D: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Each part's solution; see :class:`perso.models.encoder.UserEncoder`."""
        solved = []
        for part in self.parts:
            none_D = np.zeros(part.num_factors, np.float32)
            own_D = part.encoder.solve(part, user_index, recent, none_D)
            solved.append(own_D / max(float(np.linalg.norm(own_D)), 1e-12))
        return np.concatenate(solved)

    def save(self, folder: Path) -> None:
        """Write each part into a folder of its own, and ``encoder.json``."""
        for place, part in enumerate(self.parts):
            (folder / f"part_{place}").mkdir()
            part.save(folder / f"part_{place}")
        text = json.dumps({"kind": self.kind, "num_parts": len(self.parts)}, sort_keys=True)
        (folder / "encoder.json").write_text(text)

    @classmethod
    def load(cls, folder: Path) -> "BlockEncoder":
        """The encoder in a folder that :meth:`save` wrote; memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON.
            KeyError: If a parameter is missing.
        """
        from perso.models.factors import FactorModel

        num_parts = json.loads((folder / "encoder.json").read_text())["num_parts"]
        return cls(
            parts=tuple(FactorModel.load(folder / f"part_{place}") for place in range(num_parts))
        )
