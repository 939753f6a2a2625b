"""Settings of the spectral family, readable without loading torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SpectralConfig:
    """A truncated SVD of the degree-normalised interactions.

    Raises:
        ValueError: If a setting is out of range.
    """

    family: Literal["spectral"] = "spectral"
    num_factors: int = 256
    """Singular vectors kept; more than users or items allow are cut to what there is."""
    user_exponent: float = 0.5
    """Power of a user's weight by which the user's row is divided before the SVD."""
    item_exponent: float = 0.4
    """Power of an item's weight by which its column is divided before the SVD."""
    input_exponent: float = 0.4
    """Power of an item's weight by which it counts less in a user's vector."""
    output_exponent: float = 0.4
    """Power of an item's weight by which it counts more in a list."""
    spectrum_exponent: float = 0.0
    """Power of its singular value by which a direction counts; 0 is an ideal low-pass filter."""
    weight_exponent: float = 0.5
    """Power of an interaction's weight: 1 as it is, 0 all alike. The weight of a session's events
    is raised to it too: at 0 they outweigh the past by number alone."""
    num_iterations: int = 4
    """Passes over the interactions, two products each; the gap behind the last singular value
    decides how many are needed."""
    seed: int = 0
    """Start of the subspace."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is a device."""

    def __post_init__(self) -> None:
        for name in ("num_factors", "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("user_exponent", "item_exponent", "input_exponent", "output_exponent"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 to 1")
        if not -1 <= self.spectrum_exponent <= 2:
            raise ValueError(f"spectrum_exponent is {self.spectrum_exponent}; give -1 to 2")
        if not 0 <= self.weight_exponent <= 2:
            raise ValueError(f"weight_exponent is {self.weight_exponent}; give 0 to 2")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give 0 or more")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is {self.device!r}; give auto, cpu or cuda")
