"""Where the shards of an ALS training are, for rules that do not care."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from perso.models.als_config import AlsConfig
from perso.models.als_problem import Floats
from perso.models.als_shards import Shard, ShardData

Block = TypeVar("Block")
"""A handle of an array that a shard has made."""
Result = TypeVar("Result")


class Crew(Protocol[Block]):
    """All shards of a training, wherever they are."""

    lost: tuple[type[Exception], ...]
    """What is raised when a shard or a block is gone."""

    def tell(
        self, step: Callable[..., Result], *arguments: Any, blocks: Sequence[Sequence[Block]] = ()
    ) -> list[Result]:
        """What the step returns of each shard.

        Args:
            step: A method of :class:`Shard`, whose first arguments are the arrays of ``blocks``.
            arguments: Its other arguments, the same for all shards.
            blocks: Handles, one of each shard, per argument.
        """
        ...

    def make(
        self, step: Callable[..., Floats], *arguments: Any, blocks: Sequence[Sequence[Block]] = ()
    ) -> list[Block]:
        """Handles of what the step returns of each shard, as it is now; as in :meth:`tell`."""
        ...

    def fetch(self, block: Block) -> Floats:
        """The array of a block, read-only."""
        ...

    def mend(self) -> None:
        """Replace the shards that are lost, by ones without vectors."""
        ...


class ShardLoop:
    """Shards in this process, one after the other: what every other crew must equal."""

    lost: tuple[type[Exception], ...] = ()

    def __init__(
        self, shards: Iterable[ShardData], config: AlsConfig, threads: ThreadPoolExecutor
    ) -> None:
        self._shards = [Shard(data, config, threads) for data in shards]

    def tell(
        self, step: Callable[..., Result], *arguments: Any, blocks: Sequence[Sequence[Floats]] = ()
    ) -> list[Result]:
        """As in :class:`Crew`."""
        return [step(shard, *blocks, *arguments) for shard in self._shards]

    def make(
        self, step: Callable[..., Floats], *arguments: Any, blocks: Sequence[Sequence[Floats]] = ()
    ) -> list[Floats]:
        """As in :class:`Crew`."""
        return [np.array(made) for made in self.tell(step, *arguments, blocks=blocks)]

    def fetch(self, block: Floats) -> Floats:
        """As in :class:`Crew`."""
        return block

    def mend(self) -> None:
        """As in :class:`Crew`; none is ever lost."""
