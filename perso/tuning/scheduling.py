"""Settings of the schedulers: which trials end early, and which learn from others midway."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AshaSpec:
    """Asynchronous successive halving: at each rung only the better trials go on.

    Rungs are at ``first_epoch``, then each ``reduction`` times later. Families without epochs are
    measured once, at their end, and never stopped.

    References:
        Li et al., A system for massively parallel hyperparameter tuning, MLSys 2020.
    """

    first_epoch: int = 1
    """Epochs that every trial gets."""
    reduction: float = 3.0
    """Of a rung's trials about one in so many goes on."""

    def __post_init__(self) -> None:
        if self.first_epoch < 1:
            raise ValueError(f"first_epoch is {self.first_epoch}; give 1 or more")
        if self.reduction <= 1:
            raise ValueError(f"reduction is {self.reduction}; give a number above 1")

    def rungs(self, epochs: int) -> list[int]:
        """The epochs of a training of so many at which it is measured, its end left out."""
        found, rung = [], float(self.first_epoch)
        while math.ceil(rung) < epochs:
            found.append(math.ceil(rung))
            rung *= self.reduction
        return sorted(set(found))


@dataclass(frozen=True, kw_only=True)
class PbtSpec:
    """Population based training: bad trials take over good ones' vectors and vary settings.

    Only settings that leave the vectors' shape alone can vary midway, and what comes out is a
    schedule of them; the finalist is trained with the last ones.

    References:
        Jaderberg et al., Population based training of neural networks, 2017.
    """

    every_epochs: int = 2
    """Epochs between two looks at the population."""
    quantile: float = 0.25
    """Share of the population that takes over from as many at the top."""
    resample: float = 0.25
    """Chance that a setting is drawn anew instead of moved by a fifth."""

    def __post_init__(self) -> None:
        if self.every_epochs < 1:
            raise ValueError(f"every_epochs is {self.every_epochs}; give 1 or more")
        if not 0 < self.quantile <= 0.5:
            raise ValueError(f"quantile is {self.quantile}; give a share above 0, at most 0.5")
        if not 0 <= self.resample <= 1:
            raise ValueError(f"resample is {self.resample}; give a chance from 0 to 1")

    def rungs(self, epochs: int) -> list[int]:
        """The epochs of a training of so many at which it is measured, its end left out."""
        return list(range(self.every_epochs, epochs, self.every_epochs))
