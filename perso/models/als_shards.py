"""A shard of ALS: a range of users and a range of items, their pairs, and the vectors of both.

Each shard solves its own rows with the kernels of :mod:`perso.models.als_side`, in step with the
others (:mod:`perso.models.als_rounds`); what it needs of the other side it copies out of all
shards' blocks, row by row as its pairs name them, so that a kernel finds them in one array.

When one process is quicker: whenever it fits. Threads of one process share the vectors that shards
copy, start at once, and give the same model; shards are for more cores or memory than a node has.

On 10 million pairs (400,000 users, 100,000 items, 64 factors) an epoch of ``cg`` takes 5.5 CPU
seconds in 1 shard as in 16: 4.2 to 4.9 solve, 0.3 turn vectors, 0.1 are Gram matrices. Copying
grows with the shards, 128 MB and 0.2 s with 1, 511 MB and 0.4 s with 4, 1.7 GB and 0.8 s with 16.
On 30 million pairs it is 14 to 16 seconds, and 1.0 of them copy 1.5 GB for 4 shards. These are
shards in turn in one process. Actors on 2 cores took 1.1, 1.5 and 1.6 times the CPU seconds of one
process with 1, 2 and 4 shards of 10 million pairs, one process with 2 threads 1.3 times
(``tests/benchmarks/bench_sharded_als.py``); a worker held 590, 490 and 440 MB, 270 MB of it
libraries, and the driver 1 MB more than before.

A billion pairs, on paper: 40 million users and 10 million items, 64 shards on 8 nodes.

- *Time*: 500 CPU seconds an epoch, 8 s a shard, and 3 more for each to copy 5.3 GB.
- *Memory of a shard*: 250 MB of pairs mapped from the store, 130 MB of places in the copy, 200 MB
  of own vectors, and the copy: up to 3.3 GB of the 13 million users that its items' pairs name.
- *Memory of a node's store*: 2 GB of pairs, all blocks of one side (10.2 GB of users), and twice
  its own blocks to go back to: 16 GB.
- *Over the network*: each block once to each node, so 11 GB into a node an epoch, 9 s at 10
  Gbit/s. That does not shrink with more nodes, and past 64 shards it is the longer half.
- *Driver*: 40 GB of interactions, 8 for their transpose, 16 in its store; at the end 13 GB of
  vectors and the history, which is the interactions' own arrays.

What breaks first is the driver's memory; the cure is for shards to read the dataset's interaction
files, each of which is a range of users, and to exchange the pairs by item among themselves. Next
is the network: half precision halves it, and a node of one shard that is sent only the rows its
pairs name, as ALX gathers them, gets 5.3 of 12.8 GB; the 8 shards of a node name nearly all. Last
are popular items: a row is not cut, so one with more than a shard's share of the pairs sets the
time of the items' half; the cure is to sum its normal equations up over shards.

References:
    Mehta et al., ALX: Large scale matrix factorization on TPUs, 2021.
"""

# U users, I items, M rows of a shard, N rows of the other side, P pairs, D factors, S shards

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions
from perso.models.als_checkpoint import Checkpoint, Ranges, SideName
from perso.models.als_config import AlsConfig
from perso.models.als_encoder import AlsObjective
from perso.models.als_problem import Floats
from perso.models.als_side import Side, gram, turn

Gram = NDArray[np.float64]
"""Sum of the outer products of some vectors, shape (D, D)."""

_VECTORS_DRAWN_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class ShardData:
    """What a shard works on, as it travels to where the shard is."""

    number: int
    """From 0."""
    users: Side
    """The shard's users with all their pairs; items counted over the whole catalogue."""
    items: Side
    """The shard's items with all their pairs; users counted over all of them."""
    user_cuts_S1: NDArray[np.int64]
    """Where the users of each shard begin, and the end."""
    item_cuts_S1: NDArray[np.int64]
    """Where the items of each shard begin, and the end."""


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What all shards must know of the rows that one of them has solved."""

    gram_DD: Gram
    """Of the new vectors."""
    loss: float
    """The shard's part of the objective, without the unobserved pairs; 0 if not asked for."""
    copied_bytes: int
    """Vectors of the other side that were copied out of the blocks."""


