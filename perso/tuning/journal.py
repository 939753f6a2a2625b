"""A search on disk: what is asked, and one file per trial, so that a killed search goes on.

A file appears whole or not at all, and a trial's file is written by whoever knows: its worker
after a measurement, its driver when it ends. The folder lies where every node sees it.
"""

# <searches>/<name>-<id>/search.json  trials/<number>.json  tune-<attempt>/…

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from perso.errors import ArtifactError, InputError
from perso.spec import spec_hash, spec_to_dict
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial

_SEARCH: Final = "search.json"
_TRIALS: Final = "trials"


def search_key(spec: SearchSpec, *data: str) -> str:
    """What makes two searches one: the resolved spec, and keys of the data that they read."""
    return spec_hash(spec_to_dict(spec), *data)


@dataclass(frozen=True)
class SearchJournal:
    """The folder of one search."""

    folder: Path

    @classmethod
    def begin(
        cls, searches: Path, spec: SearchSpec, *, key: str, run_id: str, now: datetime
    ) -> "SearchJournal":
        """A new search.

        Args:
            searches: Folder of all searches.
            spec: What is asked.
            key: From :func:`search_key`.
            run_id: Its run in the registry.
            now: Aware.
        """
        journal = cls(searches / f"{spec.name}-{run_id}")
        (journal.folder / _TRIALS).mkdir(parents=True)
        journal._write_head(
            {
                "key": key,
                "run_id": run_id,
                "begun_at": now.isoformat(),
                "ended_at": None,
                "attempts": 1,
                "spec": spec_to_dict(spec),
            }
        )
        return journal

    @classmethod
    def unfinished(cls, searches: Path, key: str) -> "SearchJournal | None":
        """The newest search of that key that has not ended."""
        begun = {
            head["begun_at"]: cls(path.parent)
            for path in searches.glob(f"*/{_SEARCH}")
            if (head := _read(path))["key"] == key and head["ended_at"] is None
        }
        return begun[max(begun)] if begun else None

    @property
    def run_id(self) -> str:
        """Its run in the registry."""
        run_id: str = self._head["run_id"]
        return run_id

    @property
    def begun_at(self) -> datetime:
        """When it was first begun, aware."""
        return datetime.fromisoformat(self._head["begun_at"])

    @property
    def attempt(self) -> int:
        """How often it was begun, from 1."""
        attempt: int = self._head["attempts"]
        return attempt

    def begin_again(self) -> None:
        """Count another attempt."""
        self._write_head(self._head | {"attempts": self.attempt + 1})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from running this search; the end of this one lets go.

        Raises:
            InputError: If another process runs it.
        """
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another process runs the search in {self.folder}; wait for it or end it, or "
                    "leave --resume out to begin another one"
                ) from error
            yield

    def end(self, now: datetime) -> None:
        """Mark the search as done: it will not be resumed."""
        self._write_head(self._head | {"ended_at": now.isoformat()})

    def write(self, trial: Trial) -> None:
        """Replace what is known of a trial."""
        _write(self._file(trial.number), trial.to_dict())

    def read(self, number: int) -> Trial | None:
        """What is known of a trial, None if it was never begun."""
        path = self._file(number)
        return _read_trial(path) if path.exists() else None

    def trials(self) -> list[Trial]:
        """Every trial that was begun, by number."""
        found = map(_read_trial, (self.folder / _TRIALS).glob("*.json"))
        return sorted(found, key=lambda trial: trial.number)

    def trial_folder(self, number: int, *, attempt: int) -> Path:
        """Where a trial of an attempt keeps its checkpoints."""
        return self.folder / f"tune-{attempt}" / f"{number:05d}"

    def checkpoints(self, number: int) -> Iterator[Path]:
        """Folders of a trial's checkpoints, newest first; the newest may be half written."""
        for attempt in range(self.attempt, 0, -1):
            yield from sorted(
                self.trial_folder(number, attempt=attempt).glob("checkpoint_*"), reverse=True
            )

    def shared_folder(self, number: int) -> Path:
        """Where processes that train a trial together keep their checkpoints."""
        return self.folder / "shared" / f"{number:05d}"

    @property
    def _head(self) -> dict[str, Any]:
        return _read(self.folder / _SEARCH)

    def _write_head(self, head: dict[str, Any]) -> None:
        _write(self.folder / _SEARCH, head)

    def _file(self, number: int) -> Path:
        return self.folder / _TRIALS / f"{number:05d}.json"


def _read_trial(path: Path) -> Trial:
    try:
        return Trial.of(_read(path))
    except ValueError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return document


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path} cannot be read: {error}; remove its search's folder and start that anew"
    )


def _write(path: Path, document: dict[str, Any]) -> None:
    # Not by process id: a worker and the driver may have the same one on two machines.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
