"""Factor models side by side: their scores add up, so their vectors concatenate.

A spectral model knows the smooth, popular structure, a learned one the rare, least squares what
lies between; their errors differ.
Each part's user vectors are brought to unit length and its item vectors to one mean length, so
that a weight means the same for every user and every data set. The result is one factor model
of the parts' widths together: served, folded in and searched like any other.

Cost: that of the parts. Memory twice that of the parts: their own vectors stay for fold-in.
"""

# U users, I items, D factors

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions
from perso.models.als import fit_als
from perso.models.blend_config import BlendConfig
from perso.models.block_encoder import BlockEncoder
from perso.models.factors import FactorModel, popularity_bias
from perso.models.progress import OnEpoch, Progress
from perso.models.request_features import RequestFeatures
from perso.models.sgd import fit_sgd
from perso.models.spectral import fit_spectral


def fit_blend(
    interactions: Interactions,
    config: BlendConfig,
    *,
    on_epoch: OnEpoch | None = None,
) -> FactorModel:
    """The spectral model, the learned one and that of least squares as one.

    Args:
        interactions: What to learn from; not changed.
        config: Settings of the parts, and their weights.
        on_epoch: Called after each epoch of the learned part, with neither model nor state: there
            is no blend before all parts are there.

    Raises:
        ValueError: See :func:`perso.models.spectral.fit_spectral` and
            :func:`perso.models.sgd.fit_sgd`.
    """

    def report(progress: Progress) -> None:
        if on_epoch is not None:
            on_epoch(replace(progress, model=None, state=None))

    parts = [fit_spectral(interactions, config.spectral)]
    parts.append(fit_sgd(interactions, config.learned, on_epoch=report))
    weights = [config.spectral_weight, 1.0]
    if config.als_weight:
        parts.append(fit_als(interactions, config.als))
        weights.append(config.als_weight)
    return blend_models(
        tuple(parts), tuple(weights), interactions, popularity_weight=config.popularity_weight
    )


def blend_models(
    parts: tuple[FactorModel, ...],
    weights: tuple[float, ...],
    interactions: Interactions,
    *,
    popularity_weight: float = 0.0,
) -> FactorModel:
    """Trained parts as one model.

    Args:
        parts: Models over the same users and items, without item biases that matter.
        weights: Weight of each part's scores.
        interactions: What the parts were trained on, for what is popular.
        popularity_weight: Weight of the logarithm of each item's interactions.

    Raises:
        ValueError: If the parts disagree on users or items.
    """
    sizes = {(part.num_users, part.num_items) for part in parts}
    if len(sizes) > 1:
        raise ValueError(f"the parts disagree on users and items: {sorted(sizes)}")
    scaled = [
        part.item_factors_ID * (weight / _mean_length(part.item_factors_ID))
        for part, weight in zip(parts, weights, strict=True)
    ]
    user_UD = np.hstack([_unit(part.user_factors_UD) for part in parts])
    return FactorModel(
        user_factors_UD=user_UD,
        user_bias_U=np.zeros(len(user_UD), np.float32),
        user_weight_U=parts[0].user_weight_U,
        item_factors_ID=np.hstack(scaled).astype(np.float32),
        item_bias_I=popularity_bias(interactions)
        + popularity_weight * _log_popularity(interactions),
        global_bias=0.0,
        encoder=BlockEncoder(parts=parts),
        request_features=RequestFeatures(num_factors=user_UD.shape[1]),
    )


def _unit(vectors_UD: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths_U1 = np.linalg.norm(vectors_UD, axis=1, keepdims=True)
    return np.asarray(vectors_UD / np.maximum(lengths_U1, 1e-12), np.float32)


def _mean_length(vectors_ID: NDArray[np.float32]) -> float:
    """Root of the mean squared length of the vectors that are there."""
    squares_I = np.square(vectors_ID).sum(1)
    return float(np.sqrt(squares_I[squares_I > 0].mean(dtype=np.float64)))


def _log_popularity(interactions: Interactions) -> NDArray[np.float32]:
    """Logarithm of each item's weight in average interactions; that of one where it has less."""
    demand_I = np.bincount(interactions.item_indices, interactions.weights, interactions.num_items)
    log_I: NDArray[np.float64] = np.log(np.maximum(demand_I / interactions.weights.mean(), 1.0))
    return log_I.astype(np.float32)
