"""Truncated SVD of the degree-normalised interactions: a low-pass filter over the item graph.

With R the (weighted) interactions and D the weights of users and items, the right singular
vectors V of ``Du^-a R Di^-b`` are the smooth directions of the item graph. A user's scores are
``R_u · Di^-c V · V^T Di^d``: the history is weighed, projected and spread, all by item rows, so
that user vectors need no training of their own.

The SVD is a randomized subspace iteration whose steps are orthonormalised through D × D Gram
matrices: two sparse and two thin products a pass, no Householder steps.

Cost: a pass takes 4 · pairs · D + 4 · items · D² operations and 12 · (users + items) · D
bytes: 100 million pairs, 10 million users, 1 million items, D = 256: 4 · 10^11 operations, 34 GB.

References:
    Shen et al., How powerful is graph convolution for recommendation? (GF-CF), CIKM 2021. Cremonesi
    et al., Performance of recommender algorithms on top-N tasks (PureSVD), RecSys 2010. Halko et
    al., Finding structure with randomness, SIAM Review 2011.
"""

# U users, I items, D factors kept, S factors iterated

import warnings
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perso.data.prepared import Interactions
from perso.models.device import find_device
from perso.models.factors import FactorModel, popularity_bias
from perso.models.request_features import RequestFeatures
from perso.models.spectral_config import SpectralConfig
from perso.models.sum_encoder import SumEncoder

RECENT_BOOST: Final = 10.0

_OVERSAMPLING: Final = 16
"""Directions iterated beyond those kept: they sharpen the last of these."""
_LEAST_SQUARE: Final = 1e-7
"""Squared length, relative to the largest, that float32 tells from rounding."""


def fit_spectral(interactions: Interactions, config: SpectralConfig) -> FactorModel:
    """A model whose item vectors are the scaled singular vectors.

    Raises:
        ValueError: If there are no interactions, or CUDA is asked for and absent.
    """
    if not len(interactions):
        raise ValueError("there are no interactions to train on; widen the training period")
    device = find_device(config.device)
    weight_unit = float(interactions.weights.mean(dtype=np.float64))
    weights = (interactions.weights / weight_unit) ** np.float32(config.weight_exponent)
    mass_U = np.bincount(interactions.user_indices, weights, interactions.num_users)
    mass_I = np.bincount(interactions.item_indices, weights, interactions.num_items)
    singular_D, vectors_ID = truncated_svd(
        _scaled(interactions, weights, mass_U, mass_I, config, device),
        config.num_factors,
        num_iterations=config.num_iterations,
        seed=config.seed,
    )
    strength_D = (singular_D / singular_D[0]) ** config.spectrum_exponent
    vectors_ID = vectors_ID.cpu().numpy()
    input_ID = vectors_ID * _powers(mass_I, -config.input_exponent)[:, None]
    input_ID *= strength_D.cpu().numpy()
    counts = _csr(interactions, weights, device)
    user_UD = (counts @ torch.from_numpy(input_ID).to(device)).cpu().numpy()
    user_UD *= _powers(mass_U, -0.5)[:, None]
    return FactorModel(
        user_factors_UD=user_UD,
        user_bias_U=np.zeros(len(user_UD), np.float32),
        user_weight_U=mass_U.astype(np.float32),
        item_factors_ID=vectors_ID * _powers(mass_I, config.output_exponent)[:, None],
        item_bias_I=popularity_bias(interactions),
        global_bias=0.0,
        encoder=SumEncoder(
            input_ID=input_ID,
            weight_unit=weight_unit,
            weight_exponent=config.weight_exponent,
            recent_boost=RECENT_BOOST,
        ),
        request_features=RequestFeatures(num_factors=user_UD.shape[1]),
    )


