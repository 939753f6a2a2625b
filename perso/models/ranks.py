"""Processes that train one model together, each on a share of every step's rows.

All of them hold the same data and tables and draw the same numbers, so they take the same steps.
What is divided is the work of a step: a rank scores its own rows only, and the slopes that it
finds are added up over the ranks before any table moves. Whatever moves a table, or decides when
to stop, has come through that sum: the tables stay the same on all ranks, to the bit, even where
a device adds in any order. A single rank takes the same path, adds nothing up, and divides by 1.

Cost of a step: its slopes go over the network once, 4 · D bytes a row that the step has met, and
choosing, gathering and moving the rows is done by every rank: of ``softmax`` on a million pairs
with 1,024 candidates drawn 28 % of one process's time, so that no number of ranks is more than 3.5
times as fast; less of it where more candidates are scored. ``squared``, a few operations a number
sent, gains nothing.
"""

# P pairs of a step

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    """From 0."""
    size: int = 1
    """How many there are."""
    all_reduce: Callable[[Tensor], object] | None = None
    """Adds up a tensor over all ranks, in place: :func:`torch.distributed.all_reduce`."""

    @classmethod
    def of_process_group(cls) -> "Ranks":
        """The processes of PyTorch's default group, which has been set up."""
        return cls(
            rank=distributed.get_rank(),
            size=distributed.get_world_size(),
            all_reduce=distributed.all_reduce,
        )

    def share(self, num_rows: int) -> slice:
        """The rows of a step that this rank scores; empty if there are fewer rows than ranks."""
        return slice(num_rows * self.rank // self.size, num_rows * (self.rank + 1) // self.size)

    def pairs_of(self, rows: slice, row_P: Tensor) -> Tensor | slice:
        """Which of a step's pairs lie in some rows."""
        if self.size == 1:
            return slice(None)
        return torch.nonzero((row_P >= rows.start) & (row_P < rows.stop)).squeeze(1)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors of one type over all ranks, in place and in one message."""
        if self.all_reduce is None:
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self.all_reduce(message)
        parts = message.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def align_(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that they have on the first rank, in place."""
        if self.rank != 0:
            for tensor in tensors:
                tensor.zero_()
        self.sum_(tensors)


ALONE: Final = Ranks()
"""The one process of an ordinary training."""
