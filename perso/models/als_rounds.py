"""The order of steps of an ALS training in shards, and what happens when a shard is lost.

A half epoch is two steps of every shard. *Publish*: the sum of all Gram matrices, D² numbers, has
an eigenbasis; every shard turns its vectors into it and hands out those of the fixed side as a
block. *Solve*: every shard copies the rows that its pairs name out of all blocks, solves its own
rows as :func:`perso.models.als.fit_als` does, and returns their Gram matrix. Here pass handles of
blocks and matrices of D² numbers, never a vector, but for the model at the end.

A shard that is lost takes its vectors with it, and the others stand somewhere within the epoch.
So all go back to the end of the last epoch: to its blocks, which outlive the shards that made
them; where these are gone too, with the node that held them, to the last checkpoint; without one,
to the start. Steps depend on nothing else, so the result is the undisturbed one's, byte for byte.

Where shards are is a :class:`perso.models.als_crew.Crew`'s matter.
"""

# U users, I items, D factors

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar
from zlib import crc32

import numpy as np

from perso.data.prepared import Interactions
from perso.errors import ArtifactError
from perso.models.als import model_of
from perso.models.als_checkpoint import CheckpointFolder
from perso.models.als_config import AlsConfig
from perso.models.als_crew import Block, Crew
from perso.models.als_encoder import AlsObjective
from perso.models.als_problem import Floats
from perso.models.als_shards import Gram, Shard
from perso.models.als_side import eigenbasis, open_threads
from perso.models.factors import FactorModel
from perso.models.progress import OnEpoch, Progress

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_TRIES: Final = 3
"""Of one step; what kills a shard three times is no accident."""


@dataclass(frozen=True, kw_only=True)
class Standing(Generic[Block]):
    """Where all shards stand at the end of an epoch."""

    epoch: int
    """Epochs that are done."""
    item_gram_DD: Gram
    """Of all items."""
    user_blocks: Sequence[Block] = ()
    """All users' vectors; none at the start and behind a checkpoint."""
    item_blocks: Sequence[Block] = ()
    """All items' vectors, likewise."""
    loss: float = 0.0
    """The objective; 0 if not asked for."""
    copied_bytes: int = 0
    """Vectors that shards have copied out of blocks in this epoch."""


def run_epoch(
    crew: Crew[Block], standing: Standing[Block], objective: AlsObjective, *, with_loss: bool
) -> Standing[Block]:
    """Solve all users, then all items.

    Args:
        crew: Stands where ``standing`` says.
        standing: The end of the epoch before.
        objective: What training minimizes.
        with_loss: Work out the objective too, about a CG step more.
    """
    gram_D, basis_DD = eigenbasis(standing.item_gram_DD)
    item_blocks = crew.make(Shard.publish_items, basis_DD)
    users = crew.tell(Shard.solve_users, gram_D, blocks=[item_blocks])
    gram_D, basis_DD = eigenbasis(sum_of(solved.gram_DD for solved in users))
    user_blocks = crew.make(Shard.publish_users, basis_DD)
    items = crew.tell(Shard.solve_items, gram_D, with_loss, blocks=[user_blocks])
    item_gram_DD = sum_of(solved.gram_DD for solved in items)
    unobserved = objective.unobserved_weight * float(gram_D @ np.diag(item_gram_DD))
    return Standing(
        epoch=standing.epoch + 1,
        item_gram_DD=item_gram_DD,
        user_blocks=user_blocks,
        item_blocks=crew.make(Shard.item_rows),
        loss=sum(solved.loss for solved in items) + unobserved if with_loss else 0.0,
        copied_bytes=sum(solved.copied_bytes for solved in (*users, *items)),
    )


def sum_of(grams: Iterable[Gram]) -> Gram:
    """The Gram matrix of all shards' vectors, added up in the order of shards."""
    first, *others = grams
    return sum(others, first)


