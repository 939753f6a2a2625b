"""A training midway as a folder: arrays and JSON, so that another process can go on."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from perso.models.progress import load_state, save_state
from perso.tuning.trial import Snapshot, Trial

_SO_FAR: Final = "trial.json"


def save_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot into a folder."""
    save_state(folder, snapshot.state)
    (folder / _SO_FAR).write_text(json.dumps(snapshot.so_far.to_dict()), encoding="utf-8")


def load_snapshot(folder: Path) -> Snapshot:
    """The snapshot in a folder.

    Raises:
        OSError: If a part of it is missing.
        ValueError: If a part of it is damaged.
    """
    so_far = Trial.of(json.loads((folder / _SO_FAR).read_text(encoding="utf-8")))
    return Snapshot(state=load_state(folder), so_far=so_far)


def newest_snapshot(folders: Iterable[Path]) -> Snapshot | None:
    """The first of the folders that is whole; a worker may have died while it wrote one."""
    for folder in folders:
        try:
            return load_snapshot(folder)
        except (OSError, ValueError):
            continue
    return None
