"""Columns of a table as feature values: which there are, and how a new row is read.

Everything is learned from the rows of training only and kept as JSON: vocabularies, the weights
of words, the edges of tiers, mean and spread of vectors. What was too rare or not there is ignored
later, as if the cell were empty. Every filled cell has entries whose squared weights add up to 1
(of a vector: on average), so that a long title says no more than a short one.

Cost: a pass over the cells of a column and a dictionary of its values, 100 bytes each. The
catalogue behind 100 million interactions has some million items: 20 s for a title of six words;
vectors of 384 numbers take 3 kB an item.
"""

# N rows, S values of a column, E entries, W components of a vector

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.models.feature_matrix import FeatureMatrix, matrix_from_columns

FeatureKind = Literal["category", "tags", "number", "text", "vector"]

_TEXT_NAMES: Final = ("title", "name", "description")
_SKIPPED: Final = ("item_id", "user_id", "currency", "in_stock")
_WORD: Final = re.compile(r"[^\W_]{2,}")

_Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class FeatureColumn:
    """One column and how it is read.

    Raises:
        ValueError: If a setting is out of range.
    """

    column: str
    """Name in the table."""
    kind: FeatureKind
    """``category``: one value a row; ``tags``: a list of values; ``number``: the tier among the
    rows of training; ``text``: its words, rare ones weighing more; ``vector``: numbers computed
    elsewhere, such as a text embedding."""
    min_count: int = 3
    """Values in fewer rows of training are ignored; not for ``number`` and ``vector``."""
    num_bins: int = 8
    """Tiers of a ``number``, with equally many rows where values differ."""
    max_words: int = 4096
    """Words kept of a ``text``, the most frequent ones."""

    def __post_init__(self) -> None:
        if not self.column:
            raise ValueError("a feature column has an empty name; give the name in the table")
        if self.kind not in get_args(FeatureKind):
            raise ValueError(
                f"kind of column {self.column!r} is {self.kind!r}; "
                f"give one of {get_args(FeatureKind)}"
            )
        for name, least in (("min_count", 1), ("num_bins", 2), ("max_words", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} of column {self.column!r} is {getattr(self, name)}; "
                    f"give {least} or more"
                )


def infer_columns(table: pa.Table) -> tuple[FeatureColumn, ...]:
    """A column for each that can be read, by its Arrow type.

    Texts are categories, but for ``title``, ``name`` and ``description``; lists of texts are
    tags, lists of numbers vectors. Ids, currency, stock and instants are left out.
    """
    kinds = {f.name: _kind_of(f) for f in table.schema if f.name not in _SKIPPED}
    return tuple(FeatureColumn(column=name, kind=kind) for name, kind in kinds.items() if kind)


def _kind_of(field: pa.Field) -> FeatureKind | None:
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text" if field.name in _TEXT_NAMES else "category"
    if pa.types.is_boolean(kind):
        return "category"
    if _is_number(kind):
        return "number"
    if _is_list(kind):
        if pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type):
            return "tags"
        if _is_number(kind.value_type):
            return "vector"
    return None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


