"""Alternating least squares on implicit feedback: every epoch solves all users, then all items.

With u and i over the users and items that have interactions, the objective is

    sum over interactions of c_ui (1 - x_u · y_i)²
    + unobserved_weight · sum over all pairs of (x_u · y_i)²
    + sum over users  of l2 (n_u + unobserved_weight · items) ^ l2_exponent · |x_u|²
    + sum over items  of l2 (n_i + unobserved_weight · users) ^ l2_exponent · |y_i|²

    c_ui = (1 + confidence · w_ui / mean w) / (1 + confidence)

where n counts the interactions of a row. Hu, Koren and Volinsky's ``1 + alpha w`` is divided by
its mean, so that a search moves one thing at a time.

One kernel solves users and items, in training and when a new row is folded in. This file decides
the order of things and the shape of the result; :mod:`perso.models.als_solvers` how a row is
solved.

Memory: 8 bytes a pair beside the interactions (their transpose; the history that the model keeps
is the interactions' own arrays), 16 more for a moment while they are counted, and 4 · D bytes a
user and item, twice that where a model is made. An epoch of ``cg`` takes 8 · (steps + 1) · D
operations a pair and 4 · D² a user and item. 100 million pairs, 10 million users, 1 million items,
D = 64: 4 · 10^11 operations, 0.8 GB, 1.6 GB and 2.8 GB.

References:
    Hu et al., Collaborative filtering for implicit feedback datasets, ICDM 2008. Rendle et al.,
    Revisiting the performance of iALS on item recommendation benchmarks, RecSys 2022 (the
    unobserved term over all pairs, penalties by frequency).
"""

# U users, I items, D factors, N new rows

from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions
from perso.models.als_config import AlsConfig
from perso.models.als_encoder import AlsEncoder, AlsObjective
from perso.models.factors import FactorModel, popularity_bias
from perso.models.history import History
from perso.models.progress import OnEpoch, TrainingState, train
from perso.models.request_features import RequestFeatures

__all__ = ["AlsConfig", "fit_als", "fold_in_items", "fold_in_users"]

UNOBSERVED_SHARE: Final = 20.0
"""What all pairs count by default, in what all interactions do. NDCG@20 on validation with 64
factors: Gowalla .0908, .0932, .0915 for 10, 20, 40; Online Retail .0942, .0997, .1020. What Rendle
et al. found best, 0.1 on MovieLens 20M and 0.02 on the Million Song data, is 28 and 14."""

RECENT_BOOST: Final = 10.0
"""Online Retail, half of a new basket known, Recall@20 of the other half: without fold-in .099,
with boost 1 .172, 5 .214, 10 .223, 20 .223, 50 .210; newcomers .033, .231, .234, .229, .219,
.199."""


def fit_als(
    interactions: Interactions,
    config: AlsConfig,
    *,
    warm_start: FactorModel | None = None,
    on_epoch: OnEpoch | None = None,
    resume: TrainingState | None = None,
    num_threads: int | None = None,
) -> FactorModel:
    """Train a factor model.

    The same interactions, config and start give the same model on the same machine, whatever the
    number of threads. The last step solves every user exactly, as the encoder does, and leaves
    the item vectors in the eigenbasis of their Gram matrix, largest direction first.

    Args:
        interactions: What to learn from; not changed.
        config: Sizes, objective and solver.
        warm_start: A model whose vectors to start from, in place of random ones; of the same
            users, items and factors, of any family.
        on_epoch: Called after each epoch with the objective per interaction, which costs about a
            CG step more; what it raises ends the training.
        resume: State of an earlier training of the same data and sizes, to go on from under this
            config's objective and solver; the start is forgotten.
        num_threads: At most so many; as many as PyTorch was given if None.

    Raises:
        ValueError: If there are no interactions, if the warm start or the state has another
            shape, or if the number of threads is below 1.
    """
    from perso.models.als_side import Side, open_threads
    from perso.models.als_training import AlsTraining

    objective, num_users, num_items = objective_of(interactions, config)
    start = _start(interactions, config, warm_start)
    with open_threads(num_threads) as threads:
        training = AlsTraining(
            users=Side.users(interactions, objective, num_items),
            items=Side.items(interactions, objective, num_users),
            user_UD=start[0],
            item_ID=start[1],
            interactions=interactions,
            config=config,
            threads=threads,
        )
        return train(training, training.model, on_epoch=on_epoch, resume=resume)


def fold_in_users(
    model: FactorModel, interactions: Interactions, *, num_threads: int | None = None
) -> NDArray[np.float32]:
    """Vectors of new users, or of known ones from other interactions, shape (N, D).

    The model's own training interactions give its own user vectors.

    Args:
        model: Trained by :func:`fit_als`.
        interactions: Of any N users with the model's items; weights on the scale of training.
        num_threads: As in :func:`fit_als`.

    Raises:
        ValueError: If the model is of another family or has other items.
    """
    from perso.models.als_side import Side, open_threads

    encoder = _encoder_of(model)
    if interactions.num_items != model.num_items:
        raise ValueError(
            f"interactions have {interactions.num_items} items, the model {model.num_items}; "
            "take them over the model's vocabulary"
        )
    user_ND = np.empty((interactions.num_users, model.num_factors), np.float32)
    with open_threads(num_threads) as threads:
        side = Side.users(interactions, encoder.objective, encoder.num_items)
        side.solve(threads, model.item_factors_ID, encoder.gram_D, user_ND)
    return user_ND