def cut_shards(
    interactions: Interactions,
    objective: AlsObjective,
    *,
    num_users: int,
    num_items: int,
    num_shards: int,
) -> Iterator[ShardData]:
    """Each shard's pairs, once by user and once by item, shards of about equal work.

    A row is never cut, so a shard is empty where there are fewer rows than shards or one row is
    most of the work. The users' pairs are views; the items' are 8 bytes a pair, of all shards
    together until the last one is taken.

    Args:
        interactions: All pairs; not changed.
        objective: What training minimizes.
        num_users: Users that have interactions.
        num_items: Items that have interactions.
        num_shards: How many shards, 1 or more.
    """
    users = Side.users(interactions, objective, num_items)
    items = Side.items(interactions, objective, num_users)
    user_cuts_S1, item_cuts_S1 = (cut_by_work(side, num_shards) for side in (users, items))
    for number in range(num_shards):
        yield ShardData(
            number=number,
            users=_rows_of(users, *user_cuts_S1[number : number + 2]),
            items=_rows_of(items, *item_cuts_S1[number : number + 2]),
            user_cuts_S1=user_cuts_S1,
            item_cuts_S1=item_cuts_S1,
        )


def cut_by_work(side: Side, num_parts: int) -> NDArray[np.int64]:
    """Where to cut rows into contiguous parts of about equal work, shape (parts + 1,)."""
    work_M1 = side.work_M1
    targets = work_M1[-1] * np.arange(1, num_parts) / num_parts
    return np.concatenate([[0], np.searchsorted(work_M1, targets), [len(work_M1) - 1]])


def _rows_of(side: Side, start: int, stop: int) -> Side:
    first, end = side.indptr_M1[start], side.indptr_M1[stop]
    return replace(
        side,
        indptr_M1=side.indptr_M1[start : stop + 1] - first,
        indices=side.indices[first:end],
        weights=side.weights[first:end],
    )


class Shard:
    """Solves its own users and items, one side after the other, in step with all other shards.

    A step that changes vectors says which; :mod:`perso.models.als_rounds` has the order of steps.
    Blocks are one array of each shard's rows, in the order of shards; a shard copies out of them
    the rows that its own pairs name, and holds them as long as a step takes.

    Args:
        data: The shard's pairs; may be read-only.
        config: Sizes and solver.
        threads: Share the work of a step; see :func:`perso.models.als_side.open_threads`.
    """

    def __init__(self, data: ShardData, config: AlsConfig, threads: ThreadPoolExecutor) -> None:
        self._number = data.number
        self._config = config
        self._threads = threads
        self._users = _OwnRows(data.users, data.number, data.user_cuts_S1, data.item_cuts_S1)
        self._items = _OwnRows(data.items, data.number, data.item_cuts_S1, data.user_cuts_S1)
        self._sides: dict[SideName, _OwnRows] = {"users": self._users, "items": self._items}

    def start(self) -> Gram:
        """Take the vectors that an untrained model has; the Gram matrix of the items'."""
        num_factors = self._config.num_factors
        self._users.vectors_MD = np.zeros((len(self._users), num_factors), np.float32)
        item_MD = _draw_rows(self._config, self._items.start, self._items.stop)
        item_MD[np.diff(self._items.side.indptr_M1) == 0] = 0
        self._items.vectors_MD = item_MD
        return gram(self._threads, item_MD)

    def restore(self, user_blocks: Sequence[Floats], item_blocks: Sequence[Floats]) -> None:
        """Take a copy of the own vectors out of blocks."""
        self._users.vectors_MD = np.array(user_blocks[self._number])
        self._items.vectors_MD = np.array(item_blocks[self._number])

    def load(self, checkpoint: Checkpoint) -> Gram:
        """Take the own vectors out of a checkpoint; the Gram matrix of the items'."""
        for side, rows in self._sides.items():
            rows.vectors_MD = checkpoint.read(
                side, rows.start, rows.stop, num_factors=self._config.num_factors
            )
        return gram(self._threads, self._items.vectors_MD)

    def save(self, folder: Path) -> Ranges:
        """Write the own vectors as part of a checkpoint; which rows they are."""
        for side, rows in self._sides.items():
            Checkpoint.write(folder, side, rows.start, rows.vectors_MD)
        return {side: (rows.start, rows.stop) for side, rows in self._sides.items()}

    def publish_users(self, basis_DD: Floats) -> Floats:
        """Turn all own vectors into a basis; the users' are what others are to see of them."""
        turn(self._threads, basis_DD, self._users.vectors_MD, self._items.vectors_MD)
        return self._users.vectors_MD

    def publish_items(self, basis_DD: Floats) -> Floats:
        """Turn all own vectors into a basis; the items' are what others are to see of them."""
        turn(self._threads, basis_DD, self._items.vectors_MD, self._users.vectors_MD)
        return self._items.vectors_MD

    def item_rows(self) -> Floats:
        """The items' vectors as they stand."""
        return self._items.vectors_MD

    def solve_users(self, item_blocks: Sequence[Floats], gram_D: Floats) -> Solved:
        """Improve the own users by all items, whose Gram matrix is diagonal."""
        return self._improve(self._users, item_blocks, gram_D, with_loss=False)

    def solve_items(self, user_blocks: Sequence[Floats], gram_D: Floats, with_loss: bool) -> Solved:
        """Improve the own items by all users, whose Gram matrix is diagonal."""
        return self._improve(self._items, user_blocks, gram_D, with_loss=with_loss)

    def solve_users_exactly(self, item_blocks: Sequence[Floats], gram_D: Floats) -> Floats:
        """The own users' exact solution, as a model ends with it."""
        fixed_ND = self._users.gather(item_blocks, self._config.num_factors)
        self._users.side.solve(self._threads, fixed_ND, gram_D, self._users.vectors_MD)
        return self._users.vectors_MD

    def _improve(
        self, rows: "_OwnRows", blocks: Sequence[Floats], gram_D: Floats, *, with_loss: bool
    ) -> Solved:
        fixed_ND = rows.gather(blocks, self._config.num_factors)
        rows.side.improve(self._threads, self._config, fixed_ND, gram_D, rows.vectors_MD)
        loss = 0.0
        if with_loss:
            loss = rows.side.observed(self._threads, fixed_ND, rows.vectors_MD)
            loss += sum(own.side.penalty(own.vectors_MD) for own in (self._users, self._items))
        return Solved(
            gram_DD=gram(self._threads, rows.vectors_MD), loss=loss, copied_bytes=fixed_ND.nbytes
        )


