"""Who moved between segments from one as-of instant to the next, and what of it may be shown.

Decides how two weeks are joined (by user id; who is in one of them only is new or gone) and the
figures of stability. It knows no segment by name and raises no alert.

F and T are the states before and after: every label, and one more state for who is not there.
10 million customers a week take 17 seconds and 2 GB on one core, nearly all for the join of ids;
the tables that come out have some hundred cells.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.segments.small_cells import hide_small, hide_small_sizes
from perso.spec import parse_spec, spec_to_dict

NEW: Final = "(new)"
"""Where a customer comes from who was not there before."""
GONE: Final = "(gone)"
"""Where a customer went who is not there any more."""
NO_LABEL: Final = "(none)"
"""The label of customers whose column is null."""

_EMPTY_SHARE: Final = 1e-4
"""What the share of an empty cell is taken for, so that its logarithm exists."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """Customers who went from one segment to another."""

    before: str
    """Their label before, or NEW."""
    after: str
    """Their label after, or GONE."""
    num_users: int
    """How many they are."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """How many customers went from each segment to each."""

    labels: tuple[str, ...]
    """Every label of either week, sorted; NO_LABEL among them where a column has nulls."""
    counts: tuple[tuple[int, ...], ...]
    """A row per label before and one for NEW, a column per label after and one for GONE."""

    def __post_init__(self) -> None:
        size = len(self.labels) + 1
        if len(self.counts) != size or any(len(row) != size for row in self.counts):
            raise ValueError(
                f"counts of {len(self.labels)} labels must have {size} rows and columns; "
                f"found rows of {[len(row) for row in self.counts]}"
            )

    @property
    def from_labels(self) -> tuple[str, ...]:
        """What the rows stand for."""
        return (*self.labels, NEW)

    @property
    def to_labels(self) -> tuple[str, ...]:
        """What the columns stand for."""
        return (*self.labels, GONE)

    @property
    def counts_FT(self) -> NDArray[np.int64]:
        """The counts as a matrix."""
        return np.array(self.counts, np.int64).reshape(len(self.counts), -1)

    @property
    def before(self) -> dict[str, int]:
        """Customers per label before."""
        sums = self.counts_FT[:-1].sum(axis=1)
        return dict(zip(self.labels, sums.tolist(), strict=True))

    @property
    def after(self) -> dict[str, int]:
        """Customers per label after."""
        sums = self.counts_FT[:, :-1].sum(axis=0)
        return dict(zip(self.labels, sums.tolist(), strict=True))

    @property
    def share_kept(self) -> float | None:
        """Of the customers with a label before who are still there, those who still have it.

        None if there is no such customer.
        """
        named = [row for row, label in enumerate(self.labels) if label != NO_LABEL]
        counts_FT = self.counts_FT[:, :-1]
        num_there = int(counts_FT[named].sum())
        return int(counts_FT[named, named].sum()) / num_there if num_there else None

    @property
    def adjusted_rand(self) -> float | None:
        """Agreement of the two groupings, whatever the groups are called.

        1: the same groups; around 0: no more alike than by chance. Over customers with a label in
        both weeks; None if they are fewer than two. From the table, exactly: scikit-learn's
        function gives the same number but wants the labels of every customer again.

        References:
            Hubert and Arabie, Comparing partitions, Journal of Classification 2, 1985.
        """
        named = [row for row, label in enumerate(self.labels) if label != NO_LABEL]
        counts_FT = self.counts_FT[np.ix_(named, named)]
        num_users = int(counts_FT.sum())
        if num_users < 2:
            return None
        together = _num_pairs(counts_FT.ravel())
        before, after = _num_pairs(counts_FT.sum(axis=1)), _num_pairs(counts_FT.sum(axis=0))
        by_chance = before * after / math.comb(num_users, 2)
        at_most = (before + after) / 2
        return 1.0 if at_most == by_chance else (together - by_chance) / (at_most - by_chance)

    def shown(self, minimum: int) -> "np.ma.MaskedArray[Any, np.dtype[np.int64]]":
        """The counts as they may leave the system, masked where :func:`hide_small` says so.

        Who stayed is hidden before who moved: moves are what the table is read for. Also masked
        are the row and column of a segment whose own size is hidden.
        """
        counts_FT = self.counts_FT
        stayed = np.eye(len(counts_FT), dtype=np.bool_)
        is_hidden_FT = np.ma.getmaskarray(hide_small(counts_FT, minimum, first=stayed)).copy()
        sizes_before = hide_small_sizes(self.before, minimum)
        sizes_after = hide_small_sizes(self.after, minimum)
        for place, label in enumerate(self.labels):
            is_hidden_FT[place] |= sizes_before[label] is None
            is_hidden_FT[:, place] |= sizes_after[label] is None
        return np.ma.MaskedArray(counts_FT, mask=is_hidden_FT & (counts_FT > 0))

    def moves(self, *, minimum: int = 1) -> list[Move]:
        """Who changed label, came or went; the largest first, equal ones by label.

        Args:
            minimum: Only cells that :meth:`shown` shows with this minimum.
        """
        is_hidden_FT = np.ma.getmaskarray(self.shown(minimum))
        moves = [
            Move(before=before, after=after, num_users=self.counts[row][column])
            for row, before in enumerate(self.from_labels)
            for column, after in enumerate(self.to_labels)
            if row != column and self.counts[row][column] and not is_hidden_FT[row, column]
        ]
        return sorted(moves, key=lambda move: (-move.num_users, move.before, move.after))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values that :meth:`from_dict` reads."""
        return spec_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Migration":
        """What :meth:`to_dict` gave.

        Raises:
            InputError: If a key is missing, unknown or of the wrong kind.
        """
        return parse_spec(cls, values, origin="migration")


