"""What every back end of the event log promises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perso.stream.event import Event, LoggedEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class AppendResult:
    """What became of the events of one append."""

    accepted: int
    """Events that are new and now durable."""
    duplicates: int
    """Events whose ``event_id`` was already known, in the log or earlier in the same append."""


class EventStream(Protocol):
    """A durable, idempotent, ordered log of events.

    Every method raises :class:`perso.errors.EventLogError` where the back end cannot answer.
    """

    def append(self, events: Sequence[Event]) -> AppendResult:
        """Store all events or none; they survive a crash once this returns."""
        ...

    def recent(
        self, *, user_id: str | None = None, session_id: str | None = None, limit: int = 100
    ) -> list[Event]:
        """The newest events of a user, of a session or of both, each once, newest first.

        A session gives its anonymous events only, those without a ``user_id``: shoppers who share
        a device, and with it a session, must not learn what another one did while logged in. So
        who logged in asks with the ``user_id`` too, and then also gets what was done in the
        session before. Impressions are left out: they say what was shown, not what the shopper
        did.
        """
        ...

    def read_from(self, offset: int = 0, limit: int = 10_000) -> list[LoggedEvent]:
        """Events at ``offset`` and after, in order of their offsets, for export and replay."""
        ...
