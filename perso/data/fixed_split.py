"""A table that says itself which rows are for training and which for the test.

Papers publish their split, and to be held against them one must train and test on exactly its
rows. This file reads such a table whole and decides what a row means; how good a model is on it,
is not decided here. Cost is linear: about 100 bytes a row beside the table itself (at 100 million
rows, 10 GB), and no Python per row.
"""

# U users, I items, R rows, P pairs (distinct user, item), G groups of rows

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.data.columns import to_text
from perso.data.files import reading
from perso.data.prepared import Interactions
from perso.data.readers import format_of, hash_file
from perso.data.split_columns import (
    CONTEXT_PREFIX,
    ITEM_PREFIX,
    USER_PREFIX,
    compact,
    encode,
    instants_of,
    numbers_of_text,
    one_array,
    ratings_of,
    read_columns,
    split_codes,
)
from perso.data.vocabulary import Vocabulary
from perso.errors import InputError
from perso.schema import SPLITS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FixedSplit:
    """Train, validation and test of one table over common vocabularies."""

    train: Interactions
    """Every weight is 1: a pair is there or not, however many rows name it."""
    validation: Interactions | None
    """None where the table has no such rows; :func:`cut_validation` takes them from train."""
    test: Interactions
    users: Vocabulary
    """Ids of all splits as text, in the order of their UTF-8 bytes."""
    items: Vocabulary
    """As ``users``."""
    user_features: pa.Table
    """The ``user_*`` columns without their prefix, one row per user_index."""
    item_features: pa.Table
    """The ``item_*`` columns without their prefix, one row per item_index."""
    has_timestamps: bool
    """Without, ``last_at`` counts rows: their order, not an instant."""
    num_rows: int
    """Rows of the file; the pairs of the splits and what was dropped add up to it."""
    dropped: Mapping[str, int]
    """Rows that became no pair of their own, by reason."""
    disagreements: Mapping[str, int]
    """Per feature column, users or items of which rows say different things."""
    in_both: int
    """Pairs of test that train has as well; they are in both."""
    hash: str
    """BLAKE2b of the file's bytes, 32 hexadecimal digits."""


def read_fixed_split(path: str | Path) -> FixedSplit:
    """The split that a Parquet or CSV file holds.

    A row is a (user, item) pair in one ``split``: train, validation or test. It may carry a
    ``rating``, a ``timestamp`` (an instant, ISO 8601 or a number since the epoch), the context in
    which it happened (``context_*``, categories) and features of its user and its item
    (``user_*``, ``item_*``, any type; from CSV numbers where a whole column is numbers without
    leading zeros). Other columns are passed over.

    Rows of one pair in one split become one: the newest wins, of equal or no timestamps the last
    row; an empty rating or context does not win over a given one. Of a user's or item's features
    the last given one in row order stays. Rows without user or item are dropped. All of this is
    counted.

    Args:
        path: Local path or URI of one file.

    Raises:
        InputError: If the file cannot be read or lacks a column; if a split is not one of the
            three names, a rating not a finite number, or a timestamp no instant; if train or
            test is empty.
    """
    started = time.perf_counter()
    address = str(path)
    rows, dropped = _read_rows(address)
    parts = {
        split: _pairs_of(rows, np.flatnonzero(rows.split_R == code))
        for code, split in enumerate(SPLITS)
    }
    for split in ("train", "test"):
        if not len(parts[split]):
            raise InputError(
                f"{address} has no row for {split} with a user and an item; a fixed split needs "
                "rows for train and for test"
            )
    num_rows = len(rows.users_R) + sum(dropped.values())
    dropped["duplicate"] = len(rows.users_R) - sum(map(len, parts.values()))
    dropped = {reason: count for reason, count in dropped.items() if count}
    user_features, of_users = _features(rows, USER_PREFIX)
    item_features, of_items = _features(rows, ITEM_PREFIX)
    common_keys = np.intersect1d(_keys(parts["train"]), _keys(parts["test"]), assume_unique=True)
    logger.info(
        "fixed split: %d rows -> %s pairs of %d users and %d items (dropped %s, %.1f s)",
        num_rows,
        " + ".join(f"{len(part)} {split}" for split, part in parts.items()),
        len(rows.user_ids),
        len(rows.item_ids),
        ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none",
        time.perf_counter() - started,
    )
    return FixedSplit(
        train=parts["train"],
        validation=parts["validation"] if len(parts["validation"]) else None,
        test=parts["test"],
        users=Vocabulary(rows.user_ids),
        items=Vocabulary(rows.item_ids),
        user_features=user_features,
        item_features=item_features,
        has_timestamps=rows.has_timestamps,
        num_rows=num_rows,
        dropped=dropped,
        disagreements={name: count for name, count in (of_users | of_items).items() if count},
        in_both=len(common_keys),
        hash=hash_file(address),
    )