@dataclass(frozen=True, kw_only=True)
class FittedColumn:
    """What one column has learned from the rows of training."""

    spec: FeatureColumn
    values: tuple[str, ...] = ()
    """Names of the values in code order: categories, tags or words; tiers and components are
    nameless."""
    edges: tuple[float, ...] = ()
    """Of a ``number``: where the next tier begins."""
    idf: tuple[float, ...] = ()
    """Of a ``text``: the weight of each word."""
    mean: tuple[float, ...] = ()
    """Of a ``vector``: mean of each component."""
    spread: tuple[float, ...] = ()
    """Of a ``vector``: deviation of each component; 0 where it is constant."""

    @property
    def num_values(self) -> int:
        """S."""
        if self.spec.kind == "number":
            return len(self.edges) + 1
        return len(self.mean) if self.spec.kind == "vector" else len(self.values)

    def entries(self, cells: pa.ChunkedArray) -> _Entries:
        """Row, value and weight of each entry.

        Raises:
            ValueError: If the cells do not fit the kind, or vectors differ in length.
        """
        if self.spec.kind == "number":
            numbers_N = _numbers(cells, self.spec)
            row_E = np.flatnonzero(np.isfinite(numbers_N))
            value_E = np.searchsorted(self.edges, numbers_N[row_E], side="right")
            return row_E, value_E.astype(np.int64), np.ones(len(row_E), np.float32)
        if self.spec.kind == "vector":
            row_E, vectors_EW = _vectors(cells, self.spec)
            width = len(self.mean)
            if len(row_E) and vectors_EW.shape[1] != width:
                raise ValueError(
                    f"vectors of column {self.spec.column!r} have {vectors_EW.shape[1]} numbers, "
                    f"those of training {width}; compute them by the same model"
                )
            spread_W = np.array(self.spread)
            scale_W = np.divide(1.0, spread_W, out=np.zeros(width), where=spread_W > 0)
            standard_EW = (vectors_EW.reshape(-1, width) - np.array(self.mean)) * scale_W
            standard_EW /= math.sqrt(max(width, 1))
            values = np.tile(np.arange(width), len(row_E))
            return np.repeat(row_E, width), values, standard_EW.ravel().astype(np.float32)
        return self._word_entries(_words(cells, self.spec))

    def _word_entries(self, words_N: Iterable[Sequence[str]]) -> _Entries:
        code_of = {value: code for code, value in enumerate(self.values)}
        rows: list[int] = []
        codes: list[int] = []
        weights: list[float] = []
        for row, words in enumerate(words_N):
            counts = Counter(code for w in words if (code := code_of.get(w, -1)) >= 0)
            idf = [self.idf[code] if self.idf else 1.0 for code in counts]
            raw = [n * w if self.idf else 1.0 for n, w in zip(counts.values(), idf, strict=True)]
            length = math.sqrt(sum(w * w for w in raw)) or 1.0
            rows += [row] * len(counts)
            codes += counts
            weights += [w / length for w in raw]
        return np.array(rows, np.int64), np.array(codes, np.int64), np.array(weights, np.float32)


@dataclass(frozen=True, kw_only=True)
class FittedColumns:
    """Several columns of one table."""

    columns: tuple[FittedColumn, ...]

    def encode(self, table: pa.Table) -> FeatureMatrix:
        """Feature values of every row.

        Raises:
            ValueError: If a column is missing or does not fit its kind.
        """
        check_columns(table, [column.spec.column for column in self.columns])
        return matrix_from_columns(
            {
                column.spec.column: (column.num_values, *column.entries(table[column.spec.column]))
                for column in self.columns
            },
            table.num_rows,
        )

    def save(self, path: Path) -> None:
        """Write one JSON file."""
        text = json.dumps([asdict(column) for column in self.columns], ensure_ascii=False)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "FittedColumns":
        """The columns in a file that :meth:`save` wrote.

        Raises:
            OSError: If the file is missing.
            ValueError: If it is no JSON or a setting is out of range.
            KeyError: If a field is missing.
        """
        document: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        names = ("values", "edges", "idf", "mean", "spread")
        return cls(
            columns=tuple(
                FittedColumn(
                    spec=FeatureColumn(**entry["spec"]),
                    **{name: tuple(entry[name]) for name in names},
                )
                for entry in document
            )
        )


def fit_columns(table: pa.Table, specs: Sequence[FeatureColumn]) -> FittedColumns:
    """Learn the columns from the rows that training has seen.

    Args:
        table: Those rows only: what later rows hold must not decide what a value is.
        specs: The columns to read; each column once.

    Raises:
        ValueError: If a column is missing, named twice or does not fit its kind.
    """
    names = [spec.column for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"columns {twice} are named twice; keep one of each")
    check_columns(table, names)
    return FittedColumns(columns=tuple(_fit(table[spec.column], spec) for spec in specs))


