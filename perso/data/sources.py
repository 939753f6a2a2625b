"""Where events come from: four layouts behind one protocol.

A source cuts its input into chunks and turns each into checked events, so that any engine can
read the chunks in parallel. What the events become is decided by ``perso.data.interactions``.
"""

from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol, get_args

import pyarrow as pa

from perso.data.catalog import read_catalog
from perso.data.events import check_events
from perso.data.files import child_of
from perso.data.movielens import list_rating_chunks, movies_file, read_movies, read_ratings
from perso.data.online_retail import check_invoice_lines
from perso.data.readers import Chunk, list_chunks, read_chunk
from perso.data.rejects import reject_lines
from perso.data.synthetic import CATALOG_FILE, EVENTS_FOLDER
from perso.errors import InputError
from perso.schema import CHECKED_SCHEMA

SourceName = Literal["events", "online-retail", "movielens", "synthetic"]
SOURCE_NAMES: Final[tuple[SourceName, ...]] = get_args(SourceName)


class Source(Protocol):
    """One input layout. Sources hold no state and survive pickling."""

    @property
    def name(self) -> SourceName:
        """How commands and specs call it."""
        ...

    def chunks(self, path: str) -> list[Chunk]:
        """The parts of the input that workers read independently, in a stable order.

        Raises:
            InputError: If there is nothing to read.
        """
        ...

    def files(self, path: str) -> list[str]:
        """Every file whose bytes decide what is read, sorted: the events' and the catalogue's.

        Raises:
            InputError: If there is nothing to read.
        """
        ...

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """CHECKED_SCHEMA tables of a chunk: events and refused rows, a block at a time.

        Raises:
            InputError: If the file cannot be read or lacks a required column.
        """
        ...

    def catalog(self, path: str) -> pa.Table | None:
        """The catalogue that lies beside the events, CATALOG_SCHEMA; none if there is none.

        Raises:
            InputError: If it cannot be read.
        """
        ...


def open_source(name: str) -> Source:
    """The source of a name.

    Raises:
        InputError: If there is no such source.
    """
    for source in (EventsSource(), OnlineRetailSource(), MovieLensSource(), SyntheticSource()):
        if source.name == name:
            return source
    raise InputError(f"there is no source {name!r}; choose one of {', '.join(SOURCE_NAMES)}")


class EventsSource:
    """perso's own events, EVENT_SCHEMA, in Parquet, CSV or JSON Lines."""

    name: SourceName = "events"

    def chunks(self, path: str) -> list[Chunk]:
        """Every readable file below the path."""
        return list_chunks(path)

    def files(self, path: str) -> list[str]:
        """The files of the chunks."""
        return _files_of(self.chunks(path))

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """Rows by the rules of ``perso.data.events``."""
        return _read_checked(chunk, check_events)

    def catalog(self, path: str) -> pa.Table | None:
        """None: a catalogue of one's own is given by its path."""
        return None


class OnlineRetailSource:
    """UCI Online Retail or Online Retail II in csv, xlsx or Parquet."""

    name: SourceName = "online-retail"

    def chunks(self, path: str) -> list[Chunk]:
        """Every readable file below the path."""
        return list_chunks(path)

    def files(self, path: str) -> list[str]:
        """The files of the chunks."""
        return _files_of(self.chunks(path))

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """Rows by the rules of ``perso.data.online_retail``."""
        return _read_checked(chunk, check_invoice_lines)

    def catalog(self, path: str) -> pa.Table | None:
        """None: titles and prices come with the events."""
        return None


class MovieLensSource:
    """A MovieLens folder: ml-100k, ml-1m, ml-latest or of their layout."""

    name: SourceName = "movielens"

    def chunks(self, path: str) -> list[Chunk]:
        """The ratings file."""
        return list_rating_chunks(path)

    def files(self, path: str) -> list[str]:
        """The ratings file and the films' file."""
        return _files_of(self.chunks(path), movies_file(path))

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """Ratings by the rules of ``perso.data.events``."""
        for checked, malformed in read_ratings(chunk):
            yield _with_lines(checked, malformed)

    def catalog(self, path: str) -> pa.Table | None:
        """Titles and genres."""
        return read_movies(path)


class SyntheticSource(EventsSource):
    """A folder that ``perso.data.synthetic.write_shop`` wrote."""

    name: SourceName = "synthetic"

    def chunks(self, path: str) -> list[Chunk]:
        """The event files, one per block of users."""
        return list_chunks(child_of(path, EVENTS_FOLDER))

    def files(self, path: str) -> list[str]:
        """The event files and the catalogue."""
        return _files_of(self.chunks(path), child_of(path, CATALOG_FILE))

    def catalog(self, path: str) -> pa.Table | None:
        """The generated catalogue."""
        return read_catalog(child_of(path, CATALOG_FILE))


def _files_of(chunks: list[Chunk], *others: str) -> list[str]:
    return sorted({*(chunk.path for chunk in chunks), *others})


def _read_checked(chunk: Chunk, check: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
    for rows, malformed in read_chunk(chunk):
        try:
            checked = check(rows) if rows.num_columns else CHECKED_SCHEMA.empty_table()
        except InputError as error:
            raise InputError(f"{chunk.path}: {error}") from error
        yield _with_lines(checked, malformed)


def _with_lines(checked: pa.Table, malformed: list[str]) -> pa.Table:
    return pa.concat_tables([checked, reject_lines(malformed)]) if malformed else checked