def cut_validation(
    train: Interactions, *, share: float = 0.1, seed: int, by_time: bool
) -> tuple[Interactions, Interactions]:
    """A validation part cut from train, and what is left of train; both sorted as before.

    At random, each user gives the same share of the own pairs, rounded so that the shares add up
    over users, and keeps at least one: a user of one pair gives none. By time, one instant cuts
    for everybody, as the test period of a shop does: pairs from then on are validation, users who
    came later are new there, and at least ``share`` of the pairs lie behind the cut.

    Args:
        train: What to cut; not changed.
        share: Of the pairs that go to validation, above 0 and below 1.
        seed: Start of the random choice; without effect by time.
        by_time: Cut at an instant; needs true instants in ``last_at``.

    Returns:
        The rest of train, and the validation part.

    Raises:
        ValueError: If the share is out of range.
        InputError: If either part would be empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give a number above 0 and below 1")
    is_validation_P = _newest(train, share) if by_time else _random(train, share, seed)
    num_cut = int(is_validation_P.sum())
    if not 0 < num_cut < len(train):
        raise InputError(
            f"validation would get {num_cut} of {len(train)} pairs; give a larger share, or more "
            + ("instants" if by_time else "pairs per user")
        )
    return train.take(~is_validation_P), train.take(is_validation_P)


def _newest(train: Interactions, share: float) -> NDArray[np.bool_]:
    by_age_P = np.sort(train.last_at)
    if not len(by_age_P):
        return np.zeros(0, np.bool_)
    instant = by_age_P[len(by_age_P) - int(np.ceil(share * len(by_age_P)))]
    later = by_age_P[by_age_P > by_age_P[0]]
    if instant == by_age_P[0] and len(later):  # never all of train
        instant = later[0]
    is_newest_P: NDArray[np.bool_] = train.last_at >= instant
    return is_newest_P


def _random(train: Interactions, share: float, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    counts_U = np.bincount(train.user_indices, minlength=train.num_users)
    # One offset for all users: rounding each user alone would take nothing from small ones.
    ends_U = np.floor(np.cumsum(counts_U) * share + rng.random()).astype(np.int64)
    quota_U = np.minimum(np.diff(ends_U, prepend=0), np.maximum(counts_U - 1, 0))
    shuffled_P = np.lexsort((rng.random(len(train)), train.user_indices))
    starts_U = np.cumsum(counts_U) - counts_U
    users_P = train.user_indices[shuffled_P]
    is_validation_P = np.zeros(len(train), np.bool_)
    is_validation_P[shuffled_P] = np.arange(len(train)) - starts_U[users_P] < quota_U[users_P]
    return is_validation_P


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of all splits that have a user and an item, in the order of the file."""

    user_ids: pa.StringArray
    item_ids: pa.StringArray
    users_R: NDArray[np.int32]
    items_R: NDArray[np.int32]
    split_R: NDArray[np.int64]
    ratings_R: NDArray[np.float32]
    last_at_R: NDArray[np.int64]
    has_timestamps: bool
    context_names: Mapping[str, tuple[str, ...]]
    context_codes: Mapping[str, NDArray[np.int32]]
    features: pa.Table
    is_text: bool
    """Whether the file has no types, so that all columns came as text."""