def spectral_start(
    interactions: Interactions, num_factors: int, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """User and item vectors for another training to start from, padded with zeros to width D."""
    config = SpectralConfig(num_factors=num_factors, seed=seed, device="cpu")
    model = fit_spectral(interactions, config)
    missing = ((0, 0), (0, num_factors - model.num_factors))
    return np.pad(model.user_factors_UD, missing), np.pad(model.item_factors_ID, missing)


def truncated_svd(
    matrix_UI: Tensor, num_factors: int, *, num_iterations: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Largest singular values, descending, shape (D,), and right singular vectors, (I, D).

    Args:
        matrix_UI: Sparse, compressed rows, float32.
        num_factors: Values wanted; fewer come back where the matrix has a smaller rank.
        num_iterations: Passes after the first.
        seed: Start of the subspace.
    """
    num_users, num_items = matrix_UI.shape
    rank = min(num_factors, num_users, num_items)
    width = min(num_factors + _OVERSAMPLING, num_users, num_items)
    transposed_IU = matrix_UI.to_sparse_coo().t().to_sparse_csr()
    generator = torch.Generator().manual_seed(seed)
    basis_IS = torch.randn(num_items, width, generator=generator).to(matrix_UI.device)
    if width == num_items:  # a square random start is nearly singular, all of the space is not
        basis_IS = torch.eye(num_items, device=matrix_UI.device)
    for _ in range(num_iterations):
        basis_IS = _orthonormal(transposed_IU @ (matrix_UI @ basis_IS))
    basis_IS = _orthonormal(basis_IS)  # once more: it repairs what float32 lost
    image_US = matrix_UI @ basis_IS
    squares_S, rotation_SS = torch.linalg.eigh((image_US.T @ image_US).double())
    largest = torch.arange(width - 1, width - 1 - rank, -1, device=squares_S.device)
    # What the matrix does not have would be divided by zero under a negative spectrum exponent.
    largest = largest[squares_S[largest] > _LEAST_SQUARE * squares_S[-1]]
    singular_D = squares_S[largest].sqrt().float()
    vectors_ID = basis_IS @ rotation_SS[:, largest].float()
    # A direction's sign is arbitrary: the largest number is made positive.
    peak_D = vectors_ID.abs().argmax(0)
    vectors_ID *= vectors_ID.gather(0, peak_D[None]).sign()
    return singular_D, vectors_ID


def _orthonormal(vectors_NS: Tensor) -> Tensor:
    """An orthonormal basis of the columns' span; what is numerically dependent becomes zero."""
    squares_S, rotation_SS = torch.linalg.eigh((vectors_NS.T @ vectors_NS).double())
    floor = squares_S[-1].clamp(min=1e-30) * _LEAST_SQUARE
    scale_S = torch.where(squares_S > floor, squares_S.clamp(min=floor).rsqrt(), 0.0)
    basis_NS: Tensor = vectors_NS @ (rotation_SS * scale_S).float()
    return basis_NS


def _scaled(
    interactions: Interactions,
    weights: NDArray[np.float32],
    mass_U: NDArray[np.number],
    mass_I: NDArray[np.number],
    config: SpectralConfig,
    device: torch.device,
) -> Tensor:
    by_user = _powers(mass_U, -config.user_exponent)[interactions.user_indices]
    by_item = _powers(mass_I, -config.item_exponent)[interactions.item_indices]
    return _csr(interactions, weights * by_user * by_item, device)


def _csr(interactions: Interactions, values: NDArray[np.float32], device: torch.device) -> Tensor:
    counts_U = np.bincount(interactions.user_indices, minlength=interactions.num_users)
    indptr_U1 = np.concatenate([[0], counts_U.cumsum()]).astype(np.int32)
    with warnings.catch_warnings():  # torch says once that its compressed rows are in beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(indptr_U1),
            torch.from_numpy(interactions.item_indices.copy()),
            torch.from_numpy(np.asarray(values, np.float32)),
            size=(interactions.num_users, interactions.num_items),
            device=device,
            check_invariants=False,
        )


def _powers(mass: NDArray[np.number], exponent: float) -> NDArray[np.float32]:
    """``mass ** exponent``, 0 for who has none."""
    with np.errstate(divide="ignore"):
        return np.where(mass > 0, mass**exponent, 0.0).astype(np.float32)
