"""Feature rows on disk: written in parts by many, readable all at once.

Layout below the workspace's ``features`` folder::

    rows/as_of=20260301T000000Z/<view>/part-00000.parquet     committed
    rows/.building/20260301T000000Z.<run>/<view>/part-…       being written

One folder holds every view of an instant, so one rename makes them readable together: a reader
(Feast's file sources included) sees all views of an instant or none, and a killed run leaves only
a hidden folder that nothing reads. Writing costs about as much as Parquet does; committing renames
and links, whatever the number of rows.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from perso.dictionary import EVENT_TIMESTAMP, VIEWS, View
from perso.errors import FeatureStoreError
from perso.workspace import Workspace

COMPUTE_CURE: Final = "compute segments first (`perso segments run`)"

_PREFIX: Final = "as_of="
_ABANDONED_AFTER_S: Final = 7 * 24 * 3600.0


@dataclass(frozen=True)
class FeatureRows:
    """The feature rows of a workspace.

    One object stands for one run: pickled to workers, all of them write what its ``commit`` makes
    readable. Parts of another run are never mixed in.
    """

    workspace: Workspace
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    """Tells this run's unfinished parts from those that a killed run left."""

    def write_part(self, view: str, as_of: datetime, part: int, table: pa.Table) -> None:
        """Put one part of a view's rows where :meth:`commit` finds it; nobody reads it before.

        The same part again replaces it, so a task may be run twice.

        Args:
            view: Name of a view of the dictionary.
            as_of: The instant that the rows are as of.
            part: Number of the part, from 0; rows are read back in this order.
            table: Rows of the view's schema with this ``event_timestamp``; may be empty.

        Raises:
            ValueError: If the view is unknown, or schema, instant or a null is not as the
                dictionary says.
        """
        _check(_view(view), as_of, table)
        path = self._building(as_of) / view / f"part-{part:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        pq.write_table(table, unfinished, coerce_timestamps="us")  # duckdb refuses nanoseconds
        unfinished.replace(path)

    def commit(self, as_of: datetime, views: Sequence[str]) -> None:
        """Make the parts of an instant readable, all views together.

        Views that the instant had before and that are not named stay; those named are replaced.

        Raises:
            ValueError: If no view is named or one is unknown.
            FeatureStoreError: If no part of a named view was written by this run.
        """
        if not views:
            raise ValueError("views is empty; name those whose parts were written")
        building = self._building(as_of)
        for view in views:
            if not _parts(building / _view(view).name):
                raise FeatureStoreError(
                    f"no part of {view} as of {as_of} was written by this run; write_part() first"
                )
        for written in building.iterdir():
            if written.name not in views:
                shutil.rmtree(written)
        committed = self._committed(as_of)
        for kept in self.views(as_of):
            if kept not in views:
                _link_folder(committed / kept, building / kept)
        replaced = building.with_name(f"{building.name}.replaced")
        if committed.exists():
            committed.rename(replaced)
        building.rename(committed)
        shutil.rmtree(replaced, ignore_errors=True)
        self._remove_abandoned()

    def write_rows(self, as_of: datetime, tables: Mapping[str, pa.Table]) -> None:
        """Write and commit the rows of an instant, one table per view name.

        Raises:
            ValueError: As :meth:`write_part`; nothing is committed.
        """
        for view, table in tables.items():
            self.write_part(view, as_of, 0, table)
        self.commit(as_of, list(tables))

    def written(self) -> list[datetime]:
        """The committed instants, oldest first."""
        return sorted(
            parse_instant(folder.name.removeprefix(_PREFIX))
            for folder in self._folder.glob(f"{_PREFIX}*")
        )

    def views(self, as_of: datetime) -> list[str]:
        """The views that have committed rows of an instant, in the dictionary's order."""
        return [name for name in VIEWS if (self._committed(as_of) / name).is_dir()]

    def newest(self, view: str) -> datetime | None:
        """The newest instant with rows of a view, None where it has none."""
        found = (at for at in reversed(self.written()) if view in self.views(at))
        return next(found, None)

    def count(self, view: str, as_of: datetime) -> int:
        """How many rows a view has as of an instant; reads only the files' ends.

        Raises:
            FeatureStoreError: If it has none committed.
        """
        return sum(int(pq.read_metadata(part).num_rows) for part in self._found(view, as_of))

    def read_rows(
        self, view: str, as_of: datetime, *, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """The committed rows of a view as of an instant, part after part.

        Args:
            view: Name of a view of the dictionary.
            as_of: A committed instant.
            columns: Columns to read, all of the view's schema where not given.

        Raises:
            ValueError: If the view is unknown.
            FeatureStoreError: If the view has no committed rows of the instant.
        """
        wanted = _view(view).schema
        if columns is not None:
            wanted = pa.schema([wanted.field(name) for name in columns])
        tables = [
            pq.read_table(part, columns=wanted.names, partitioning=None)
            for part in self._found(view, as_of)
        ]
        return pa.concat_tables(tables).cast(wanted)

    def batches(self, view: str, as_of: datetime, *, size: int) -> Iterator[pa.RecordBatch]:
        """The committed rows in order, at most ``size`` at a time; holds one batch in memory.

        Raises:
            FeatureStoreError: If the view has no committed rows of the instant.
        """
        names = _view(view).schema.names
        for part in self._found(view, as_of):
            with pq.ParquetFile(part) as file:
                yield from file.iter_batches(batch_size=size, columns=names)

    def _found(self, view: str, as_of: datetime) -> list[Path]:
        parts = _parts(self._committed(as_of) / _view(view).name)
        if not parts:
            written = ", ".join(map(str, self.written())) or "none"
            raise FeatureStoreError(
                f"no rows of {view} were written for {as_of}; {COMPUTE_CURE}. Written: {written}"
            )
        return parts

    @property
    def _folder(self) -> Path:
        return self.workspace.features / "rows"

    def _committed(self, as_of: datetime) -> Path:
        return self._folder / f"{_PREFIX}{format_instant(as_of)}"

    def _building(self, as_of: datetime) -> Path:
        return self._folder / ".building" / f"{format_instant(as_of)}.{self.run}"

    def _remove_abandoned(self) -> None:
        """Free what killed runs left; nobody works on a folder for a week."""
        for folder in (self._folder / ".building").iterdir():
            if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)


