"""One event as it travels between the service, the log and whoever reads the log."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What happened, in the fields of ``perso.schema.EVENT_SCHEMA``.

    Whether the values make sense is checked where events enter; a log stores what it is given.
    """

    event_id: str
    """Chosen by the sender; the second event of the same id is a repetition, not news."""
    event_type: str
    """One of ``perso.schema.EVENT_TYPES`` or a custom name."""
    timestamp: datetime
    """When it happened, UTC and aware, to the microsecond."""
    user_id: str | None = None
    """The customer, where known; user_id or session_id is given."""
    session_id: str | None = None
    """The visit, anonymous or not."""
    item_id: str | None = None
    """The item it happened to."""
    value: float | None = None
    """Revenue of a purchase, stars of a rating, seconds of a dwell."""
    quantity: int | None = None
    """Pieces in a cart or purchase line."""
    currency: str | None = None
    """ISO 4217 code of ``value`` and ``price``."""
    request_id: str | None = None
    """The answer of ours that this event reacts to."""
    device: str | None = None
    """Context: the kind of device."""
    region: str | None = None
    """Context: where the shopper is."""
    campaign: str | None = None
    """Context: what brought the shopper here."""
    consent: bool | None = None
    """Whether the shopper agreed to personalization; null: not asked."""
    price: float | None = None
    """Unit price, where the event carries its item's card."""
    item_name: str | None = None
    """Title, where the event carries its item's card."""
    item_category: str | None = None
    """Category, where the event carries its item's card."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedEvent:
    """An event with its place in the log."""

    offset: int
    """Grows with every append; gaps are normal."""
    received_at: datetime
    """When the log acknowledged it, UTC."""
    event: Event
    """What was appended."""
