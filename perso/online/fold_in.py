"""A user vector that already knows the newest events, without a retrain.

One Newton step of the training objective for one user, every item factor fixed, from the trained
vector ``u0`` (zero for a stranger):

    A u = (W0 C + l2 I) u0 + sum_n w_n r_n (v_n - center),   A = (W0 + sum_n w_n) C + l2 I

``C`` is the curvature of the loss and ``W0`` the history that ``u0`` stands for; both come with
the model (see :mod:`perso.models.fold_in_params`), so a request costs one D × D solve, whatever
the size of the catalogue. ``r`` is 1 for ``softmax`` and the unexplained stars for ``rating``.
Folding a whole history into a stranger gives that user's trained vector: training ends with this
same formula.

Legend: D factors, I items, N items of the session.
"""

import numpy as np
from numpy.typing import NDArray

from perso.models.factors import FactorModel
from perso.online.session import Session


class FoldIn:
    """User vectors and scores around one factor model. Holds no state between calls."""

    def __init__(self, factors: FactorModel) -> None:
        """Take a trained model and the constants that it carries."""
        self._factors = factors
        self._params = params = factors.fold_in
        self._center_D = np.asarray(params.center_D, np.float64)
        self._curvature_DD = np.asarray(params.curvature_DD, np.float64)
        self._l2_DD = params.l2 * np.eye(len(self._center_D))

    def knows(self, user_index: int) -> bool:
        """Whether a user has a history behind the trained vector."""
        return user_index >= 0 and self._history(user_index) > 0

    def user_vector(self, user_index: int, session: Session) -> NDArray[np.float32]:
        """The solved vector, shape (D,); exactly the trained one for an empty session.

        Args:
            user_index: Row of the trained users, -1 for a stranger.
            session: Weighted items of events that training has not seen.
        """
        trained_D = self._trained(user_index)
        if not len(session.item_indices):
            return np.asarray(trained_D, np.float32)
        history = self._history(user_index)
        weights_N = session.weights / self._params.weight_unit
        items_ND = self._factors.item_factors_ID[session.item_indices] - self._center_D
        pull_D = (weights_N * self._targets(user_index, session)) @ items_ND
        keep_DD = history * self._curvature_DD + self._l2_DD
        solved_D: NDArray[np.float64] = np.linalg.solve(
            keep_DD + weights_N.sum() * self._curvature_DD, keep_DD @ trained_D + pull_D
        )
        return np.asarray(solved_D, np.float32)

    def scores(self, user_index: int, session: Session) -> NDArray[np.float32]:
        """Scores of every item for the solved vector, shape (I,)."""
        user_D = self.user_vector(user_index, session)
        scores_1I = self._factors.score_vectors(user_D[np.newaxis])
        return np.asarray(scores_1I[0])

    def _targets(self, user_index: int, session: Session) -> NDArray[np.float64]:
        """What each item's factor has to explain, shape (N,)."""
        if self._params.loss == "softmax":
            return np.ones(len(session.item_indices))
        stars_N = np.where(np.isnan(session.ratings), self._params.positive_rating, session.ratings)
        user_bias = self._factors.user_bias_U[user_index] if user_index >= 0 else 0.0
        explained_N = self._factors.item_bias_I[session.item_indices] + user_bias
        residuals_N: NDArray[np.float64] = stars_N - self._factors.global_bias - explained_N
        return residuals_N

    def _trained(self, user_index: int) -> NDArray[np.float64]:
        if user_index < 0:
            return np.zeros(len(self._center_D))
        return np.asarray(self._factors.user_factors_UD[user_index], np.float64)

    def _history(self, user_index: int) -> float:
        return float(self._factors.user_weight_U[user_index]) if user_index >= 0 else 0.0