def format_instant(as_of: datetime) -> str:
    """An instant in a file name: 20111209T125000Z, with a fraction only where there is one.

    Raises:
        ValueError: If it has no time zone.

    Example:
        >>> format_instant(datetime(2011, 12, 9, 12, 50, tzinfo=UTC))
        '20111209T125000Z'
    """
    if as_of.tzinfo is None:
        raise ValueError(f"{as_of} has no time zone; give an aware instant, e.g. in UTC")
    text = f"{as_of.astimezone(UTC):%Y%m%dT%H%M%S}"
    return text + (f".{as_of:%f}" if as_of.microsecond else "") + "Z"


def parse_instant(text: str) -> datetime:
    """The instant that :func:`format_instant` wrote."""
    layout = "%Y%m%dT%H%M%S.%fZ" if "." in text else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(text, layout).replace(tzinfo=UTC)


def _view(name: str) -> View:
    if name not in VIEWS:
        raise ValueError(f"no feature view {name!r}; there are: {', '.join(VIEWS)}")
    return VIEWS[name]


def _check(view: View, as_of: datetime, table: pa.Table) -> None:
    if not table.schema.equals(view.schema):
        raise ValueError(f"rows of {view.name} have schema {table.schema}; write {view.schema}")
    for column in view.schema:
        if not column.nullable and table[column.name].null_count:
            raise ValueError(
                f"{view.name}.{column.name} is null in {table[column.name].null_count} rows; "
                "the dictionary allows none"
            )
    instants = pc.unique(table[EVENT_TIMESTAMP]).to_pylist()
    if any(instant != as_of for instant in instants):
        raise ValueError(
            f"rows of {view.name} have event timestamps {instants[:3]}; write those of {as_of} only"
        )


def _parts(folder: Path) -> list[Path]:
    """Finished parts by number; five digits may not be enough, so not by name."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("part-*.parquet")
        if (match := re.fullmatch(r"part-(\d+)\.parquet", path.name))
    ]
    return [path for _, path in sorted(found)]


def _link_folder(source: Path, target: Path) -> None:
    """The same files under a second name; they are never written again."""
    target.mkdir()
    for path in _parts(source):
        try:
            os.link(path, target / path.name)
        except OSError:  # a disk without links
            shutil.copyfile(path, target / path.name)
