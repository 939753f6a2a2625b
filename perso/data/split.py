"""The global temporal split: train, then validation, then test, cut at two instants."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from perso.errors import InputError
from perso.schema import SPLITS, Split


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """Where the two cuts fall."""

    validation_fraction: float = 0.1
    """Share of the events in the period before the test period."""
    test_fraction: float = 0.1
    """Share of the events in the last period."""

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 < value < 0.5:
                raise ValueError(f"{name} is {value}; give a share between 0 and 0.5")


@dataclass(frozen=True, kw_only=True)
class SplitEnds:
    """The instants (UTC) that end the three periods; each period excludes its end."""

    train: datetime
    validation: datetime
    test: datetime

    def end_of(self, split: Split) -> datetime:
        """The end of one period."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def as_dict(self) -> dict[str, str]:
        """ISO 8601 instants by split name, for the manifest."""
        return {split: self.end_of(split).isoformat() for split in SPLITS}


def split_by_time(events_by_hour: Mapping[int, int], spec: SplitSpec) -> SplitEnds:
    """The cuts that leave about the asked shares of events in validation and test.

    Cuts fall on full hours, so that a histogram is all they need: memory grows with the
    length of the period, not with the number of events.

    Args:
        events_by_hour: Number of events per hour since the epoch (UTC).
        spec: The shares.

    Raises:
        InputError: If the events span too few hours for three non-empty periods.
    """
    hours = sorted(hour for hour, count in events_by_hour.items() if count)
    total = sum(events_by_hour.values())
    if len(hours) < 3:
        raise InputError(
            f"the events span {len(hours)} distinct hours; a split by time needs at least 3"
        )
    test_start = _hour_leaving(hours, events_by_hour, share=spec.test_fraction * total)
    earlier = [hour for hour in hours if hour < test_start]
    validation_start = _hour_leaving(
        earlier, events_by_hour, share=spec.validation_fraction * total
    )
    if not [hour for hour in earlier if hour < validation_start]:
        raise InputError(
            "too many events fall into too few hours to cut train, validation and test apart; "
            "give events over a longer time or smaller fractions"
        )
    return SplitEnds(
        train=_instant(validation_start),
        validation=_instant(test_start),
        test=_instant(hours[-1] + 1),
    )


def _hour_leaving(hours: list[int], counts: Mapping[int, int], *, share: float) -> int:
    """The latest hour from which on at least ``share`` events happen, never the first hour."""
    later = 0
    for hour in reversed(hours[1:]):
        later += counts[hour]
        if later >= share:
            return hour
    return hours[min(1, len(hours) - 1)]


def _instant(hour: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
