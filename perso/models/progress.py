"""How far a training has come, and how it is stopped, kept and taken up again.

A family with epochs is a :class:`Training`: it runs one epoch after the other, and after each of
them it can tell the model that it would be now, and the state that another process goes on from.
:func:`train` is the one loop over epochs. Which arrays make up a state is the family's business;
that they are arrays only, and that they fit, is decided here.
"""

import os
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from perso.models.protocol import Recommender

TrainingState = Mapping[str, NDArray[Any]]
"""All that a training has to know to go on, by name."""

_FILE: Final = "state.npz"
_MOST_NAMED: Final = 3
_Model = TypeVar("_Model", bound=Recommender)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a training says after an epoch.

    ``model`` and ``state`` are to be called before the next epoch runs, or not at all; neither
    changes what the training goes on to do.
    """

    epoch: int
    """From 1."""
    loss: float
    """Mean training loss per interaction."""
    model: Callable[[], Recommender] | None
    """The model as if training ended here, which costs what the end of training does; None where
    it cannot end midway."""
    state: Callable[[], TrainingState] | None
    """A copy of what ``resume`` continues from; None where it cannot be continued."""


OnEpoch = Callable[[Progress], None]
"""Called after each epoch; what it raises ends the training and reaches the caller."""


class Training(Protocol):
    """A training between two epochs."""

    @property
    def epoch(self) -> int:
        """Epochs that have been run."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether there is no epoch left to run."""
        ...

    def run_epoch(self) -> None:
        """One more epoch."""
        ...

    def loss(self) -> float:
        """Mean training loss per interaction in the last epoch; may cost something."""
        ...

    def state(self) -> TrainingState:
        """A copy of all that the epochs to come depend on."""
        ...

    def resume(self, state: TrainingState) -> None:
        """Stand where the training stood whose state this is.

        Raises:
            ValueError: If the state has other arrays, or arrays of other shapes.
        """
        ...


def train(
    training: Training,
    model: Callable[[], _Model],
    *,
    on_epoch: OnEpoch | None,
    resume: TrainingState | None,
) -> _Model:
    """Run the epochs that are left and return the model.

    Args:
        training: At its start.
        model: What the training would be if it ended now; leaves it as it is.
        on_epoch: Called after each epoch. The loss is worked out only if it is given.
        resume: State of an earlier training to go on from; one that has run all its epochs gives
            its model.

    Raises:
        ValueError: See :meth:`Training.resume`.
    """
    if resume is not None:
        training.resume(resume)
    while not training.is_over:
        training.run_epoch()
        if on_epoch is not None:
            on_epoch(
                Progress(
                    epoch=training.epoch, loss=training.loss(), model=model, state=training.state
                )
            )
    return model()


def check_state(state: TrainingState, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a state whose arrays are not those of a training.

    Raises:
        ValueError: With the first names and shapes that differ.
    """
    found = {name: array.shape for name, array in state.items()}
    differing = [
        f"{name}: {found.get(name, 'none')} in place of {shapes.get(name, 'none')}"
        for name in sorted(found.keys() | shapes.keys())
        if found.get(name) != shapes.get(name)
    ]
    if differing:
        more = f" and {len(differing) - _MOST_NAMED} more" if differing[_MOST_NAMED:] else ""
        raise ValueError(
            "the state does not fit this training; shapes differ: "
            f"{', '.join(differing[:_MOST_NAMED])}{more}; resume with the data, family, sizes, "
            "optimizer and patience that the state was saved under"
        )


def save_state(folder: Path, state: TrainingState) -> None:
    """Keep a state in a folder, which is made where there is none.

    A state that is there already is replaced in one step: whatever ends this process, the folder
    has the one or the other, whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{_FILE}.{uuid.uuid4().hex}"
    try:
        with unfinished.open("xb") as file:
            np.savez(file, allow_pickle=False, **state)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / _FILE)
    finally:
        unfinished.unlink(missing_ok=True)


def load_state(folder: Path) -> TrainingState:
    """The state that was saved into a folder.

    Raises:
        OSError: If there is none.
        ValueError: If it is damaged, or holds anything but plain arrays.
    """
    path = folder / _FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no whole training state ({error}); train anew") from error