class ShardedTraining(Generic[Block]):
    """A training by a crew, which goes on where a checkpoint stands and shards were lost.

    Args:
        crew: All shards; they need not have vectors.
        interactions: What the shards were cut from.
        objective: What they minimize.
        config: What they were made with.
        checkpoints: Where vectors are kept; None keeps none.
    """

    def __init__(
        self,
        crew: Crew[Block],
        interactions: Interactions,
        objective: AlsObjective,
        config: AlsConfig,
        *,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self._crew = crew
        self._interactions = interactions
        self._objective = objective
        self._config = config
        self._checkpoints = checkpoints
        self._with_loss = False
        self._standing: Standing[Block] | None = None
        """None: the crew stands anywhere, or has no vectors."""

    def run(self, on_epoch: OnEpoch | None) -> FactorModel:
        """All epochs that are left, and the model.

        Args:
            on_epoch: Called after each epoch; the states of all shards stay where they are, so it
                gets none.

        Raises:
            ArtifactError: If the checkpoint is of another training or of more epochs, or damaged.
            Exception: One of the crew's ``lost`` if a step has lost a shard three times in a row.
        """
        self._with_loss = on_epoch is not None
        with open_threads(1):  # the driver's own D x D matrices, as fit_als works on them
            begun = self._insist(self._stand).epoch
            if begun > self._config.epochs:
                raise ArtifactError(
                    f"the checkpoint stands after epoch {begun}, and epochs is "
                    f"{self._config.epochs}; train for as many, or name another folder"
                )
            for epoch in range(begun + 1, self._config.epochs + 1):
                self._insist(partial(self._advance, epoch))
                if self._checkpoints is not None and self._checkpoints.is_due(epoch):
                    self._insist(partial(self._save, epoch))
                if on_epoch is not None:
                    on_epoch(self._progress(epoch))
            return self._insist(partial(self._model, self._config.epochs))

    def _insist(self, step: Callable[[], Result]) -> Result:
        """What a step returns, done again on restored shards where one was lost."""
        tries = 1
        while True:
            try:
                return step()
            except self._crew.lost as error:
                if tries == _TRIES:
                    raise
                lost = type(error).__name__
                logger.warning("als: a shard is lost (%s); going back to what is kept", lost)
                tries += 1
                self._step_back()

    def _step_back(self) -> None:
        """Stand at the end of the last epoch if its blocks are there, else nowhere."""
        standing, self._standing = self._standing, None
        try:
            self._crew.mend()
            if standing is not None and standing.user_blocks:
                blocks = [standing.user_blocks, standing.item_blocks]
                self._crew.tell(Shard.restore, blocks=blocks)
                self._standing = standing
        except self._crew.lost as error:
            lost = type(error).__name__
            logger.warning("als: the last epoch's vectors are lost too (%s)", lost)

    def _stand(self) -> Standing[Block]:
        """Where the crew stands; at the last checkpoint or the start if it stands nowhere."""
        if self._standing is None:
            self._crew.mend()
            checkpoint = self._checkpoints.latest() if self._checkpoints is not None else None
            if checkpoint is None:
                grams = self._crew.tell(Shard.start)
            else:
                logger.info("als: going on after epoch %d", checkpoint.epoch)
                grams = self._crew.tell(Shard.load, checkpoint)
            self._standing = Standing(
                epoch=checkpoint.epoch if checkpoint is not None else 0,
                item_gram_DD=sum_of(grams),
            )
        return self._standing

    def _advance(self, epoch: int) -> Standing[Block]:
        """Stand at the end of an epoch, from wherever the crew stands."""
        standing = self._stand()
        while standing.epoch < epoch:
            started = time.perf_counter()
            standing = run_epoch(self._crew, standing, self._objective, with_loss=self._with_loss)
            self._standing = standing
            logger.info(
                "als: epoch %d of %d, %.0f MB of vectors copied (%.1f s)",
                standing.epoch,
                self._config.epochs,
                standing.copied_bytes / 1e6,
                time.perf_counter() - started,
            )
        return standing

    def _save(self, epoch: int) -> None:
        assert self._checkpoints is not None
        self._advance(epoch)
        place = self._checkpoints.begin(epoch)
        self._checkpoints.complete(epoch, self._crew.tell(Shard.save, place))

    def _progress(self, epoch: int) -> Progress:
        loss = self._insist(partial(self._advance, epoch)).loss

        def model() -> FactorModel:
            made = self._insist(partial(self._model, epoch))
            self._step_back()
            return made

        return Progress(epoch=epoch, loss=loss / len(self._interactions), model=model, state=None)

    def _model(self, epoch: int) -> FactorModel:
        """The model as if training ended after an epoch; the shards stand anywhere then."""
        standing = self._advance(epoch)
        gram_D, basis_DD = eigenbasis(standing.item_gram_DD)
        item_blocks = self._crew.make(Shard.publish_items, basis_DD)
        user_blocks = self._crew.make(Shard.solve_users_exactly, gram_D, blocks=[item_blocks])
        return model_of(
            self._interactions,
            self._objective,
            user_UD=self._stack(user_blocks, self._interactions.num_users),
            item_ID=self._stack(item_blocks, self._interactions.num_items),
            gram_D=gram_D,
        )

    def _stack(self, blocks: Sequence[Block], num_rows: int) -> Floats:
        """All rows of one side, block after block."""
        stacked = np.empty((num_rows, self._config.num_factors), np.float32)
        start = 0
        for block in blocks:
            rows_MD = self._crew.fetch(block)
            stacked[start : start + len(rows_MD)] = rows_MD
            start += len(rows_MD)
        return stacked


def identity_of(interactions: Interactions, config: AlsConfig) -> dict[str, Any]:
    """What two trainings share whose vectors may go on from each other, by name."""
    settings = asdict(config)
    settings.pop("epochs")  # a training may go on for longer
    arrays = (interactions.user_indices, interactions.item_indices, interactions.weights)
    checksum = 0
    for array in arrays:
        checksum = crc32(np.ascontiguousarray(array).view(np.uint8).data, checksum)
    shape = [interactions.num_users, interactions.num_items, len(interactions)]
    return settings | {"users, items, pairs": shape, "checksum of pairs": checksum}
