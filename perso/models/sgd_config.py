"""Settings of SGD training, readable without loading torch."""

import math
from dataclasses import dataclass
from typing import Literal

from perso.models.fold_in_params import Loss


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """One training run.

    The defaults are the middle of the range that works on Online Retail (3,300 items, 245,000
    pairs) whatever the half-life of the weights.

    Raises:
        ValueError: If a setting is out of range.
    """

    loss: Loss = "softmax"
    """``softmax`` ranks from any events; ``rating`` predicts stars, from pairs that carry them."""
    num_factors: int = 64
    """Length of user and item vectors."""
    learning_rate: float = 0.1
    """Adagrad's step size: about how far a vector moves in its first step."""
    l2: float = 0.1
    """Pull of user and item vectors to zero, in units of the loss per interaction."""
    epochs: int = 10
    """Passes over the interactions."""
    batch_size: int = 8192
    """Interactions per step; the softmax takes as many whole users as hold them on average."""
    num_negatives: int = 1024
    """Items drawn per step that all its users are told apart from (softmax only); a smaller
    catalogue is used whole."""
    seed: int = 0
    """Start of every random number; the same seed gives the same model on the same CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is a device."""

    def __post_init__(self) -> None:
        for name in ("num_factors", "epochs", "batch_size", "num_negatives"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}; give a number above 0")
        if not (math.isfinite(self.l2) and self.l2 >= 0):
            raise ValueError(f"l2 is {self.l2}; give 0 or more")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more")
        for name, allowed in (("loss", ("softmax", "rating")), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give one of {allowed}")