def fold_in_items(
    model: FactorModel, interactions: Interactions, *, num_threads: int | None = None
) -> NDArray[np.float32]:
    """Vectors of new items from the users who touched them, shape (N, D).

    They belong to the model's space: their product with a user's vector is a score. What the
    users' vectors were made of does not change.

    Args:
        model: Trained by :func:`fit_als`.
        interactions: Of the model's users with any N items; weights on the scale of training.
        num_threads: As in :func:`fit_als`.

    Raises:
        ValueError: If the model is of another family or has other users.
    """
    from perso.models.als_side import Side, open_threads, rotate

    encoder = _encoder_of(model)
    if interactions.num_users != model.num_users:
        raise ValueError(
            f"interactions have {interactions.num_users} users, the model {model.num_users}; "
            "take them over the model's vocabulary"
        )
    num_users = int(np.count_nonzero(model.user_weight_U))
    user_UD = np.array(model.user_factors_UD)
    item_ND = np.empty((interactions.num_items, model.num_factors), np.float32)
    basis_DD = np.eye(model.num_factors, dtype=np.float32)
    with open_threads(num_threads) as threads:
        gram_D = rotate(threads, user_UD, basis_DD)
        side = Side.items(interactions, encoder.objective, num_users)
        side.solve(threads, user_UD, gram_D, item_ND)
    rotated_back_ND: NDArray[np.float32] = item_ND @ basis_DD.T
    return rotated_back_ND


def objective_of(interactions: Interactions, config: AlsConfig) -> tuple[AlsObjective, int, int]:
    """What training minimizes, and how many users and items have interactions.

    Raises:
        ValueError: If there are no interactions.
    """
    if not len(interactions):
        raise ValueError("there are no interactions to train on; widen the training period")
    num_users, num_items = (
        int(np.count_nonzero(np.bincount(indices)))
        for indices in (interactions.user_indices, interactions.item_indices)
    )
    unobserved_weight = config.unobserved_weight
    if unobserved_weight is None:
        unobserved_weight = min(UNOBSERVED_SHARE * len(interactions) / (num_users * num_items), 1.0)
    objective = AlsObjective(
        l2=config.l2,
        l2_exponent=config.l2_exponent,
        unobserved_weight=unobserved_weight,
        confidence=config.confidence,
        weight_unit=float(interactions.weights.mean(dtype=np.float64)),
    )
    return objective, num_users, num_items


def model_of(
    interactions: Interactions,
    objective: AlsObjective,
    *,
    user_UD: NDArray[np.float32],
    item_ID: NDArray[np.float32],
    gram_D: NDArray[np.float32],
) -> FactorModel:
    """The model of trained vectors; the last solve was the users', exactly.

    Args:
        interactions: What was trained on.
        objective: What was minimized.
        user_UD: Users' vectors, in the items' basis; become the model's.
        item_ID: Items' vectors, in the eigenbasis of their Gram matrix; become the model's.
        gram_D: The diagonal of that matrix.
    """
    mass_U = np.bincount(interactions.user_indices, interactions.weights, interactions.num_users)
    return FactorModel(
        user_factors_UD=user_UD,
        user_bias_U=np.zeros(len(user_UD), np.float32),
        user_weight_U=(mass_U / objective.weight_unit).astype(np.float32),
        item_factors_ID=item_ID,
        item_bias_I=popularity_bias(interactions),
        global_bias=0.0,
        encoder=AlsEncoder(
            gram_D=gram_D,
            num_items=int(np.count_nonzero(np.bincount(interactions.item_indices))),
            objective=objective,
            history=History.from_interactions(interactions),
            recent_boost=RECENT_BOOST,
        ),
        request_features=RequestFeatures(num_factors=item_ID.shape[1]),
    )


def _start(
    interactions: Interactions, config: AlsConfig, warm_start: FactorModel | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """User and item vectors to improve; an item without interactions has none."""
    shape_U, shape_I = (
        (num_rows, config.num_factors)
        for num_rows in (interactions.num_users, interactions.num_items)
    )
    if warm_start is None:
        user_UD = np.zeros(shape_U, np.float32)
        item_ID = np.random.default_rng(config.seed).standard_normal(shape_I, np.float32)
        item_ID *= np.float32(config.init_std / np.sqrt(config.num_factors))
    else:
        shapes = (warm_start.user_factors_UD.shape, warm_start.item_factors_ID.shape)
        if shapes != (shape_U, shape_I):
            raise ValueError(
                f"the warm start has users and items of shapes {shapes[0]} and {shapes[1]}, "
                f"this training {shape_U} and {shape_I}; give a model of the same vocabularies "
                "and num_factors"
            )
        user_UD = np.array(warm_start.user_factors_UD, np.float32)
        item_ID = np.array(warm_start.item_factors_ID, np.float32)
    is_touched_I = np.zeros(len(item_ID), np.bool_)
    is_touched_I[interactions.item_indices] = True
    item_ID[~is_touched_I] = 0
    return user_UD, item_ID


def _encoder_of(model: FactorModel) -> AlsEncoder:
    if not isinstance(model.encoder, AlsEncoder):
        raise ValueError(
            f"the model's encoder is {type(model.encoder).__name__}; only fit_als trains models "
            "that rows fold into"
        )
    return model.encoder
