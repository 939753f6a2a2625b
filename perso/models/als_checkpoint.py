"""Vectors of an ALS training on disk, written by many shards and complete at one rename.

    <folder>/manifest.json           epoch and files of the checkpoint that counts, and of what
    <folder>/epoch-00004/users-<first row>-<end>.npy, …, items-<first row>-<end>.npy, …

Each shard writes its own rows. The manifest comes last; what is beside the folder it names, a
killed training has left or a newer checkpoint replaces. A shard reads the rows it owns out of
whichever files hold them, so a training goes on with another number of shards than it began with.
"""

# M rows, S shards, D factors

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perso.errors import ArtifactError

SideName = Literal["users", "items"]
Ranges = Mapping[SideName, tuple[int, int]]
"""First row and end of each side of a shard."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    """Where the vectors are."""
    epoch: int
    """Epochs that were done."""
    ranges: Sequence[Ranges]
    """The rows of each shard that wrote it."""

    @staticmethod
    def write(folder: Path, side: SideName, start: int, vectors_MD: NDArray[np.float32]) -> None:
        """Write the rows from ``start`` on; a repeat writes the same file."""
        path = _file(folder, side, start, start + len(vectors_MD))
        # Shards without rows share a name, and one that was given up may still write its own.
        fresh = path.with_suffix(f".{uuid.uuid4().hex}.new")
        with fresh.open("xb") as file:
            np.save(file, vectors_MD)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def read(
        self, side: SideName, start: int, stop: int, *, num_factors: int
    ) -> NDArray[np.float32]:
        """Rows ``start`` to ``stop`` of a side, shape (M, D).

        Raises:
            ArtifactError: If a file is missing or is not what the manifest says.
        """
        vectors_MD = np.empty((stop - start, num_factors), np.float32)
        for first, end in (ranges[side] for ranges in self.ranges):
            low, high = max(start, first), min(stop, end)
            if low >= high:
                continue
            path = _file(self.folder, side, first, end)
            try:
                vectors_MD[low - start : high - start] = np.load(path, mmap_mode="r")[
                    low - first : high - first
                ]
            except (OSError, ValueError) as error:
                raise ArtifactError(
                    f"{path} cannot be read ({error}); remove the checkpoint folder to start anew"
                ) from error
        return vectors_MD


class CheckpointFolder:
    """The checkpoints of one training, of which the last complete one counts.

    Args:
        folder: On a disk that every shard sees; made where there is none.
        training: What the vectors are of: a checkpoint of anything else is refused.
        every: Epochs from one checkpoint to the next.

    Raises:
        ValueError: If ``every`` is below 1.
    """

    def __init__(self, folder: Path, training: Mapping[str, Any], *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"{every} epochs from one checkpoint to the next; give 1 or more")
        self._folder = folder
        self._every = every
        self._training = json.loads(json.dumps(training))
        folder.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Checkpoint | None:
        """The checkpoint that counts, None before the first.

        Raises:
            ArtifactError: If it is of another training, or the manifest cannot be read.
        """
        path = self._folder / "manifest.json"
        if not path.exists():
            return None
        try:
            manifest = json.loads(path.read_text())
            found, epoch = dict(manifest["training"]), int(manifest["epoch"])
            ranges: list[Ranges] = [
                {"users": (users[0], users[1]), "items": (items[0], items[1])}
                for users, items in zip(manifest["users"], manifest["items"], strict=True)
            ]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ArtifactError(
                f"{path} is no checkpoint's manifest ({error!r}); remove the checkpoint folder to "
                "start anew"
            ) from error
        differing = [
            f"{name} {found.get(name)!r} for {self._training.get(name)!r}"
            for name in sorted(found.keys() | self._training.keys())
            if found.get(name) != self._training.get(name)
        ]
        if differing:
            raise ArtifactError(
                f"{self._folder} holds a checkpoint of another training: {', '.join(differing)}; "
                "name another folder, or remove this one to start anew"
            )
        return Checkpoint(folder=self._place(epoch), epoch=epoch, ranges=ranges)

    def is_due(self, epoch: int) -> bool:
        """Whether there is to be a checkpoint after an epoch."""
        return epoch % self._every == 0

    def begin(self, epoch: int) -> Path:
        """Where the shards are to write their vectors after an epoch."""
        place = self._place(epoch)
        place.mkdir(exist_ok=True)
        return place

    def complete(self, epoch: int, ranges: Sequence[Ranges]) -> None:
        """Make the checkpoint that all shards have written the one that counts."""
        manifest = {
            "epoch": epoch,
            "users": [of_shard["users"] for of_shard in ranges],
            "items": [of_shard["items"] for of_shard in ranges],
            "training": self._training,
        }
        fresh = self._folder / ".manifest.new"
        with fresh.open("w") as file:
            json.dump(manifest, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / "manifest.json")
        for place in self._folder.glob("epoch-*"):
            if place != self._place(epoch):
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:05d}"


def _file(folder: Path, side: SideName, start: int, stop: int) -> Path:
    return folder / f"{side}-{start:012d}-{stop:012d}.npy"
