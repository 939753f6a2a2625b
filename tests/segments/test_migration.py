"""Who moved, how stable a week is, and what is hidden of it."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from perso.errors import InputError
from perso.segments.migration import (
    GONE,
    NEW,
    NO_LABEL,
    Migration,
    Move,
    measure_migrations,
    population_stability,
)
from perso.segments.small_cells import hide_small, hide_small_sizes

LABELS = st.sampled_from(["loyal", "new", "lost", None])
WEEKS = st.dictionaries(st.sampled_from([f"u{i}" for i in range(30)]), LABELS)


def _week(labels: dict[str, str | None]) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array(list(labels), pa.string()),
            "segment": pa.array(list(labels.values()), pa.string()),
        }
    )


def _migration(before: dict[str, str | None], after: dict[str, str | None]) -> Migration:
    return measure_migrations(_week(before), _week(after), ["segment"])["segment"]


def test_every_move_of_a_small_world_is_counted() -> None:
    before = {"ann": "loyal", "bob": "loyal", "cid": "new", "dan": None, "eve": "new"}
    after = {"ann": "loyal", "bob": "lost", "cid": "lost", "dan": "new", "fay": "new"}
    migration = _migration(before, after)
    assert migration.labels == (NO_LABEL, "lost", "loyal", "new")
    assert migration.moves() == [
        Move(before=NEW, after="new", num_users=1),
        Move(before=NO_LABEL, after="new", num_users=1),
        Move(before="loyal", after="lost", num_users=1),
        Move(before="new", after=GONE, num_users=1),
        Move(before="new", after="lost", num_users=1),
    ]
    assert migration.before == {NO_LABEL: 1, "lost": 0, "loyal": 2, "new": 2}
    assert migration.after == {NO_LABEL: 0, "lost": 2, "loyal": 1, "new": 2}
    # Of ann, bob and cid, who had a label and are still there, ann kept hers.
    assert migration.share_kept == 1 / 3


@given(WEEKS, WEEKS)
def test_counts_equal_a_naive_count_and_the_weeks_sizes(
    before: dict[str, str | None], after: dict[str, str | None]
) -> None:
    migration = _migration(before, after)
    naive: dict[tuple[str, str], int] = {}
    for user in before.keys() | after.keys():
        old = (before[user] or NO_LABEL) if user in before else NEW
        new = (after[user] or NO_LABEL) if user in after else GONE
        naive[old, new] = naive.get((old, new), 0) + 1
    found = {
        (old, new): migration.counts[row][column]
        for row, old in enumerate(migration.from_labels)
        for column, new in enumerate(migration.to_labels)
        if migration.counts[row][column]
    }
    assert found == naive
    assert sum(migration.before.values()) == len(before)
    assert sum(migration.after.values()) == len(after)


@given(WEEKS, WEEKS)
def test_adjusted_rand_is_scikit_learns(
    before: dict[str, str | None], after: dict[str, str | None]
) -> None:
    both = [u for u in before if before[u] is not None and after.get(u) is not None]
    agreement = _migration(before, after).adjusted_rand
    if len(both) < 2:
        assert agreement is None
    else:
        expected = adjusted_rand_score([before[u] for u in both], [after[u] for u in both])
        assert agreement == pytest.approx(expected, abs=1e-12)


def test_adjusted_rand_stays_exact_at_ten_million_customers() -> None:
    half = 5_000_000
    same = Migration(labels=("a", "b"), counts=((0, half, 0), (half, 0, 0), (0, 0, 0)))
    assert same.adjusted_rand == 1.0  # the same groups under each other's names
    assert same.share_kept == 0.0
    mixed = Migration(
        labels=("a", "b"), counts=((half // 2, half // 2, 0), (half // 2, half // 2, 0), (0, 0, 0))
    )
    assert mixed.adjusted_rand == pytest.approx(0, abs=1e-6)


@given(WEEKS, WEEKS, st.randoms(use_true_random=False))
def test_row_order_and_chunks_change_nothing(
    before: dict[str, str | None], after: dict[str, str | None], random: object
) -> None:
    shuffled = list(after)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    cut = len(shuffled) // 2
    parts = [_week({u: after[u] for u in users}) for users in (shuffled[:cut], shuffled[cut:])]
    again = measure_migrations(_week(before), pa.concat_tables(parts), ["segment"])["segment"]
    assert again == _migration(before, after)


def test_labels_may_be_dictionary_encoded() -> None:
    plain = _week({"ann": "loyal", "bob": None})
    encoded = plain.set_column(1, "segment", plain["segment"].dictionary_encode())
    assert measure_migrations(encoded, encoded, ["segment"]) == measure_migrations(
        plain, plain, ["segment"]
    )


def test_a_repeated_customer_is_an_error() -> None:
    twice = pa.table({"user_id": ["ann", "ann"], "segment": ["new", "lost"]})
    with pytest.raises(ValueError, match="one row per customer"):
        measure_migrations(twice, _week({"ann": "new"}), ["segment"])


@pytest.mark.parametrize("label", [NEW, GONE, NO_LABEL])
def test_a_reserved_label_is_an_error(label: str) -> None:
    with pytest.raises(ValueError, match="rename"):
        _migration({"ann": label}, {"ann": "new"})


@given(WEEKS, WEEKS)
def test_a_migration_survives_json(
    before: dict[str, str | None], after: dict[str, str | None]
) -> None:
    migration = _migration(before, after)
    assert Migration.from_dict(json.loads(json.dumps(migration.to_dict()))) == migration


def test_a_damaged_migration_is_a_named_error() -> None:
    with pytest.raises(InputError, match="2 rows"):
        Migration.from_dict({"labels": ["new"], "counts": [[1]]})


def test_stability_index_of_known_shifts() -> None:
    same = {"a": 30, "b": 70}
    assert population_stability(same, {"a": 300, "b": 700}) == 0
    # 0.1 · ln(0.6 / 0.5) - 0.1 · ln(0.4 / 0.5)
    assert population_stability({"a": 50, "b": 50}, {"a": 60, "b": 40}) == pytest.approx(
        0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    )
    # A segment that appears counts as 0.01 % before.
    appeared = (0.25 - 1e-4) * math.log(0.25 / 1e-4) + (0.75 - 1) * math.log(0.75)
    assert population_stability({"a": 10}, {"a": 75, "b": 25}) == pytest.approx(appeared)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 1000), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 1000), min_size=1),
)
def test_stability_index_is_symmetric_and_not_negative(
    before: dict[str, int], after: dict[str, int]
) -> None:
    shift = population_stability(before, after)
    assert shift >= 0
    assert shift == pytest.approx(population_stability(after, before))


@pytest.mark.parametrize("sizes", [{}, {"a": 0}, {"a": -1, "b": 3}])
def test_a_week_without_customers_has_no_stability_index(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="after is"):
        population_stability({"a": 1}, sizes)


def test_a_lone_small_cell_takes_its_neighbours_with_it() -> None:
    counts = np.array([[500, 3, 40], [60, 400, 0], [70, 30, 300]])
    shown = hide_small(counts, 10)
    assert shown.tolist() == [[500, None, None], [60, 400, 0], [70, None, None]]


def test_cells_that_go_first_are_hidden_before_smaller_ones() -> None:
    counts = np.array([[500, 3, 40], [60, 400, 0], [70, 30, 300]])
    shown = hide_small(counts, 10, first=np.eye(3, dtype=bool))
    assert shown.tolist() == [[None, None, 40], [None, None, 0], [70, 30, 300]]


@given(
    arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 40)),
    st.integers(1, 15),
)
def test_no_small_cell_is_shown_and_none_follows_from_a_total(
    counts: np.ndarray, minimum: int
) -> None:
    before = counts.copy()
    shown = hide_small(counts, minimum)
    assert np.array_equal(counts, before)
    hidden = np.ma.getmaskarray(shown)
    assert not ((counts > 0) & (counts < minimum) & ~hidden).any()
    assert not hidden[counts == 0].any()
    for line, is_hidden in [
        *zip(counts, hidden, strict=True),
        *zip(counts.T, hidden.T, strict=True),
    ]:
        if is_hidden.any() and (line[~is_hidden] > 0).any():
            assert is_hidden.sum() >= 2
            assert line[is_hidden].sum() >= minimum


def test_a_minimum_of_one_hides_nothing() -> None:
    assert not np.ma.getmaskarray(hide_small(np.array([[1, 2], [0, 1]]), 1)).any()


def test_cells_of_a_segment_whose_size_is_hidden_are_hidden() -> None:
    # "small" has 4 customers, so the size of "next" is hidden too, and with it its row and column.
    counts = ((400, 0, 0, 0), (0, 15, 0, 0), (0, 0, 4, 0), (0, 0, 0, 0))
    migration = Migration(labels=("big", "next", "small"), counts=counts)
    assert hide_small_sizes(migration.after, 10) == {"big": 400, "next": None, "small": None}
    assert migration.shown(10).tolist()[1] == [0, None, 0, 0]
    assert migration.moves(minimum=10) == []


def test_cells_of_a_segment_that_is_small_only_now_are_hidden() -> None:
    # Nobody was in "b" and "c" before; now they have 15 and 4.
    counts = ((400, 15, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 4, 0))
    migration = Migration(labels=("a", "b", "c"), counts=counts)
    assert migration.shown(10).tolist()[0] == [400, None, 0, 0]


def test_moves_below_the_minimum_are_not_told() -> None:
    counts = ((400, 25, 30, 0), (4, 300, 20, 0), (11, 12, 200, 0), (0, 0, 0, 0))
    migration = Migration(labels=("a", "b", "c"), counts=counts)
    # The 4 are hidden; who stayed in a and b goes with them, and then the 25 beside the 400.
    told = [(m.before, m.after, m.num_users) for m in migration.moves(minimum=10)]
    assert told == [("a", "c", 30), ("b", "c", 20), ("c", "b", 12), ("c", "a", 11)]
