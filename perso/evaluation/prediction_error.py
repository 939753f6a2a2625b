"""How far predicted ratings or weights lie from the held-out ones."""

# P held-out pairs

from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions
from perso.evaluation.metrics import mae, rmse
from perso.models.factors import FactorModel
from perso.models.protocol import Scorer

_PAIRS_AT_ONCE: Final = 1 << 18


def prediction_errors(
    model: Scorer, train: Interactions, held_out: Interactions
) -> tuple[dict[str, float], int]:
    """``rmse`` and ``mae`` over held-out pairs of known users and items, and their number.

    A model of ratings is measured on the held-out pairs that have one, of users and items that
    were rated in ``train``; a model of weights on all held-out pairs of users and items of
    ``train``, those it was trained on included. A model that only ranks has neither: its scores
    have no scale. Nor is there an error without a pair to measure.
    """
    if not isinstance(model, FactorModel) or model.predicts is None:
        return {}, 0
    if model.predicts == "ratings":
        actual, is_train = held_out.ratings, ~np.isnan(train.ratings)
    else:
        actual, is_train = held_out.weights, np.ones(len(train), bool)
    known_U = np.bincount(train.user_indices[is_train], minlength=train.num_users) > 0
    known_I = np.bincount(train.item_indices[is_train], minlength=train.num_items) > 0
    pairs: NDArray[np.int64] = np.flatnonzero(
        ~np.isnan(actual) & known_U[held_out.user_indices] & known_I[held_out.item_indices]
    )
    if not len(pairs):
        return {}, 0
    predicted_P = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        predicted_P[start : start + len(part)] = model.predict(
            held_out.user_indices[part], held_out.item_indices[part]
        )
    actual_P = actual[pairs]
    return {"rmse": rmse(predicted_P, actual_P), "mae": mae(predicted_P, actual_P)}, len(pairs)
