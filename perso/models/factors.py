"""Factor models as they are served: one dot product and an item bias.

Whatever was trained ends here, as float32 arrays that replicas of one node share by memory
mapping. This file scores; it does not train, and how a user's vector follows from new events is
its encoder's matter.
"""

# U users, I items, B users of one call, D factors, P pairs

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions
from perso.models.encoder import UserEncoder
from perso.models.encoders import load_encoder
from perso.models.feature_encoder import FeatureEncoder
from perso.models.protocol import UserBatch, WeightedItems
from perso.models.request_features import SEGMENT, RequestFeatures

_ARRAYS: Final = {
    "user_factors_UD": "user_factors.npy",
    "user_bias_U": "user_bias.npy",
    "user_weight_U": "user_weight.npy",
    "item_factors_ID": "item_factors.npy",
    "item_bias_I": "item_bias.npy",
}

_SIDES: Final = ("item", "user")

_FALLBACK_SCALE: Final = 1e-6


def popularity_bias(interactions: Interactions) -> NDArray[np.float32]:
    """Item biases, shape (I,), for models that learn none: strangers get what is popular.

    They are at most a millionth, below what tells two vectors' scores apart.
    """
    demand_I = np.bincount(interactions.item_indices, interactions.weights, interactions.num_items)
    share_I = demand_I / max(demand_I.max(initial=0.0), 1e-30)
    return np.asarray(_FALLBACK_SCALE * share_I, np.float32)


