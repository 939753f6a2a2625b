"""A prepared dataset: the folder that every later stage reads.

The folder holds ``manifest.json``, ``users.arrow``, ``items.arrow``, ``catalog.parquet``,
``events/`` (valid events, one file per user partition), ``interactions/<split>/`` (one file per
user partition) and ``rejects/``. This file reads it and decides nothing about its content.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perso.data.vocabulary import Vocabulary
from perso.errors import ArtifactError
from perso.schema import CONTEXT_COLUMNS, INTERACTION_SCHEMA, Split

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Weighted user–item pairs of one period, as aligned arrays of length N.

    Each (user, item) pair occurs at most once; rows are sorted by user, then item.
    """

    num_users: int
    """Rows of the user vocabulary (users without interactions included)."""
    num_items: int
    """Rows of the item vocabulary."""
    user_indices: NDArray[np.int32]
    item_indices: NDArray[np.int32]
    weights: NDArray[np.float32]
    """Event weights, decayed to the end of the period; positive."""
    ratings: NDArray[np.float32]
    """The last explicit rating, ``nan`` where none was given."""
    last_at: NDArray[np.int64]
    """Microseconds since the epoch of the pair's last event."""
    context_names: Mapping[str, tuple[str, ...]]
    """Per context column (device, region, daypart), its values in code order."""
    context_codes: Mapping[str, NDArray[np.int32]]
    """Per context column, each pair's code; -1 where unknown."""

    def __len__(self) -> int:
        return len(self.user_indices)

    def take(self, rows: NDArray[np.bool_]) -> "Interactions":
        """The pairs where ``rows`` (shape (N,)) is true, over the same vocabularies."""
        arrays = {
            name: getattr(self, name)[rows]
            for name in ("user_indices", "item_indices", "weights", "ratings", "last_at")
        }
        codes = {name: codes[rows] for name, codes in self.context_codes.items()}
        return replace(self, context_codes=codes, **arrays)

    @property
    def has_ratings(self) -> bool:
        """Whether every pair carries an explicit rating (and there is one at all)."""
        return len(self) > 0 and not bool(np.isnan(self.ratings).any())


class PreparedData:
    """One prepared dataset on disk.

    Raises:
        ArtifactError: If the folder is not a finished dataset of this format version.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{self.folder} is not a prepared dataset ({error}); run `perso prepare` first"
            ) from error
        if self.manifest.get("format_version") != FORMAT_VERSION:
            raise ArtifactError(
                f"{self.folder} has format version {self.manifest.get('format_version')!r}, "
                f"this perso reads {FORMAT_VERSION}; prepare the data again"
            )

    @property
    def key(self) -> str:
        """The hash of source and spec that names this dataset."""
        key: str = self.manifest["key"]
        return key

    @cached_property
    def users(self) -> Vocabulary:
        """User ids by user_index."""
        return Vocabulary.load(self.folder / "users.arrow")

    @cached_property
    def items(self) -> Vocabulary:
        """Item ids by item_index."""
        return Vocabulary.load(self.folder / "items.arrow")

    def catalog(self) -> pa.Table:
        """CATALOG_SCHEMA rows aligned with the item vocabulary, one per item_index."""
        return pq.read_table(self.folder / "catalog.parquet", partitioning=None)

    def split_end(self, split: Split) -> datetime:
        """The instant (UTC) before which every event of the split happened."""
        return datetime.fromisoformat(self.manifest["split_ends"][split]).astimezone(UTC)

    @property
    def event_files(self) -> list[Path]:
        """Files of valid events (EVENT_SCHEMA), one per user partition, sorted by user and time.

        All events of one user are in one file, so a per-user computation needs no shuffle.
        """
        return sorted((self.folder / "events").glob("*.parquet"))

    def interactions(self, *splits: Split) -> Interactions:
        """The interactions of one period, or of several consecutive ones merged.

        Weights of an earlier period are decayed on to the end of the last one, so that
        ``interactions("train", "validation")`` is what preparing both as one period gives, but
        for purchases of an earlier period that a later one took back: they still count.
        Memory: 40 bytes a pair.

        Raises:
            ValueError: If no split is named.
        """
        if not splits:
            raise ValueError("name at least one split of train, validation, test")
        half_life_days = self.manifest["spec"]["half_life_days"]
        end = self.split_end(splits[-1])
        tables = []
        for split in splits:
            table = self._read(split)
            elapsed_days = (end - self.split_end(split)).total_seconds() / 86_400
            if elapsed_days and half_life_days is not None:
                decay = 0.5 ** (elapsed_days / half_life_days)
                weights = pc.multiply(table["weight"].cast(pa.float64()), decay)
                position = INTERACTION_SCHEMA.get_field_index("weight")
                field = INTERACTION_SCHEMA.field(position)
                table = table.set_column(position, field, weights.cast(field.type))
            tables.append(table)
        merged = tables[0] if len(tables) == 1 else _merge_pairs(tables)
        return _to_arrays(merged, num_users=len(self.users), num_items=len(self.items))

    def _read(self, split: Split) -> pa.Table:
        files = sorted((self.folder / "interactions" / split).glob("*.parquet"))
        tables = [pq.read_table(f, schema=INTERACTION_SCHEMA, partitioning=None) for f in files]
        return pa.concat_tables([INTERACTION_SCHEMA.empty_table(), *tables]).combine_chunks()


def _merge_pairs(tables: Sequence[pa.Table]) -> pa.Table:
    """One row per pair: weights and counts add up, the last period's rating and context win."""
    table = pa.concat_tables(tables).sort_by(
        [("user_index", "ascending"), ("item_index", "ascending"), ("last_at", "ascending")]
    )
    grouped = table.group_by(["user_index", "item_index"], use_threads=False).aggregate(
        [
            ("weight", "sum"),
            ("rating", "last"),  # pyarrow's "last" skips nulls: an older rating stays
            ("num_events", "sum"),
            ("first_at", "min"),
            ("last_at", "max"),
            *((name, "last") for name in CONTEXT_COLUMNS),
        ]
    )
    suffix = {"weight": "sum", "num_events": "sum", "first_at": "min", "last_at": "max"}
    columns = {
        f.name: grouped[
            f.name if f.name.endswith("_index") else f"{f.name}_{suffix.get(f.name, 'last')}"
        ]
        for f in INTERACTION_SCHEMA
    }
    # A grouping keeps no order, and readers of Interactions count on theirs.
    by_pair = [("user_index", "ascending"), ("item_index", "ascending")]
    return pa.table(columns).cast(INTERACTION_SCHEMA).sort_by(by_pair)


def _to_arrays(table: pa.Table, *, num_users: int, num_items: int) -> Interactions:
    names: dict[str, tuple[str, ...]] = {}
    codes: dict[str, NDArray[np.int32]] = {}
    for column in CONTEXT_COLUMNS:
        values = tuple(sorted(v for v in pc.unique(table[column]).to_pylist() if v is not None))
        found = pc.index_in(table[column], value_set=pa.array(values, pa.string()))
        names[column] = values
        codes[column] = pc.fill_null(found, -1).to_numpy().astype(np.int32)
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=table["user_index"].to_numpy(),
        item_indices=table["item_index"].to_numpy(),
        weights=table["weight"].to_numpy(),
        ratings=pc.fill_null(table["rating"], float("nan")).to_numpy(),
        last_at=table["last_at"].cast(pa.int64()).to_numpy(),
        context_names=names,
        context_codes=codes,
    )
