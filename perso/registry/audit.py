"""The trail of who moved the champion, when, why, from where and to where.

A move is written down before it begins and again when it is over, so that a process killed in
between leaves a record that says so. Records are tags of the registered model: they live where
the versions live, on a server too, and nothing here changes or removes one.
"""

import getpass
import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from perso.registry.store import Store, load_mlflow

Kind = Literal["promote", "rollback"]
Outcome = Literal["done", "interrupted"]

_PREFIX: Final = "move/"
_OUTCOME: Final = "/outcome"
_LONGEST_REASON: Final = 2000
"""Characters of a reason that are kept: MLflow's table holds 5,000 of everything."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One promotion or rollback."""

    kind: Kind
    from_version: str | None
    """The champion before it; None for the first one."""
    to_version: str
    at: datetime
    """When it began, UTC."""
    who: str
    why: str
    is_forced: bool = False
    """Whether a person overruled the gate."""
    previous: str | None = None
    """The version to which a rollback would have gone before it."""
    outcome: Outcome | None = None
    """None: it began, and nobody has written down yet how it ended."""
    key: str = ""
    """Of its record."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the record's inner matters."""
        fields = asdict(self) | {"at": self.at.isoformat()}
        return {name: fields[name] for name in fields if name not in ("previous", "key")}


class AuditTrail:
    """The moves of one registered model."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def moves(self) -> list[Move]:
        """Every move, newest first."""
        if not self._store.exists:
            return []
        try:
            tags = self._store.client.get_registered_model(self._name).tags
        except load_mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return []
        keys = [key for key in tags if key.startswith(_PREFIX) and not key.endswith(_OUTCOME)]
        moves = [_read(key, tags[key], tags.get(key + _OUTCOME)) for key in keys]
        return sorted(moves, key=lambda move: (move.key.split("/")[1], move.at), reverse=True)

    def begin(
        self,
        kind: Kind,
        *,
        from_version: str | None,
        to_version: str,
        previous: str | None,
        who: str | None,
        why: str,
        is_forced: bool,
    ) -> str:
        """The key of a new record, written before anything moves."""
        record = {
            "kind": kind,
            "from_version": from_version,
            "to_version": to_version,
            "previous": previous,
            "at": datetime.now(UTC).isoformat(),
            "who": who or whoami(),
            "why": why if len(why) <= _LONGEST_REASON else why[: _LONGEST_REASON - 1] + "…",
            "is_forced": is_forced,
        }
        # The last part keeps two apart that count alike on a server at the same moment.
        key = f"{_PREFIX}{len(self.moves()) + 1:06d}/{uuid.uuid4().hex[:8]}"
        text = json.dumps(record, ensure_ascii=False)
        self._store.client.set_registered_model_tag(self._name, key, text)
        return key

    def end(self, key: str, outcome: Outcome) -> None:
        """Write down how a move ended."""
        self._store.client.set_registered_model_tag(self._name, key + _OUTCOME, outcome)


def whoami() -> str:
    """``$PERSO_USER``, else this user on this machine."""
    if named := os.environ.get("PERSO_USER"):
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _read(key: str, text: str, outcome: Any) -> Move:
    record = json.loads(text)
    return Move(**record | {"at": datetime.fromisoformat(record["at"])}, outcome=outcome, key=key)