@dataclass(frozen=True, kw_only=True)
class FactorModel:
    """User and item vectors with biases.

    A user's score of an item is ``(own vector + request features) · item factor + item bias``. A
    user without interactions has the zero vector and so gets the features and the items' biases,
    the popularity the model has learned: on Online Retail Recall@20 .045 against .045 for the
    mean user vector and .043 for counted popularity.
    """

    user_factors_UD: NDArray[np.float32]
    user_bias_U: NDArray[np.float32]
    """How far a user's ratings lie from the mean; 0 unless trained on ratings."""
    user_weight_U: NDArray[np.float32]
    """Interactions behind each user vector, in the encoder's unit of weight."""
    item_factors_ID: NDArray[np.float32]
    """Of items with features: what training learned of the item and of its features, summed."""
    item_bias_I: NDArray[np.float32]
    global_bias: float
    """The mean rating; 0 unless trained on ratings."""
    encoder: UserEncoder
    """How to solve a user vector from events that training has not seen."""
    request_features: RequestFeatures
    """What segment and context add to a user's vector."""
    predicts: Literal["ratings", "weights"] | None = None
    """What :meth:`predict` gives: only a squared error teaches a model a scale."""
    item_encoder: FeatureEncoder | None = None
    """Vector and bias of an item that the vocabulary lacks, from its catalogue row."""
    user_encoder: FeatureEncoder | None = None
    """Vector of a user that the vocabulary lacks, from the user's attributes."""

    def __post_init__(self) -> None:
        num_users, num_factors = self.user_factors_UD.shape
        shapes = {
            "user_bias_U": (num_users,),
            "user_weight_U": (num_users,),
            "item_factors_ID": (self.num_items, num_factors),
            "item_bias_I": (self.num_items,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}, "
                    f"but user_factors_UD {self.user_factors_UD.shape} asks for {shape}"
                )
        if self.request_features.num_factors != num_factors:
            raise ValueError(
                f"request features have {self.request_features.num_factors} factors, "
                f"users have {num_factors}"
            )

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary."""
        return len(self.user_factors_UD)

    @property
    def num_items(self) -> int:
        """Length of a score row."""
        return len(self.item_factors_ID)

    @property
    def num_factors(self) -> int:
        """Length of a user or item vector."""
        return int(self.item_factors_ID.shape[1])

    @property
    def recent_boost(self) -> float:
        """How many past interactions one of the current session outweighs."""
        return self.encoder.recent_boost

    @cached_property
    def has_signal_I(self) -> NDArray[np.bool_]:
        """Items with a vector: those of training, and those whose features say something."""
        has_vector_I: NDArray[np.bool_] = self._norms_I > 0
        return has_vector_I

    @cached_property
    def _norms_I(self) -> NDArray[np.float32]:
        norms_I: NDArray[np.float32] = np.linalg.norm(self.item_factors_ID, axis=1)
        return norms_I

    def knows(self, user_index: int) -> bool:
        """Whether a user has a history, or an own vector from features; False for -1."""
        if user_index < 0:
            return False
        return bool(self.user_weight_U[user_index] > 0 or self.user_factors_UD[user_index].any())

    def knows_request(
        self,
        *,
        segment: str | None,
        context: Mapping[str, str],
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether training has a vector for the segment, the context or an attribute."""
        asked_D = self.request_features.vector({**context, SEGMENT: segment})
        return bool(asked_D.any() or self._attribute_vector(-1, attributes).any())

    def own_vector(self, user_index: int) -> NDArray[np.float32]:
        """The trained vector of one user, shape (D,); zero for a stranger (-1)."""
        if user_index < 0:
            return np.zeros(self.num_factors, np.float32)
        vector_D: NDArray[np.float32] = self.user_factors_UD[user_index]
        return vector_D

    def user_vectors(self, batch: UserBatch) -> NDArray[np.float32]:
        """What the items are multiplied with, features included, shape (B, D).

        Raises:
            IndexError: If a user index is outside the model's vocabulary.
        """
        values = dict(batch.context)
        if batch.segment_names is not None:
            values[SEGMENT] = batch.segment_names
        known_B = batch.user_indices >= 0
        user_BD = self.request_features.vectors(values, len(batch.user_indices))
        user_BD[known_B] += self.user_factors_UD[batch.user_indices[known_B]]
        return user_BD

    def score(self, batch: UserBatch) -> NDArray[np.float32]:
        """Scores of every item for each user, shape (B, I).

        Raises:
            IndexError: If a user index is outside the model's vocabulary.
        """
        return self.score_vectors(self.user_vectors(batch))

    def score_vectors(self, user_BD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of every item for given user vectors, shape (B, I)."""
        scores_BI: NDArray[np.float32] = user_BD @ self.item_factors_ID.T
        scores_BI += self.item_bias_I
        return scores_BI

    def score_recent(
        self,
        user_index: int,
        recent: WeightedItems,
        *,
        segment: str | None = None,
        context: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Scores after new events, shape (I,); see :class:`perso.models.protocol.PersonalModel`."""
        offset_D = self.request_features.vector({**(context or {}), SEGMENT: segment})
        offset_D += self._attribute_vector(user_index, attributes)
        own_D = self.own_vector(user_index)
        if len(recent):
            own_D = self.encoder.solve(self, user_index, recent, offset_D)
        scores_I: NDArray[np.float32] = self.score_vectors((own_D + offset_D)[np.newaxis])[0]
        return scores_I

    def _attribute_vector(
        self, user_index: int, attributes: Mapping[str, Any] | None
    ) -> NDArray[np.float32]:
        """What attributes say of a user without an own vector, shape (D,); zero for others."""
        if attributes is None or self.user_encoder is None or self.knows(user_index):
            return np.zeros(self.num_factors, np.float32)
        vector_D: NDArray[np.float32] = self.user_encoder.encode_one(attributes)
        return vector_D

    def similarity(self, item_index: int) -> NDArray[np.float32]:
        """Cosine of every item's vector with one's, shape (I,); 0 where either has none."""
        dots_I = self.item_factors_ID @ self.item_factors_ID[item_index]
        lengths_I = self._norms_I * self._norms_I[item_index]
        similarity_I = np.zeros(self.num_items, np.float32)
        np.divide(dots_I, lengths_I, out=similarity_I, where=lengths_I > 0)
        return similarity_I

    def predict(
        self, user_indices: NDArray[np.integer], item_indices: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """The expected rating or weight of each (user, item) pair, shape (P,).

        Memory: 8 · D bytes a pair; callers with millions of pairs pass slices.

        Raises:
            ValueError: If the model predicts neither, or the two lengths differ.
        """
        if self.predicts is None:
            raise ValueError(
                "this model ranks and predicts no ratings; train with loss 'squared' to get them"
            )
        if len(user_indices) != len(item_indices):
            raise ValueError(f"{len(user_indices)} users but {len(item_indices)} items")
        products_P = np.einsum(
            "pd,pd->p", self.user_factors_UD[user_indices], self.item_factors_ID[item_indices]
        )
        ratings_P: NDArray[np.float32] = (
            np.float32(self.global_bias)
            + self.user_bias_U[user_indices]
            + self.item_bias_I[item_indices]
            + products_P
        )
        return ratings_P

    def save(self, folder: Path) -> None:
        """Write the arrays, ``model.json``, encoder and request features into an empty folder."""
        for field, file in _ARRAYS.items():
            np.save(folder / file, getattr(self, field))
        (folder / "model.json").write_text(
            json.dumps(
                {
                    "class": "factors",
                    "global_bias": self.global_bias,
                    "predicts": self.predicts,
                    "encoded": [s for s in _SIDES if getattr(self, f"{s}_encoder") is not None],
                }
            )
        )
        self.encoder.save(folder)
        self.request_features.save(folder)
        for side in _SIDES:
            encoder: FeatureEncoder | None = getattr(self, f"{side}_encoder")
            if encoder is not None:
                encoder.save(folder, side)

    @classmethod
    def load(cls, folder: Path) -> "FactorModel":
        """The model in a folder that :meth:`save` wrote; its arrays are memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON, or the shapes disagree.
            KeyError: If a parameter is missing.
        """
        scalars = json.loads((folder / "model.json").read_text())
        arrays = {field: np.load(folder / file, mmap_mode="r") for field, file in _ARRAYS.items()}
        encoded = {side: FeatureEncoder.load(folder, side) for side in scalars["encoded"]}
        return cls(
            **arrays,
            global_bias=float(scalars["global_bias"]),
            predicts=scalars["predicts"],
            encoder=load_encoder(folder),
            request_features=RequestFeatures.load(folder),
            item_encoder=encoded.get("item"),
            user_encoder=encoded.get("user"),
        )
