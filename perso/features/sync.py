"""The nightly sync: the newest committed rows of every view go online, all or none of them.

Decides what is loaded (per view the newest instant), in which order (the views of the same users
one after another, for stores that cannot switch everything at once), and what is reported. Memory:
one batch, about 50 MB. Online values never go back in time: rows pushed since the instant stay.
"""

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from perso.dictionary import VIEWS
from perso.errors import FeatureStoreError
from perso.features.encoding import Encoded, encode
from perso.features.files import replace_file
from perso.features.online_writer import OnlineWriter
from perso.features.rows import COMPUTE_CURE, FeatureRows

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 10_000
REPORT_NAME: Final = "sync.json"


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What one sync brought online."""

    as_of: datetime
    """The newest instant; a view that has none of its own at it was loaded from an older one."""
    view_as_ofs: Mapping[str, datetime]
    """Per view the instant that was loaded."""
    num_rows: Mapping[str, int]
    """Rows by view."""
    seconds: float
    rows_per_s: float
    synced_at: datetime
    """When it was finished."""

    @property
    def age(self) -> timedelta:
        """How old the rows were when they came online."""
        return self.synced_at - self.as_of

    def to_dict(self) -> dict[str, Any]:
        """For JSON; instants as ISO 8601."""
        plain = asdict(self) | {"age_hours": round(self.age / timedelta(hours=1), 3)}
        plain["as_of"] = self.as_of.isoformat()
        plain["synced_at"] = self.synced_at.isoformat()
        plain["view_as_ofs"] = {view: at.isoformat() for view, at in self.view_as_ofs.items()}
        plain["num_rows"] = dict(self.num_rows)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "SyncReport":
        """What :meth:`to_dict` gave."""
        return cls(
            as_of=datetime.fromisoformat(plain["as_of"]),
            view_as_ofs={v: datetime.fromisoformat(at) for v, at in plain["view_as_ofs"].items()},
            num_rows=dict(plain["num_rows"]),
            seconds=float(plain["seconds"]),
            rows_per_s=float(plain["rows_per_s"]),
            synced_at=datetime.fromisoformat(plain["synced_at"]),
        )

    def __str__(self) -> str:
        return (
            f"{sum(self.num_rows.values())} rows of {len(self.num_rows)} views as of {self.as_of} "
            f"online in {self.seconds:.1f} s ({self.rows_per_s:.0f} rows/s), "
            f"{_in_words(self.age)} old"
        )


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How old the online values are; None where nothing was ever brought online."""

    as_of: datetime | None
    age: timedelta | None
    synced_at: datetime | None
    newest_written: datetime | None
    """The newest instant on disk; after ``as_of``, a sync is due."""

    def __str__(self) -> str:
        if self.as_of is None or self.age is None:
            return "nothing was ever brought online; run `perso features sync`"
        text = f"online values are as of {self.as_of}, {_in_words(self.age)} old"
        if self.newest_written is not None and self.newest_written > self.as_of:
            text += f"; rows as of {self.newest_written} wait for `perso features sync`"
        return text


def sync_rows(rows: FeatureRows, writer: OnlineWriter, folder: Path) -> SyncReport:
    """Bring the newest committed rows of every view online and leave the report in ``folder``.

    Raises:
        FeatureStoreError: If nothing was ever committed, or another sync of this folder runs.
    """
    found = {view: rows.newest(view) for view in VIEWS}
    as_ofs = {view: at for view, at in found.items() if at is not None}
    if not as_ofs:
        raise FeatureStoreError(f"no rows were ever written; {COMPUTE_CURE}")
    started = time.perf_counter()
    with _alone(folder / ".sync.lock"):
        counts = dict.fromkeys(as_ofs, 0)
        writer.load(_in_turns(rows, as_ofs, counts, with_texts=writer.with_texts))
        seconds = time.perf_counter() - started
        report = SyncReport(
            as_of=max(as_ofs.values()),
            view_as_ofs=as_ofs,
            num_rows=counts,
            seconds=round(seconds, 3),
            rows_per_s=round(sum(counts.values()) / seconds, 1),
            synced_at=datetime.now(UTC),
        )
        text = json.dumps(report.to_dict(), indent=1)
        replace_file(folder / REPORT_NAME, text.encode())
    logger.info("features: %s", report)
    return report


def read_freshness(rows: FeatureRows, folder: Path, *, now: datetime) -> Freshness:
    """What the last sync left, seen from ``now``."""
    newest = max(rows.written(), default=None)
    try:
        report = SyncReport.from_dict(json.loads((folder / REPORT_NAME).read_text()))
    except FileNotFoundError:
        return Freshness(as_of=None, age=None, synced_at=None, newest_written=newest)
    return Freshness(
        as_of=report.as_of,
        age=now - report.as_of,
        synced_at=report.synced_at,
        newest_written=newest,
    )


def _in_turns(
    rows: FeatureRows,
    as_ofs: Mapping[str, datetime],
    counts: dict[str, int],
    *,
    with_texts: bool,
) -> Iterator[Encoded]:
    """One batch of each view after another; the views of an instant share the order of users."""
    waiting = {view: rows.batches(view, at, size=BATCH_SIZE) for view, at in as_ofs.items()}
    while waiting:
        for view in list(waiting):
            batch = next(waiting[view], None)
            if batch is None:
                del waiting[view]
            elif len(batch):
                counts[view] += len(batch)
                yield encode(VIEWS[view], batch, with_texts=with_texts)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No second sync on this machine: it would clear away what this one stages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeatureStoreError("another sync is running; wait for it to end") from error
        yield  # the system gives the lock back with the file, also after a kill


def _in_words(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
