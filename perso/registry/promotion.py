"""Moving the champion: in steps of which each leaves a version that serves, and a true record.

The order is: record, ``previous``, ``champion``, ``challenger``, record's end. A process killed
after any of them has either not moved the champion, and then the next move puts ``previous`` back,
or has moved it, and then only the end of the record is missing.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from perso.errors import ChampionMovedError, NoChampionError
from perso.registry.aliases import CHALLENGER, CHAMPION, PREVIOUS, Aliases
from perso.registry.audit import AuditTrail, Kind, Move, Outcome
from perso.registry.store import Store

ANYONE: Final = "anyone"
"""In place of a version: whoever is champion is replaced."""

_PATIENCE: Final = timedelta(minutes=1)
"""Age from which a move on a server, where there is no lock, counts as abandoned."""

logger = logging.getLogger(__name__)


class Promotions:
    """Promotions and rollbacks of one registered model."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._aliases = Aliases(store, name)
        self._trail = AuditTrail(store, name)

    def history(self) -> list[Move]:
        """Every move, newest first; one that was cut off says whether it took place."""
        champion = self._aliases.version(CHAMPION)
        return [_settled(move, champion) for move in self._trail.moves()]

    def promote(
        self, version: str, *, instead_of: str | None, who: str | None, why: str, is_forced: bool
    ) -> None:
        """Make a version, which exists, the champion; the old one becomes ``previous``.

        Raises:
            ChampionMovedError: If the champion is neither the version nor ``instead_of``.
        """
        with self._store.moving_aliases():
            self._settle()
            current = self._aliases.version(CHAMPION)
            if instead_of != ANYONE and current not in (instead_of, version):
                raise ChampionMovedError(
                    f"version {version} was to replace {_named(instead_of)}, but the champion is "
                    f"{_named(current)} by now; judge it against that one"
                )
            self._move("promote", version, who=who, why=why, is_forced=is_forced)

    def roll_back(self, *, who: str | None, why: str) -> None:
        """Swap ``champion`` and ``previous``.

        Raises:
            NoChampionError: If there was no champion before the present one.
        """
        with self._store.moving_aliases():
            self._settle()
            previous = self._aliases.version(PREVIOUS)
            if previous is None:
                raise NoChampionError(
                    "there is no previous champion to go back to; `perso models promote` takes any "
                    "version"
                )
            self._move("rollback", previous, who=who, why=why, is_forced=False)

    def _move(
        self, kind: Kind, version: str, *, who: str | None, why: str, is_forced: bool
    ) -> None:
        current = self._aliases.version(CHAMPION)
        if current == version:
            return
        key = self._trail.begin(
            kind,
            from_version=current,
            to_version=version,
            previous=self._aliases.version(PREVIOUS),
            who=who,
            why=why,
            is_forced=is_forced,
        )
        if current is not None:
            self._aliases.point(PREVIOUS, current)
        self._aliases.point(CHAMPION, version)
        self._drop_challenger(version)
        self._trail.end(key, "done")
        logger.info("registry: %s version %s is champion", self._name, version)

    def _settle(self) -> None:
        """Finish the records of moves that were killed, and undo what they left half done."""
        champion = self._aliases.version(CHAMPION)
        for move in reversed(self._trail.moves()):
            if move.outcome is not None or not self._is_abandoned(move):
                continue
            settled = _settled(move, champion)
            if settled.outcome == "done":
                self._drop_challenger(move.to_version)
            elif self._aliases.version(PREVIOUS) != move.previous:
                self._aliases.point(PREVIOUS, move.previous)
            self._trail.end(move.key, settled.outcome or "interrupted")
            logger.warning("registry: a %s to version %s was cut off", move.kind, move.to_version)

    def _is_abandoned(self, move: Move) -> bool:
        return self._store.has_lock or datetime.now(UTC) - move.at > _PATIENCE

    def _drop_challenger(self, version: str) -> None:
        if self._aliases.version(CHALLENGER) == version:
            self._aliases.point(CHALLENGER, None)


def _named(version: str | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _settled(move: Move, champion: str | None) -> Move:
    """A move with its end; one without is done if its version is the champion."""
    if move.outcome is not None:
        return move
    outcome: Outcome = "done" if move.to_version == champion else "interrupted"
    return replace(move, outcome=outcome)