def measure_migrations(
    before: pa.Table, after: pa.Table, columns: Sequence[str]
) -> dict[str, Migration]:
    """The moves between the labels of each of some columns, from one week to the next.

    Args:
        before: ``user_id`` and the columns, a row per customer, in any order; null: no label.
        after: The same of the later instant.
        columns: Names of columns of labels.

    Raises:
        ValueError: If a customer has two rows, or a label is one of NEW, GONE, NO_LABEL.

    Example:
        >>> before = pa.table({"user_id": ["a", "b"], "segment": ["loyal", "new"]})
        >>> after = pa.table({"user_id": ["b", "c"], "segment": ["loyal", "new"]})
        >>> for move in measure_migrations(before, after, ["segment"])["segment"].moves():
        ...     print(move.before, "->", move.after, move.num_users)
        (new) -> new 1
        loyal -> (gone) 1
        new -> loyal 1
    """
    users_before = _distinct(before["user_id"])
    users_after = _distinct(after["user_id"])
    found = pc.index_in(users_after, value_set=users_before)
    row_before = pc.fill_null(found, -1).to_numpy()  # -1: was not there
    is_gone = np.ones(len(users_before), np.bool_)
    is_gone[row_before[row_before >= 0]] = False
    return {name: _count(before[name], after[name], row_before, is_gone) for name in columns}


def population_stability(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Population stability index of two weeks: how far the sizes of the segments have shifted.

    The sum over segments of (after - before) · ln(after / before), on shares. By rule of thumb
    below 0.1 nothing happened and above 0.2 a lot did. An empty cell counts as 0.01 %; with few
    customers the index is large by chance alone, about (S - 1) · (1/before + 1/after).

    Args:
        before: Customers per segment; a segment that is missing has none.
        after: The same of the later week.

    Returns:
        0 or more, 0 only if no share has changed.

    Raises:
        ValueError: If a week has no customers, or a count is negative.

    References:
        Siddiqi, Credit Risk Scorecards, 2006; Yurdakul, Statistical Properties of the Population
        Stability Index, 2018. The value of an empty cell is the one of evidently.

    Example:
        >>> round(population_stability({"loyal": 50, "new": 50}, {"loyal": 75, "new": 25}), 4)
        0.2747
    """
    labels = sorted(before.keys() | after.keys())
    shares = []
    for name, sizes in (("before", before), ("after", after)):
        counts = np.array([sizes.get(label, 0) for label in labels], np.float64)
        if not counts.sum() > 0 or (counts < 0).any():
            raise ValueError(f"{name} is {dict(sizes)}; give counts of one or more customers")
        shares.append(np.where(counts == 0, _EMPTY_SHARE, counts / counts.sum()))
    share_before, share_after = shares
    return float(((share_after - share_before) * np.log(share_after / share_before)).sum())


def _distinct(users: pa.ChunkedArray) -> pa.Array:
    if pc.count_distinct(users, mode="all").as_py() != len(users):
        raise ValueError("user_id has repeated values; give one row per customer")
    return users.cast(pa.large_string()).combine_chunks()


def _count(
    before: pa.ChunkedArray,
    after: pa.ChunkedArray,
    row_before: NDArray[np.int32],
    is_gone: NDArray[np.bool_],
) -> Migration:
    names_before, codes_before = _codes(before)
    names_after, codes_after = _codes(after)
    labels = sorted({*names_before, *names_after})
    reserved = {NEW, GONE} & set(labels)
    if reserved:
        raise ValueError(f"labels {sorted(reserved)} stand for who is not there; rename them")
    place = {label: row for row, label in enumerate(labels)}
    outside = len(labels)  # the last row: NEW, the last column: GONE
    rows = np.array([place[name] for name in names_before] + [outside], np.int64)
    columns = np.array([place[name] for name in names_after] + [outside], np.int64)
    from_codes = np.full(len(row_before), outside, np.int64)
    was_there = row_before >= 0
    from_codes[was_there] = rows[codes_before[row_before[was_there]]]
    size = outside + 1
    arrived = np.bincount(from_codes * size + columns[codes_after], minlength=size * size)
    left = np.bincount(rows[codes_before[is_gone]], minlength=size)
    counts_FT = arrived.reshape(size, size)
    counts_FT[:, outside] += left
    return Migration(labels=tuple(labels), counts=tuple(tuple(row) for row in counts_FT.tolist()))


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """The names of a column and each row's place among them; a null is NO_LABEL."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    if NO_LABEL in names:
        raise ValueError(f"label {NO_LABEL!r} stands for a null; rename it")
    codes = pc.fill_null(encoded.indices, len(names)).to_numpy(zero_copy_only=False)
    if encoded.null_count or encoded.indices.null_count:
        names = [*names, NO_LABEL]
    return names, codes


def _num_pairs(counts: NDArray[np.int64]) -> int:
    """Pairs inside the groups, exactly: 10 million customers have 5 · 10¹³."""
    return sum(math.comb(count, 2) for count in counts.tolist())
