"""What a request needs to solve a user's vector from events newer than the model.

Training decides the numbers here; ``perso.online`` does the solving. Both losses share one normal
equation of size D × D, in which the items enter through an average curvature C, so that a request
never looks at the whole catalogue. With W the weight of the events n, targets t and item vectors
v:

    (W C + l2 I) u = sum_n w_n t_n (v_n - center)

- ``softmax``: one Newton step of the training objective from the zero vector, where the softmax
  is the popularity that the item biases have learned: center and C are mean and covariance of
  the item vectors under it, every target is 1. Training ends with this very step, therefore
  folding in a user's whole history gives the trained vector again.
- ``rating``: the ridge regression of the rating residuals t, with C the mean second moment of
  the rated items in place of each user's own; the center is 0.

References:
    Böhning, Multinomial logistic regression algorithm, AISM 44, 1992 (a fixed curvature in
    place of the exact Hessian). Hu et al., Collaborative filtering for implicit feedback
    datasets, ICDM 2008 (users solved from fixed items).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Loss = Literal["softmax", "rating"]

MIN_PRIOR: Final = 1e-3
"""Least precision of the prior, per interaction of an average user: with none at all a user of a
single event could not be solved."""

# D factors


@dataclass(frozen=True, kw_only=True)
class FoldInParams:
    """The item side, summed up for solving users."""

    loss: Loss
    """The loss that trained the item factors."""
    weight_unit: float
    """Event weight that counts as one interaction: divide event weights by it."""
    l2: float
    """Precision of the prior: how strongly a vector is held at zero."""
    center_D: NDArray[np.float32]
    """What is subtracted from an item's vector: the popularity-weighted mean; 0 for ratings."""
    curvature_DD: NDArray[np.float32]
    """Curvature of the loss per unit of weight, averaged over the demand for items."""
    recent_boost: float
    """How many past interactions one of the current session outweighs."""
    positive_rating: float = float("nan")
    """Rating that an event without stars stands for; ``nan`` unless the loss is ``rating``."""

    def save(self, folder: Path) -> None:
        """Write two arrays and ``fold_in.json`` into the folder."""
        np.save(folder / "fold_in_center.npy", self.center_D)
        np.save(folder / "fold_in_curvature.npy", self.curvature_DD)
        scalars = {
            "loss": self.loss,
            "weight_unit": self.weight_unit,
            "l2": self.l2,
            "positive_rating": None if np.isnan(self.positive_rating) else self.positive_rating,
            "recent_boost": self.recent_boost,
        }
        (folder / "fold_in.json").write_text(json.dumps(scalars, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> "FoldInParams":
        """The parameters in a folder that :meth:`save` wrote.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON.
            KeyError: If a parameter is missing.
        """
        scalars = json.loads((folder / "fold_in.json").read_text())
        positive_rating = scalars["positive_rating"]
        return cls(
            loss=scalars["loss"],
            weight_unit=float(scalars["weight_unit"]),
            l2=float(scalars["l2"]),
            center_D=np.load(folder / "fold_in_center.npy"),
            curvature_DD=np.load(folder / "fold_in_curvature.npy"),
            positive_rating=float("nan") if positive_rating is None else float(positive_rating),
            recent_boost=float(scalars["recent_boost"]),
        )
