"""Settings of a blend, readable without loading torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from perso.models.als_config import AlsConfig
from perso.models.sgd_config import SgdConfig, SgdLoss, Similarity
from perso.models.spectral_config import SpectralConfig


@dataclass(frozen=True, kw_only=True)
class SpectralPart(SpectralConfig):
    """The spectral family's settings with the defaults of a blend."""

    num_factors: int = 512
    """Singular vectors kept."""


@dataclass(frozen=True, kw_only=True)
class LearnedPart(SgdConfig):
    """The SGD family's settings with the defaults of a blend: cosines, trained to the end."""

    similarity: Similarity = "cosine"
    """Directions only: the spectral part knows what is popular."""
    loss: SgdLoss = "contrasted"
    """Each item against what the user has not touched."""
    num_factors: int = 128
    """Length of user and item vectors."""
    learning_rate: float = 1.0
    """In units of a vector's length."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Down to 0 at the last epoch."""
    history_weight: float = 1.0
    """How much of the mean vector of a user's items is added to the user's own."""
    l2: float = 0.0
    """Directions need no pull to zero."""
    epochs: int = 20
    """Passes over the interactions."""
    batch_size: int = 3500
    """Interactions per step: smaller steps, fewer candidates in each."""


@dataclass(frozen=True, kw_only=True)
class AlsPart(AlsConfig):
    """The ALS family's settings with the defaults of a blend."""

    num_factors: int = 128
    """Length of user and item vectors."""
    epochs: int = 12
    """Alternations: each solves all users, then all items."""


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """Factor models side by side as one.

    The smooth directions of the item graph, learned ones that see what is rare, and least squares
    in between: their errors differ. Gowalla, part of train held out, Recall@20 and NDCG@20:
    spectral 512 .199, .121; cosines 256 .212, .127; ALS 256 .203, .116; all three .223, .132.

    Raises:
        ValueError: If a setting is out of range.
    """

    family: Literal["blend"] = "blend"
    spectral: SpectralPart = field(default_factory=SpectralPart)
    """The part without training."""
    learned: LearnedPart = field(default_factory=LearnedPart)
    """The trained part."""
    als: AlsPart = field(default_factory=AlsPart)
    """The part of least squares."""
    spectral_weight: float = 0.25
    """Weight of the spectral part's scores; the learned part's, which are cosines, is 1."""
    als_weight: float = 0.35
    """Weight of the scores of least squares; 0 leaves the part out."""
    popularity_weight: float = 0.0
    """Weight of the logarithm of an item's popularity in a score; 0.01 to 0.04 where what sells
    now will sell even more."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.spectral_weight) and self.spectral_weight > 0):
            raise ValueError(f"spectral_weight is {self.spectral_weight}; give a number above 0")
        for name in ("als_weight", "popularity_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        if self.learned.similarity != "cosine":
            raise ValueError(
                f"learned.similarity is {self.learned.similarity!r}, whose item biases a blend has "
                "no place for; give 'cosine'"
            )
