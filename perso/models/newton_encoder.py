"""A user's vector by one Newton step of the training objective, every item vector fixed.

Both losses share one normal equation of size D × D, in which the items enter through an average
curvature C, so that a request never looks at the whole catalogue. With W the weight of the events
n, targets t, item vectors v and the offset o that features add to every score:

    (W C + l2 I) u = sum_n w_n t_n (v_n - center) - W C o

- ``softmax``: one Newton step from the zero vector, where the softmax is the popularity that the
  item biases have learned: center and C are mean and covariance of the item vectors under it,
  every target is 1. Training ends with this very step, therefore folding in a user's whole
  history gives the trained vector again.
- ``squared``: the ridge regression of the rating residuals t, with C the mean second moment of
  the rated items in place of each user's own; the center is 0.

From a trained vector ``u0`` behind which a weight ``W0`` stands, the same equation goes on:

    A u = (W0 C + l2 I) u0 + sum_n w_n t_n (v_n - center) - W C o,   A = (W0 + W) C + l2 I

References:
    Böhning, Multinomial logistic regression algorithm, AISM 44, 1992 (a fixed curvature in
    place of the exact Hessian). Hu et al., Collaborative filtering for implicit feedback
    datasets, ICDM 2008 (users solved from fixed items).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perso.models.protocol import WeightedItems

if TYPE_CHECKING:
    from perso.models.factors import FactorModel

Loss = Literal["softmax", "squared"]

MIN_PRIOR: Final = 1e-3
"""Least precision of the prior, per interaction of an average user: with none at all a user of a
single event could not be solved."""

# D factors, N items of one user


@dataclass(frozen=True, kw_only=True)
class NewtonEncoder:
    """The item side, summed up for solving users."""

    kind: ClassVar[str] = "newton"
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
    """Rating that an event without stars stands for; ``nan`` unless the loss is ``squared``."""

    def solve(
        self,
        model: "FactorModel",
        user_index: int,
        recent: WeightedItems,
        offset_D: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """One D × D solve; see :class:`perso.models.encoder.UserEncoder`."""
        curvature_DD = np.asarray(self.curvature_DD, np.float64)
        history = float(model.user_weight_U[user_index]) if user_index >= 0 else 0.0
        weights_N = recent.weights / self.weight_unit
        if model.predicts == "weights":  # then a weight is what a pair has to explain
            weights_N = np.ones(len(recent))
        items_ND = model.item_factors_ID[recent.item_indices] - np.asarray(
            self.center_D, np.float64
        )
        pull_D = (weights_N * self._targets(model, user_index, recent)) @ items_ND
        weight = weights_N.sum()
        pull_D -= weight * (curvature_DD @ offset_D)
        keep_DD = history * curvature_DD
        keep_DD.flat[:: len(keep_DD) + 1] += self.l2
        trained_D = np.asarray(model.own_vector(user_index), np.float64)
        solved_D = np.linalg.solve(keep_DD + weight * curvature_DD, keep_DD @ trained_D + pull_D)
        return np.asarray(solved_D, np.float32)

    def _targets(
        self, model: "FactorModel", user_index: int, recent: WeightedItems
    ) -> NDArray[np.float64]:
        """What each item's factor has to explain, shape (N,)."""
        if self.loss == "softmax":
            return np.ones(len(recent))
        given_N = recent.weights if model.predicts == "weights" else recent.ratings
        given_N = np.where(np.isnan(given_N), self.positive_rating, given_N)
        user_bias = model.user_bias_U[user_index] if user_index >= 0 else 0.0
        explained_N = model.item_bias_I[recent.item_indices] + user_bias
        residuals_N: NDArray[np.float64] = given_N - model.global_bias - explained_N
        return residuals_N

    def save(self, folder: Path) -> None:
        """Write two arrays and ``encoder.json`` into the folder."""
        np.save(folder / "encoder_center.npy", self.center_D)
        np.save(folder / "encoder_curvature.npy", self.curvature_DD)
        scalars = {
            "kind": self.kind,
            "loss": self.loss,
            "weight_unit": self.weight_unit,
            "l2": self.l2,
            "positive_rating": None if np.isnan(self.positive_rating) else self.positive_rating,
            "recent_boost": self.recent_boost,
        }
        (folder / "encoder.json").write_text(json.dumps(scalars, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> "NewtonEncoder":
        """The encoder in a folder that :meth:`save` wrote.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON.
            KeyError: If a parameter is missing.
        """
        scalars = json.loads((folder / "encoder.json").read_text())
        positive_rating = scalars["positive_rating"]
        return cls(
            loss=scalars["loss"],
            weight_unit=float(scalars["weight_unit"]),
            l2=float(scalars["l2"]),
            center_D=np.load(folder / "encoder_center.npy"),
            curvature_DD=np.load(folder / "encoder_curvature.npy"),
            positive_rating=float("nan") if positive_rating is None else float(positive_rating),
            recent_boost=float(scalars["recent_boost"]),
        )
