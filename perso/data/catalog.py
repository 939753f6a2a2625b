"""The catalogue: declared by the shop, derived from its events, or both.

Decides an item's title, price and categories where nobody declared them. A catalogue is small
next to the events: partials of every user partition are derived in parallel and merged in one
place.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from perso.data.columns import to_flag, to_number, to_text
from perso.data.readers import list_chunks, read_chunk
from perso.errors import InputError
from perso.schema import CATALOG_SCHEMA, TIMESTAMP

logger = logging.getLogger(__name__)

PARTIAL_SCHEMA: Final = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("item_name", pa.string()),
        pa.field("item_category", pa.string()),
        pa.field("currency", pa.string()),
        pa.field("num_events", pa.int64()),
        pa.field("price", pa.float64()),  # the last one under this name, category and currency
        pa.field("priced_at", TIMESTAMP),
    ]
)

_NULLABLE_SCHEMA: Final = pa.schema([field.with_nullable(True) for field in CATALOG_SCHEMA])

SEPARATOR: Final = "|"
"""Between the categories or tags of one text cell."""

WORDS_PER_TITLE: Final = 3
MIN_ITEMS_PER_WORD: Final = 5
MAX_SHARE_OF_ITEMS: Final = 0.1

# Words that say which variant of a thing it is, not what it is: function words, packs, sizes,
# colours.
_VARIANT_WORDS: Final = """
and the for with from your our all not you are per non new
set pack box piece pieces pcs assorted asstd asst pair pairs
small large mini medium big giant jumbo long tall short tiny size
red blue pink green white black ivory cream yellow orange purple grey gray brown gold golden silver
turquoise lilac mauve beige amber multicolour natural clear colour color design style
"""
_IGNORED: Final = frozenset(_VARIANT_WORDS.split())


def derive_partial(events: pa.Table) -> pa.Table:
    """What one partition's events say about their items, PARTIAL_SCHEMA.

    One row per item, name, category and currency, whatever the row order.
    """
    priced_at = pc.if_else(pc.is_valid(events["price"]), events["timestamp"], None)
    keys = ["item_id", "item_name", "item_category", "currency"]
    rows = events.select([*keys, "price"]).append_column("priced_at", priced_at)
    rows = rows.filter(pc.is_valid(rows["item_id"]))
    return _last_price(rows.append_column("num_events", pa.repeat(1, rows.num_rows)))


def _last_price(rows: pa.Table) -> pa.Table:
    keys = ["item_id", "item_name", "item_category", "currency"]
    grouped = (
        rows.sort_by([("priced_at", "ascending"), ("price", "ascending")])
        .group_by(keys, use_threads=False)
        .aggregate([("num_events", "sum"), ("price", "last"), ("priced_at", "max")])
    )
    names = ["num_events_sum", "price_last", "priced_at_max"]
    columns = dict(zip(PARTIAL_SCHEMA.names, map(grouped.column, keys + names), strict=True))
    return pa.table(columns).cast(PARTIAL_SCHEMA).sort_by([(key, "ascending") for key in keys])


def merge_partials(parts: Sequence[pa.Table], declared: pa.Table | None = None) -> pa.Table:
    """The catalogue of all items that were seen or declared, CATALOG_SCHEMA, sorted by item.

    Title and category are the most frequent ones (of equals, the first in the alphabet), the
    price is the last one. What is declared wins field by field. Only in a catalogue where no
    item at all has a category do words shared by titles become categories.

    Args:
        parts: Results of :func:`derive_partial`, in any order.
        declared: CATALOG_SCHEMA rows, each item once.
    """
    seen = _last_price(pa.concat_tables([PARTIAL_SCHEMA.empty_table(), *parts]))
    titles = _most_frequent(seen, "item_name")
    categories = _most_frequent(seen, "item_category")
    prices = _latest_prices(seen)
    stated = {row["item_id"]: row for row in declared.to_pylist()} if declared is not None else {}
    rows = []
    for item_id in sorted({*pc.unique(seen["item_id"]).to_pylist(), *stated}):
        price, currency = prices.get(item_id, (None, None))
        derived = {
            "title": titles.get(item_id),
            "price": price,
            "currency": currency,
            "categories": _split(categories.get(item_id)),
        }
        wins = {k: v for k, v in stated.get(item_id, {}).items() if v not in (None, [])}
        rows.append({"item_id": item_id} | derived | wins)
    if not any(row["categories"] for row in rows):
        words = title_words([row["title"] for row in rows])
        rows = [row | {"categories": found} for row, found in zip(rows, words, strict=True)]
    return pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA)


def _most_frequent(seen: pa.Table, column: str) -> dict[str, str]:
    counts = (
        seen.filter(pc.is_valid(seen[column]))
        .group_by(["item_id", column])
        .aggregate([("num_events", "sum")])
        .sort_by([("num_events_sum", "descending"), (column, "ascending")])
    )
    best: dict[str, str] = {}
    pairs = zip(counts["item_id"].to_pylist(), counts[column].to_pylist(), strict=True)
    for item_id, value in pairs:
        best.setdefault(item_id, value)
    return best


def _latest_prices(seen: pa.Table) -> dict[str, tuple[float, str | None]]:
    priced = seen.filter(pc.is_valid(seen["price"])).sort_by(
        [("priced_at", "ascending"), ("price", "ascending"), ("currency", "ascending")]
    )
    columns = (priced[name].to_pylist() for name in ("item_id", "price", "currency"))
    return {item: (price, currency) for item, price, currency in zip(*columns, strict=True)}


def title_words(titles: Sequence[str | None]) -> list[list[str]]:
    """Up to three words of each title that name its kind, commonest first.

    A word counts as a kind if at least five titles and at most a tenth of all share it, and it
    tells no number, size or colour. A plural counts as its singular where both occur.
    """
    split = [_words(title) for title in titles]
    occurring = {word for words in split for word in words}
    singular = {w: w[:-1] for w in occurring if w.endswith("s") and w[:-1] in occurring}
    folded = [list(dict.fromkeys(singular.get(word, word) for word in words)) for words in split]
    num_items = Counter(word for words in folded for word in words)
    most = max(MIN_ITEMS_PER_WORD, int(MAX_SHARE_OF_ITEMS * len(titles)))
    kinds = {word for word, n in num_items.items() if MIN_ITEMS_PER_WORD <= n <= most}
    return [
        sorted((word for word in words if word in kinds), key=lambda w: (-num_items[w], w))[
            :WORDS_PER_TITLE
        ]
        for words in folded
    ]


def _words(title: str | None) -> list[str]:
    found = re.findall(r"[^\W\d_]{3,}", (title or "").lower())
    return [word for word in found if word not in _IGNORED]


def read_catalog(path: str) -> pa.Table:
    """A declared catalogue, CATALOG_SCHEMA, sorted by item.

    Only ``item_id`` is required. Categories and tags are lists, or text such as ``a|b``. A cell
    of the wrong kind is null; a row without an id is left out; of two rows of one item the last
    one stays. What was left out or emptied is logged.

    Raises:
        InputError: If nothing readable is there or there is no column ``item_id``.
    """
    tables = []
    num_malformed = 0
    for chunk in list_chunks(path):
        for rows, malformed in read_chunk(chunk):
            num_malformed += len(malformed)
            if not rows.num_columns:  # no line of the block parsed
                continue
            if "item_id" not in rows.column_names:
                raise InputError(
                    f"{chunk.path}: column item_id is missing; found {', '.join(rows.column_names)}"
                )
            tables.append(_to_catalog(rows.combine_chunks()))
    catalog = pa.concat_tables([_NULLABLE_SCHEMA.empty_table(), *tables])
    position = pa.array(range(catalog.num_rows), pa.int64())
    last = (
        catalog.select(["item_id"])
        .append_column("position", position)
        .group_by("item_id")
        .aggregate([("position", "max")])
        .sort_by("item_id")
    )
    kept = catalog.take(last.filter(pc.is_valid(last["item_id"]))["position_max"])
    if num_malformed or kept.num_rows < catalog.num_rows:
        logger.warning(
            "catalogue %s: left out %d malformed lines and %d rows without or with a repeated id",
            path,
            num_malformed,
            catalog.num_rows - kept.num_rows,
        )
    return kept.cast(CATALOG_SCHEMA)


def _to_catalog(rows: pa.Table) -> pa.Table:
    columns = {}
    num_bad: Counter[str] = Counter()
    for field in CATALOG_SCHEMA:
        column = rows[field.name].combine_chunks() if field.name in rows.column_names else None
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        if column is None:
            columns[field.name] = pa.nulls(rows.num_rows, field.type)
        elif pa.types.is_list(field.type):
            columns[field.name] = _to_lists(column)
        elif field.type == pa.string():
            columns[field.name] = to_text(column)
        else:
            convert = to_number if field.name == "price" else to_flag
            columns[field.name], bad = convert(column)
            num_bad[field.name] += pc.sum(bad).as_py() or 0 if bad is not None else 0
    for name, count in num_bad.items():
        if count:
            logger.warning("catalogue: %d bad cells of column %s are taken as unknown", count, name)
    return pa.table(columns).cast(_NULLABLE_SCHEMA)


def _to_lists(column: pa.Array) -> pa.ListArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return column.cast(pa.list_(pa.string()))
    cells = to_text(column).to_pylist()
    return pa.array([None if c is None else _split(c) for c in cells], pa.list_(pa.string()))


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(SEPARATOR) if part.strip()]
