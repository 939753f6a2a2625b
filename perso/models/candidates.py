"""The items that a step's users are told apart from, and how likely each was to be among them."""

# I items, C candidates, P pairs of a step

from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from perso.models.histories import Histories

_LEAST_CHANCE: Final = 1e-9

Negatives = Literal["uniform", "popularity", "in_batch"]


class Candidates(NamedTuple):
    """Distinct items of one step."""

    items_C: Tensor
    column_P: Tensor
    """Where among the candidates each pair's item stands."""


class CandidateDraw:
    """Draws candidates: everything that the step's users touched, and items by chance.

    A catalogue no larger than the draw is used whole, and nothing has to be corrected.
    """

    def __init__(
        self, histories: Histories, negatives: Negatives, num_drawn: int, users_per_step: int
    ) -> None:
        """Work out the chance of each item to be a candidate.

        ``chance_I`` is that for a user who has not touched it, ``step_chance_I`` that of a step,
        whoever its users are; both are above 0, for their logarithms and inverses are taken.

        Args:
            histories: What the steps are taken from.
            negatives: Drawn uniformly, by the root of popularity, or not at all.
            num_drawn: Items drawn per step, with repetition.
            users_per_step: Users of a step.
        """
        num_items = histories.num_items
        self._num_items, self._num_drawn = num_items, num_drawn
        self.is_whole = negatives != "in_batch" and num_drawn >= num_items
        counts_I = histories.counts_I.double()
        # Of popularity the root: of its own power rare items would hardly ever be drawn.
        weight_I = counts_I.sqrt() if negatives == "popularity" else torch.ones_like(counts_I)
        self._share_I = (weight_I / weight_I.sum()).cpu()
        self._by_chance = negatives == "popularity"
        self._draws = negatives != "in_batch"
        chance_I = step_chance_I = torch.ones_like(counts_I)
        if not self.is_whole:
            touched_I = counts_I / max(len(histories.active_U), 1)
            missed_I = (1 - touched_I).pow(max(users_per_step - 1, 0))
            if self._draws:
                missed_I *= (1 - self._share_I.to(missed_I)).pow(num_drawn)
            chance_I = (1 - missed_I).clamp(min=_LEAST_CHANCE)
            step_chance_I = (1 - missed_I * (1 - touched_I)).clamp(min=_LEAST_CHANCE)
        self.chance_I = chance_I.float()
        self.step_chance_I = step_chance_I.float()

    def draw(self, item_P: Tensor, generator: torch.Generator) -> Candidates:
        """The candidates of a step whose users touched ``item_P``."""
        if self.is_whole:
            return Candidates(torch.arange(self._num_items, device=item_P.device), item_P)
        parts = [item_P]
        if self._by_chance:
            drawn = torch.multinomial(
                self._share_I, self._num_drawn, replacement=True, generator=generator
            )
            parts.append(drawn.to(item_P))
        elif self._draws:
            drawn = torch.randint(self._num_items, (self._num_drawn,), generator=generator)
            parts.append(drawn.to(item_P))
        items_C, place = torch.unique(torch.cat(parts), return_inverse=True)
        return Candidates(items_C, place[: len(item_P)])