def check_columns(table: pa.Table, names: Iterable[str]) -> None:
    """Refuse names that the table does not have.

    Raises:
        ValueError: If one is missing.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(
            f"no column {missing[0]!r} in the features; there are {table.column_names}"
        )


def _fit(cells: pa.ChunkedArray, spec: FeatureColumn) -> FittedColumn:
    if spec.kind == "number":
        numbers_N = _numbers(cells, spec)
        numbers_N = numbers_N[np.isfinite(numbers_N)]
        if not len(numbers_N):
            return FittedColumn(spec=spec)
        inner = np.arange(1, spec.num_bins) / spec.num_bins
        edges = np.unique(np.quantile(numbers_N, inner, method="higher"))
        edges = edges[edges > numbers_N.min()]  # the lowest tier holds something
        return FittedColumn(spec=spec, edges=tuple(edges.tolist()))
    if spec.kind == "vector":
        row_E, vectors_EW = _vectors(cells, spec)
        if not len(row_E):
            return FittedColumn(spec=spec)
        return FittedColumn(
            spec=spec,
            mean=tuple(vectors_EW.mean(0).tolist()),
            spread=tuple(vectors_EW.std(0).tolist()),
        )
    num_rows = Counter(word for words in _words(cells, spec) for word in set(words))
    frequent = [(word, n) for word, n in num_rows.items() if n >= spec.min_count]
    if spec.kind != "text":
        return FittedColumn(spec=spec, values=tuple(sorted(word for word, _ in frequent)))
    kept = sorted(sorted(frequent, key=lambda pair: (-pair[1], pair[0]))[: spec.max_words])
    return FittedColumn(
        spec=spec,
        values=tuple(word for word, _ in kept),
        # Smooth, as in scikit-learn: a word of every row still counts 1.
        idf=tuple(1 + math.log((1 + len(cells)) / (1 + n)) for _, n in kept),
    )


def _words(cells: pa.ChunkedArray, spec: FeatureColumn) -> Iterable[Sequence[str]]:
    """The values of each row."""
    if spec.kind == "tags":
        if not _is_list(cells.type):
            raise _mismatch(cells, spec, "a list of texts")
        texts = (cell or () for cell in cells.to_pylist())
        return ([str(tag) for tag in cell if tag is not None] for cell in texts)
    if _is_list(cells.type) or pa.types.is_struct(cells.type):
        raise _mismatch(cells, spec, "one text a row")
    texts_N = pc.cast(cells, pa.string()).to_pylist()
    if spec.kind == "category":
        return ([] if text is None else [text] for text in texts_N)
    return (_WORD.findall((text or "").lower()) for text in texts_N)


def _numbers(cells: pa.ChunkedArray, spec: FeatureColumn) -> NDArray[np.float64]:
    """Numbers by row, ``nan`` where there is none."""
    if not _is_number(cells.type):
        raise _mismatch(cells, spec, "a number a row")
    filled = pc.fill_null(pc.cast(cells, pa.float64()), math.nan)
    numbers_N: NDArray[np.float64] = filled.to_numpy()
    return numbers_N


def _vectors(
    cells: pa.ChunkedArray, spec: FeatureColumn
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows that have a vector, and the vectors, shape (rows, W)."""
    if not (_is_list(cells.type) and _is_number(cells.type.value_type)):
        raise _mismatch(cells, spec, "a list of numbers")
    row_E = np.flatnonzero(cells.is_valid().to_numpy())
    lists = cells.drop_null()
    lengths = np.unique(pc.list_value_length(lists).to_numpy())
    if len(lengths) > 1:
        raise ValueError(
            f"vectors of column {spec.column!r} have {lengths.tolist()} numbers; give one length"
        )
    flat = pc.cast(pc.list_flatten(lists), pa.float64()).to_numpy()
    width = int(lengths[0]) if len(lengths) else 0
    if not np.isfinite(flat).all():
        raise ValueError(
            f"vectors of column {spec.column!r} hold numbers that are not finite; "
            "leave the cell empty where there is no vector"
        )
    return row_E, flat.reshape(len(row_E), width)


def _mismatch(cells: pa.ChunkedArray, spec: FeatureColumn, needed: str) -> ValueError:
    return ValueError(
        f"column {spec.column!r} of kind {spec.kind!r} needs {needed}, not {cells.type}"
    )