def _read_rows(address: str) -> tuple[_Rows, dict[str, int]]:
    """The rows of a file, and how many are left out by reason."""
    table, num_malformed = read_columns(address)
    with reading(address):
        raw_users_R, user_texts = encode(table["user"])
        raw_items_R, item_texts = encode(table["item"])
        dropped = {
            "malformed_line": num_malformed,
            "no_user": int((raw_users_R < 0).sum()),
            "no_item": int(((raw_users_R >= 0) & (raw_items_R < 0)).sum()),
        }
        kept = np.flatnonzero((raw_users_R >= 0) & (raw_items_R >= 0))
        if len(kept) < table.num_rows:
            table = table.take(pa.array(kept))
        user_ids, users_R = compact(raw_users_R[kept], user_texts)
        item_ids, items_R = compact(raw_items_R[kept], item_texts)
        contexts = {
            name.removeprefix(CONTEXT_PREFIX): compact(*encode(table[name]))
            for name in table.column_names
            if name.startswith(CONTEXT_PREFIX)
        }
        has_ratings, has_timestamps = (n in table.column_names for n in ("rating", "timestamp"))
        rows = _Rows(
            user_ids=user_ids,
            item_ids=item_ids,
            users_R=users_R,
            items_R=items_R,
            split_R=split_codes(table["split"], address),
            ratings_R=ratings_of(table["rating"], address)
            if has_ratings
            else np.full(table.num_rows, np.nan, np.float32),
            last_at_R=instants_of(table["timestamp"], address)
            if has_timestamps
            else kept.astype(np.int64),
            has_timestamps=has_timestamps,
            context_names={name: tuple(names.to_pylist()) for name, (names, _) in contexts.items()},
            context_codes={name: codes_R for name, (_, codes_R) in contexts.items()},
            features=table,
            is_text=format_of(address) == "csv",
        )
    return rows, dropped


def _pairs_of(rows: _Rows, part: NDArray[np.int64]) -> Interactions:
    """The pairs of one split; ``part`` numbers its rows, in the order of the file."""
    keys = rows.users_R[part].astype(np.int64) * len(rows.item_ids) + rows.items_R[part]
    # Stable, and by pair, then age: the last row of each pair is the one that wins.
    by_pair = np.lexsort((rows.last_at_R[part], keys))
    part, keys = part[by_pair], keys[by_pair]
    is_last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
    last_P = part[is_last]
    groups = np.cumsum(is_last) - is_last

    def last_known(is_known_R: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Row of the last known value of each pair, else its last row."""
        found_P = _last_of_group(groups, is_known_R[part], len(last_P))
        return np.where(found_P < 0, last_P, part[found_P] if len(part) else found_P)

    return Interactions(
        num_users=len(rows.user_ids),
        num_items=len(rows.item_ids),
        user_indices=rows.users_R[last_P],
        item_indices=rows.items_R[last_P],
        weights=np.ones(len(last_P), np.float32),
        ratings=rows.ratings_R[last_known(~np.isnan(rows.ratings_R))],
        last_at=rows.last_at_R[last_P],
        context_names=rows.context_names,
        context_codes={
            name: codes_R[last_known(codes_R >= 0)] for name, codes_R in rows.context_codes.items()
        },
    )


def _last_of_group(
    groups: NDArray[np.integer], is_known: NDArray[np.bool_], num_groups: int
) -> NDArray[np.int64]:
    """Place of the last known member of each group, -1 where there is none, shape (G,)."""
    last_G = np.full(num_groups, -1, np.int64)
    known = np.flatnonzero(is_known)
    np.maximum.at(last_G, groups[known], known)
    return last_G


def _keys(pairs: Interactions) -> NDArray[np.int64]:
    keys_P: NDArray[np.int64] = (
        pairs.user_indices.astype(np.int64) * pairs.num_items + pairs.item_indices
    )
    return keys_P


def _features(rows: _Rows, prefix: str) -> tuple[pa.Table, dict[str, int]]:
    """One row per user or item, and per column how many of them have rows that disagree."""
    owners_R, ids = {
        USER_PREFIX: (rows.users_R, rows.user_ids),
        ITEM_PREFIX: (rows.items_R, rows.item_ids),
    }[prefix]
    columns = {"": ids}  # a table without any column would have no rows
    disagreements = {}
    for name in rows.features.column_names:
        if not name.startswith(prefix):
            continue
        column = one_array(rows.features[name])
        column = numbers_of_text(column) if rows.is_text else column
        last_G = _last_of_group(owners_R, column.is_valid().to_numpy(False), len(ids))
        columns[name.removeprefix(prefix)] = column.take(pa.array(last_G, mask=last_G < 0))
        nested = pa.types.is_nested(column.type)
        codes_R, _ = encode(pa.chunked_array([to_text(column) if nested else column]))
        kept_R = np.append(codes_R, -1)[last_G][owners_R]
        differs_R = (codes_R >= 0) & (codes_R != kept_R)
        disagreements[name] = len(np.unique(owners_R[differs_R]))
    features = pa.table(columns)
    return features.select(features.column_names[1:]), disagreements
