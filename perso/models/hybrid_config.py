"""Settings of the hybrid family, readable without loading torch."""

import math
from dataclasses import dataclass
from typing import Literal

from perso.models.feature_columns import FeatureColumn
from perso.models.sgd_config import SgdConfig, check_sgd


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """A factor model that also learns from what users, items and visits are.

    Raises:
        ValueError: If a setting is out of range.
    """

    family: Literal["hybrid"] = "hybrid"
    item_columns: tuple[FeatureColumn, ...] | None = None
    """Columns of the items' features; none: all that can be read, by their type."""
    user_columns: tuple[FeatureColumn, ...] | None = None
    """Columns of the users' features; none: all that can be read, by their type."""
    use_segments: bool = True
    """Whether a user's segment, where one is known, speaks for the user."""
    context: tuple[str, ...] | None = None
    """Context columns that speak for a visit; none: all that the interactions have."""
    affinities: tuple[str, ...] = ("categories", "brand")
    """Item columns whose shares in a user's history speak for the user; those that items lack
    are passed over."""
    feature_dropout: float = 0.2
    """Chance that a step drops the own vector of a user or item, so that features learn to stand
    alone for those who have none."""
    feature_rate: float = 0.03
    """Step size of feature vectors, relative to that of own vectors: many rows move a feature in
    every step, and many features add up in a row."""
    loss: Literal["softmax", "contrasted", "bpr", "logistic"] = "softmax"
    """As in :class:`perso.models.sgd_config.SgdConfig`, like all below."""
    num_factors: int = 64
    """Length of user and item vectors."""
    learning_rate: float = 0.1
    """Step size: about how far a vector moves in its first step."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls over the epochs: not at all, or to 0."""
    optimizer: Literal["adagrad", "adam"] = "adagrad"
    """Both touch only the rows of a batch; Adam wants a learning rate ten times smaller."""
    l2: float = 0.1
    """Pull of all vectors to zero, in units of the loss per interaction."""
    dropout: float = 0.0
    """Share of the numbers of user and item vectors that a step leaves out."""
    epochs: int = 10
    """Passes over the interactions; with ``patience`` the most."""
    patience: int | None = None
    """Epochs without a better ranking of interactions set aside (5 %) after which training stops
    and the best epoch is taken; none: all epochs."""
    batch_size: int = 8192
    """Interactions per step, as many whole users as hold them on average."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """Where candidates come from beside the step's own items: drawn alike, drawn by the root of
    popularity, or nowhere."""
    num_negatives: int = 1024
    """Items drawn per step that all its users are told apart from; a smaller catalogue is used
    whole, unless ``negatives`` is ``in_batch``."""
    seed: int = 0
    """Start of every random number; the same seed gives the same model on the same CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is a device."""

    def __post_init__(self) -> None:
        check_sgd(self)
        if not 0 < self.feature_rate < math.inf:
            raise ValueError(f"feature_rate is {self.feature_rate}; give a number above 0")
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(
                f"feature_dropout is {self.feature_dropout}; give a chance from 0 to below 1"
            )

    @property
    def sgd(self) -> SgdConfig:
        """The settings that the SGD engine reads."""
        return SgdConfig(
            loss=self.loss,
            num_factors=self.num_factors,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            optimizer=self.optimizer,
            l2=self.l2,
            dropout=self.dropout,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            negatives=self.negatives,
            num_negatives=self.num_negatives,
            seed=self.seed,
            device=self.device,
        )