class _OwnRows:
    """One side of a shard: its rows, and which rows of the other side they need."""

    vectors_MD: Floats

    def __init__(
        self,
        side: Side,
        number: int,
        cuts_S1: NDArray[np.int64],
        other_cuts_S1: NDArray[np.int64],
    ) -> None:
        self.start, self.stop = (int(cut) for cut in cuts_S1[number : number + 2])
        is_needed = np.zeros(other_cuts_S1[-1], np.bool_)
        is_needed[side.indices] = True
        place = np.cumsum(is_needed, dtype=np.int32) - np.int32(1)
        self.side = replace(side, indices=place[side.indices])
        needed_N = np.flatnonzero(is_needed)
        bounds_S1 = np.searchsorted(needed_N, other_cuts_S1)
        self._needed_by_block = [
            (needed_N[low:high] - cut).astype(np.int32)
            for low, high, cut in zip(
                bounds_S1[:-1], bounds_S1[1:], other_cuts_S1[:-1], strict=True
            )
        ]
        self._num_needed = len(needed_N)

    def __len__(self) -> int:
        return self.stop - self.start

    def gather(self, blocks: Sequence[Floats], num_factors: int) -> Floats:
        """The other side's vectors that these rows' pairs name, ascending, shape (N, D)."""
        fixed_ND = np.empty((self._num_needed, num_factors), np.float32)
        low = 0
        for block, needed in zip(blocks, self._needed_by_block, strict=True):
            high = low + len(needed)
            # "raise" would copy once more, to leave the output alone where an index is wrong.
            np.take(block, needed, axis=0, out=fixed_ND[low:high], mode="clip")
            low = high
        return fixed_ND


def _draw_rows(config: AlsConfig, start: int, stop: int) -> Floats:
    """Some of the rows that one generator draws for all items, as :func:`fit_als` does."""
    generator = np.random.default_rng(config.seed)
    for first in range(0, start, _VECTORS_DRAWN_AT_ONCE):
        skipped = min(_VECTORS_DRAWN_AT_ONCE, start - first)
        generator.standard_normal((skipped, config.num_factors), np.float32)
    rows_MD = generator.standard_normal((stop - start, config.num_factors), np.float32)
    rows_MD *= np.float32(config.init_std / np.sqrt(config.num_factors))
    return rows_MD
