"""MovieLens folders (ml-100k, ml-1m, ml-latest and its like): ratings to events, films to items.

Decides nothing about ratings: each is a ``rate_item`` event with its stars as value.

References:
    Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015; each folder's README.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from perso.data.events import check_events
from perso.data.files import child_of, list_files
from perso.data.lines import CsvLayout, RawBlock
from perso.data.readers import Chunk, read_chunk
from perso.errors import InputError
from perso.schema import CATALOG_SCHEMA

# The flags of ml-100k's u.item, in its u.genre's order.
GENRES_100K: Final = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

_RATING_COLUMNS: Final = ("userId", "movieId", "rating", "timestamp")
_NO_GENRES: Final = "(no genres listed)"


@dataclass(frozen=True, kw_only=True)
class _Edition:
    """The two files of one layout."""

    ratings: str
    ratings_layout: CsvLayout
    movies: str
    movies_layout: CsvLayout


def _doubled(*names: str) -> tuple[str, ...]:
    """Columns of a file that is split at each colon of its ``::``: an empty one between two."""
    columns = [names[0]]
    for name in names[1:]:
        columns += [f"before {name}", name]
    return tuple(columns)


_EDITIONS: Final = (
    _Edition(  # ml-latest, ml-latest-small, ml-20m, ml-25m, ml-32m
        ratings="ratings.csv",
        ratings_layout=CsvLayout(),
        movies="movies.csv",
        movies_layout=CsvLayout(),
    ),
    _Edition(  # ml-1m, ml-10m
        ratings="ratings.dat",
        ratings_layout=CsvLayout(delimiter=":", column_names=_doubled(*_RATING_COLUMNS)),
        movies="movies.dat",
        movies_layout=CsvLayout(delimiter="\x1f", column_names=("line",)),
    ),
    _Edition(  # ml-100k
        ratings="u.data",
        ratings_layout=CsvLayout(delimiter="\t", column_names=_RATING_COLUMNS),
        movies="u.item",
        movies_layout=CsvLayout(
            delimiter="|",
            column_names=("movieId", "title", "released", "on_video", "url", *GENRES_100K),
        ),
    ),
)


def list_rating_chunks(folder: str) -> list[Chunk]:
    """The ratings file of a MovieLens folder, as chunks.

    Raises:
        InputError: If the folder has none of the known layouts.
    """
    edition = _edition_of(folder)
    return [Chunk(path=child_of(folder, edition.ratings), format="csv")]


def movies_file(folder: str) -> str:
    """The file of films in a MovieLens folder.

    Raises:
        InputError: If the folder has none of the known layouts.
    """
    return child_of(folder, _edition_of(folder).movies)


def read_ratings(chunk: Chunk) -> Iterator[RawBlock]:
    """Ratings as CHECKED_SCHEMA events, with the malformed lines between them.

    Raises:
        InputError: If the file cannot be read or lacks a column.
    """
    name = chunk.path.partition("?")[0].rsplit("/", 1)[-1]
    layout = next(e.ratings_layout for e in _EDITIONS if e.ratings == name)
    for rows, malformed in read_chunk(chunk, layout=layout):
        missing = sorted(set(_RATING_COLUMNS) - set(rows.column_names))
        if missing:
            raise InputError(
                f"{chunk.path}: column {', '.join(missing)} is missing; "
                f"found {', '.join(rows.column_names)}"
            )
        raw = rows.select(_RATING_COLUMNS).rename_columns(
            ["user_id", "item_id", "value", "timestamp"]
        )
        kind = pa.array(["rate_item"] * rows.num_rows, pa.string())
        yield check_events(raw.append_column("event_type", kind)), malformed


def read_movies(folder: str) -> pa.Table:
    """The films as CATALOG_SCHEMA rows: title and genres; no price.

    Raises:
        InputError: If the folder has none of the known layouts or the file cannot be read.
    """
    edition = _edition_of(folder)
    chunk = Chunk(path=child_of(folder, edition.movies), format="csv")
    blocks = [rows for rows, _ in read_chunk(chunk, layout=edition.movies_layout)]
    films = pa.concat_tables(blocks)
    if edition.movies == "movies.dat":
        films = _split_films(films["line"].to_pylist())
    if edition.movies == "u.item":
        genres = [
            [genre for genre in GENRES_100K[1:] if flags[genre] == "1"]
            for flags in films.select(GENRES_100K).to_pylist()
        ]
    else:
        genres = [
            [] if text in (None, "", _NO_GENRES) else text.split("|")
            for text in films["genres"].to_pylist()
        ]
    columns = {f.name: pa.nulls(films.num_rows, f.type) for f in CATALOG_SCHEMA} | {
        "item_id": films["movieId"],
        "title": films["title"],
        "categories": pa.array(genres, pa.list_(pa.string())),
    }
    catalog = pa.table(columns).filter(pc.is_valid(films["movieId"]))
    return catalog.cast(CATALOG_SCHEMA).sort_by("item_id")


def _split_films(lines: list[str]) -> pa.Table:
    """``1::Toy Story (1995)::Animation|Comedy``; a title may hold single colons."""
    films = [match.groups() for line in lines if (match := re.match(_FILM, line))]
    names = ("movieId", "title", "genres")
    return pa.table(
        {name: pa.array([film[i] for film in films], pa.string()) for i, name in enumerate(names)}
    )


_FILM: Final = re.compile(r"^(\d+)::(.*)::([^:]*)$")


def _edition_of(folder: str) -> _Edition:
    present = {file.address.partition("?")[0].rsplit("/", 1)[-1] for file in list_files(folder)}
    for edition in _EDITIONS:
        if {edition.ratings, edition.movies} <= present:
            return edition
    layouts = "; ".join(f"{edition.ratings} and {edition.movies}" for edition in _EDITIONS)
    raise InputError(f"{folder} is no MovieLens folder; it needs {layouts}")
