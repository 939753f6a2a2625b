"""Interactions as training reads them: whole users, their visits and items, on one device."""

# U users, V visits (a user in one context), I items, P pairs of a step, B users of a step

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perso.data.prepared import Interactions


class Step(NamedTuple):
    """The pairs of some users, aligned."""

    user_P: Tensor
    """Place of the pair's user among the step's users."""
    visit_P: Tensor
    """Visit of the pair."""
    item_P: Tensor
    weight_P: Tensor


class Histories:
    """Each user's pairs, sliceable by user; weights average 1.

    Memory: 12 bytes a pair, 20 with visits.
    """

    def __init__(
        self,
        interactions: Interactions,
        *,
        device: torch.device,
        visit_of_pair: NDArray[np.int64] | None = None,
    ) -> None:
        """Copy what training needs to the device.

        Args:
            interactions: What to learn from, sorted by user.
            device: Where it stays.
            visit_of_pair: Visit of each pair; one visit per user if not given.
        """
        users, items = interactions.user_indices, interactions.item_indices
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.weight_unit = float(interactions.weights.mean(dtype=np.float64))

        def sums(rows: NDArray[np.int32], num_rows: int) -> Tensor:
            mass = np.bincount(rows, interactions.weights, num_rows) / self.weight_unit
            return torch.from_numpy(mass.astype(np.float32)).to(device)

        def counts(rows: NDArray[np.int32], num_rows: int) -> Tensor:
            return torch.from_numpy(np.bincount(rows, minlength=num_rows)).to(device)

        self.counts_U, self.counts_I = counts(users, self.num_users), counts(items, self.num_items)
        self.mass_U, self.mass_I = sums(users, self.num_users), sums(items, self.num_items)
        self.active_U = torch.nonzero(self.counts_U > 0).squeeze(1)
        self.users = torch.from_numpy(users.copy()).to(device)
        self.items = torch.from_numpy(items.copy()).to(device)
        self.weights = torch.from_numpy(interactions.weights / self.weight_unit).to(device)
        self.visits = self.users
        if visit_of_pair is not None:
            self.visits = torch.from_numpy(visit_of_pair.copy()).to(device)
        self._starts_U = self.counts_U.cumsum(0) - self.counts_U

    def of(self, users_B: Tensor) -> Step:
        """The pairs of some users."""
        counts_B = self.counts_U[users_B]
        user_P = torch.repeat_interleave(counts_B)
        first_B = self._starts_U[users_B] - (counts_B.cumsum(0) - counts_B)
        pairs = first_B[user_P] + torch.arange(len(user_P), device=user_P.device)
        return Step(
            user_P, self.visits[pairs].long(), self.items[pairs].long(), self.weights[pairs]
        )
