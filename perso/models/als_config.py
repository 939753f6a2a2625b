"""Settings of the ALS family, readable without loading numba or torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Solver = Literal["cholesky", "cg", "subspace"]


@dataclass(frozen=True, kw_only=True)
class AlsConfig:
    """One training run of implicit-feedback ALS; the objective is in :mod:`perso.models.als`.

    The defaults are near the best of a grid on two shops as unlike as Gowalla (30,000 users, 41,000
    places, every weight 1) and Online Retail (3,900 customers, 3,700 products, weights decayed).

    Raises:
        ValueError: If a setting is out of range.
    """

    family: Literal["als"] = "als"
    num_factors: int = 64
    """Length of user and item vectors."""
    epochs: int = 8
    """Alternations: each solves all users, then all items. More fit better and do not rank better:
    Gowalla, 256 factors, Recall@20 on validation .203, .202, .200 after 5, 8, 16."""
    l2: float = 0.003
    """Pull of every vector to zero, times ``(interactions + unobserved_weight * others) **
    l2_exponent`` of its row."""
    l2_exponent: float = 1.0
    """How much stronger rows of many interactions are pulled: 0 all alike, 1 in proportion."""
    unobserved_weight: float | None = None
    """What one pair without interaction counts, where an average interaction counts 1. None: so
    much that all pairs together count 20 times what the interactions do (0.013 on Gowalla, 0.3 on
    Online Retail), at most 1."""
    confidence: float = 4.0
    """How much an interaction's weight counts: a pair of ``w`` times the mean weight counts
    ``(1 + confidence * w) / (1 + confidence)``; 0 counts all pairs alike."""
    solver: Solver = "cg"
    """``cg`` takes a few steps of conjugate gradients from the last epoch's vector, ``cholesky``
    solves every row exactly, ``subspace`` exactly in blocks of factors, one after the other."""
    cg_steps: int = 3
    """Steps of ``cg``; a row of fewer interactions than this is solved exactly."""
    block_size: int = 32
    """Factors that ``subspace`` solves at once."""
    init_std: float = 0.1
    """Length of a random item vector at the start."""
    seed: int = 0
    """Start of the random item vectors."""

    def __post_init__(self) -> None:
        for name in ("num_factors", "epochs", "cg_steps", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("l2", "unobserved_weight", "init_std"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; give a number above 0")
        if not 0 <= self.l2_exponent <= 1:
            raise ValueError(f"l2_exponent is {self.l2_exponent}; give 0 to 1")
        if not (self.confidence >= 0 and math.isfinite(self.confidence)):
            raise ValueError(f"confidence is {self.confidence}; give 0 or more")
        if self.solver not in get_args(Solver):
            raise ValueError(
                f"solver is {self.solver!r}; give one of {', '.join(get_args(Solver))}"
            )
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more")
