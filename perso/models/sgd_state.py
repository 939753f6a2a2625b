"""What a training by SGD has to remember between two epochs, as arrays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perso.models.progress import TrainingState, check_state
from perso.models.sgd_config import SgdConfig
from perso.models.tables import Table


@dataclass(kw_only=True)
class SgdState:
    """The parts of a training that change from epoch to epoch."""

    tables: Mapping[str, Table]
    """All that learns, by name."""
    generator: torch.Generator
    """Of the CPU; all that is drawn comes from it."""
    epoch: int = 0
    """Epochs that have been run."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies, by name."""
        return {
            "epoch": np.array(self.epoch),
            "generator": self.generator.get_state().numpy(),
            **{name: copied(tensor) for name, tensor in self._tensors().items()},
        }

    def resume(self, state: TrainingState, *, more: Mapping[str, tuple[int, ...]]) -> None:
        """Take over the values of a state.

        Args:
            state: Its arrays are copied.
            more: Names and shapes of what the state has beside these parts.

        Raises:
            ValueError: If the state is of another training, by its names and shapes.
        """
        tensors = self._tensors()
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        generator = tuple(self.generator.get_state().shape)
        check_state(state, {"epoch": (), "generator": generator, **shapes, **more})
        self.epoch = int(state["epoch"])
        self.generator.set_state(torch.tensor(state["generator"]))
        for name, tensor in tensors.items():
            tensor.copy_(torch.tensor(state[name]))

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{table_name}.{name}": tensor
            for table_name, table in self.tables.items()
            for name, tensor in table.tensors.items()
        }


def copied(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values in memory of their own, wherever it is."""
    return np.array(tensor.detach().cpu().numpy())


def refuse_divergence(loss: float, epoch: int, config: SgdConfig) -> None:
    """Raise if a loss is no number.

    Raises:
        ValueError: With the settings that a training diverges by.
    """
    if not math.isfinite(loss):
        raise ValueError(
            f"training diverged in epoch {epoch} with learning_rate {config.learning_rate} "
            f"and l2 {config.l2}; lower the learning rate"
        )
