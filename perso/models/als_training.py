"""ALS between two epochs: both sides, their vectors, and what is made of them at the end."""

# U users, I items, D factors

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from perso.data.prepared import Interactions
from perso.models.als import model_of
from perso.models.als_config import AlsConfig
from perso.models.als_problem import Floats
from perso.models.als_side import Side, rotate
from perso.models.factors import FactorModel
from perso.models.progress import TrainingState, check_state


@dataclass(kw_only=True)
class AlsTraining:
    """One training; every epoch moves the vectors in place."""

    interactions: Interactions
    config: AlsConfig
    users: Side
    items: Side
    user_UD: Floats
    item_ID: Floats
    threads: ThreadPoolExecutor
    """Share the work; open as long as the training is used."""
    epoch: int = 0
    """Epochs that have been run."""

    @property
    def is_over(self) -> bool:
        """Whether all epochs have been run."""
        return self.epoch >= self.config.epochs

    def run_epoch(self) -> None:
        """All users, then all items."""
        gram_D = rotate(self.threads, self.item_ID, self.user_UD)
        self.users.improve(self.threads, self.config, self.item_ID, gram_D, self.user_UD)
        gram_D = rotate(self.threads, self.user_UD, self.item_ID)
        self.items.improve(self.threads, self.config, self.user_UD, gram_D, self.item_ID)
        self.epoch += 1

    def loss(self) -> float:
        """The objective per interaction; costs about a CG step."""
        loss = self.users.loss(self.threads, self.item_ID, self.user_UD)
        return (loss + self.items.penalty(self.item_ID)) / len(self.interactions)

    def state(self) -> TrainingState:
        """Copies of the vectors; all else follows from the interactions and the config."""
        return {
            "epoch": np.array(self.epoch),
            "user_UD": self.user_UD.copy(),
            "item_ID": self.item_ID.copy(),
        }

    def resume(self, state: TrainingState) -> None:
        """Stand where the training stood whose state this is.

        Raises:
            ValueError: If the state has other arrays, or arrays of other shapes.
        """
        shapes = {"epoch": (), "user_UD": self.user_UD.shape, "item_ID": self.item_ID.shape}
        check_state(state, shapes)
        self.epoch = int(state["epoch"])
        self.user_UD[:], self.item_ID[:] = state["user_UD"], state["item_ID"]

    def model(self) -> FactorModel:
        """Every user solved exactly, in vectors of its own."""
        user_UD, item_ID = np.empty_like(self.user_UD), self.item_ID.copy()
        gram_D = rotate(self.threads, item_ID)
        self.users.solve(self.threads, item_ID, gram_D, user_UD)
        return model_of(
            self.interactions,
            self.users.objective,
            user_UD=user_UD,
            item_ID=item_ID,
            gram_D=gram_D,
        )
