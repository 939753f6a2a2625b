import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.fixed_split import cut_validation, read_fixed_split
from perso.errors import InputError

SPLIT_ARRAYS = ("user_indices", "item_indices", "weights", "ratings", "last_at")


@pytest.fixture
def read(tmp_path):
    """The split in a Parquet file of the given columns."""

    def write_and_read(**columns):
        pq.write_table(pa.table(columns), tmp_path / "split.parquet")
        return read_fixed_split(tmp_path / "split.parquet")

    return write_and_read


def pairs(interactions, split):
    """Ids of the pairs, in the order of the rows."""
    users = [split.users.id_of(i) for i in interactions.user_indices.tolist()]
    items = [split.items.id_of(i) for i in interactions.item_indices.tolist()]
    return list(zip(users, items, strict=True))


def assert_same(one, other):
    assert (one.num_users, one.num_items) == (other.num_users, other.num_items)
    assert one.context_names == other.context_names
    for name in SPLIT_ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, codes in one.context_codes.items():
        np.testing.assert_array_equal(codes, other.context_codes[name])


def test_each_row_lands_in_its_split_under_common_vocabularies(read):
    split = read(
        user=["u2", "u1", "u1", "u3"],
        item=["a", "b", "a", "c"],
        split=["train", "train", "validation", "test"],
    )
    assert split.users.ids.to_pylist() == ["u1", "u2", "u3"]
    assert split.items.ids.to_pylist() == ["a", "b", "c"]
    assert pairs(split.train, split) == [("u1", "b"), ("u2", "a")]
    assert pairs(split.validation, split) == [("u1", "a")]
    assert pairs(split.test, split) == [("u3", "c")]
    assert split.train.weights.tolist() == [1, 1]
    assert np.isnan(split.train.ratings).all()
    assert (split.train.num_users, split.test.num_items) == (3, 3)
    assert (split.num_rows, split.dropped, split.in_both) == (4, {}, 0)


def test_without_timestamps_pairs_know_their_row(read):
    split = read(user=[2, 1, 1], item=[7, 8, 9], split=["train", "train", "test"])
    assert not split.has_timestamps
    assert split.train.last_at.tolist() == [1, 0]


def test_without_validation_rows_there_is_no_validation(read):
    assert read(user=[1, 1], item=[1, 2], split=["train", "test"]).validation is None


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([10, 9, 10], pa.int32()),
        pa.array([10, 9, 10], pa.uint64()),
        pa.array([10.0, 9.0, 10.0]),
        pa.array(["10", "9", "10"]),
        pa.array(["10", "9", "10"], pa.large_string()),
        pa.array(["10", "9", "10"]).dictionary_encode(),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_of_any_type_become_the_same_text(read, ids):
    split = read(user=ids, item=ids, split=["train", "train", "test"])
    assert split.users.ids.to_pylist() == ["10", "9"]
    assert pairs(split.train, split) == [("10", "10"), ("9", "9")]


def test_categories_that_no_row_uses_are_no_users(read):
    ids = pa.DictionaryArray.from_arrays(pa.array([2, 0]), pa.array(["a", "ghost", "b"]))
    assert read(user=ids, item=[1, 2], split=["train", "test"]).users.ids.to_pylist() == ["a", "b"]


def test_rows_without_an_id_are_dropped_and_counted(read):
    split = read(
        user=["a", None, "", "b", None, "a"],
        item=["x", "only here", "x", None, None, "x"],
        split=["train", "train", "train", "test", "train", "test"],
        user_age=[1, 2, 3, 4, 5, 1],
    )
    assert split.dropped == {"no_user": 3, "no_item": 1}
    assert split.users.ids.to_pylist() == ["a"]
    assert split.items.ids.to_pylist() == ["x"]
    assert split.user_features.to_pydict() == {"age": [1]}


def test_of_duplicates_the_newest_rating_and_the_last_known_context_stay(read):
    split = read(
        user=["a"] * 4,
        item=["x"] * 3 + ["y"],
        split=["train"] * 3 + ["test"],
        rating=[1.0, 5.0, None, 2.0],
        timestamp=[1_600_000_002, 1_600_000_001, 1_600_000_003, 1_600_000_004],
        context_device=["phone", None, None, "desk"],
    )
    assert split.train.ratings.tolist() == [1.0]
    assert split.train.last_at.tolist() == [1_600_000_003_000_000]
    assert split.train.weights.tolist() == [1.0]
    assert split.dropped == {"duplicate": 2}
    names, codes = split.train.context_names["device"], split.train.context_codes["device"]
    assert [names[code] for code in codes] == ["phone"]


def test_of_duplicates_without_timestamps_the_last_row_wins(read):
    split = read(
        user=[1, 1, 1], item=[1, 1, 2], split=["train", "train", "test"], rating=[1.0, 4.0, 2.0]
    )
    assert split.train.ratings.tolist() == [4.0]
    assert split.train.last_at.tolist() == [1]


def test_a_pair_of_both_train_and_test_stays_in_both_and_is_counted(read):
    split = read(user=[1, 1, 1], item=[1, 2, 1], split=["train", "train", "test"])
    assert split.in_both == 1
    assert pairs(split.test, split) == [("1", "1")]
    assert pairs(split.train, split) == [("1", "1"), ("1", "2")]
    assert split.dropped == {}


def test_contexts_are_coded_alike_in_all_splits(read):
    split = read(
        user=[1, 2, 3, 4],
        item=[1, 1, 1, 1],
        split=["train", "test", "train", "test"],
        context_device=["phone", "desk", None, "phone"],
    )
    assert dict(split.train.context_names) == {"device": ("desk", "phone")}
    assert split.train.context_codes["device"].tolist() == [1, -1]
    assert split.test.context_codes["device"].tolist() == [0, 1]


def test_features_are_the_last_given_of_each_user_and_item(read):
    split = read(
        user=["b", "a", "b", "b"],
        item=["x", "y", "y", "x"],
        split=["train", "train", "train", "test"],
        user_city=["Bern", None, "Basel", None],
        user_age=[30, 40, 30, 30],
        item_tags=[["p"], None, ["q", "r"], ["p"]],
        item_price=[1.5, 2.0, 2.5, 1.5],
    )
    assert split.user_features.to_pydict() == {"city": [None, "Basel"], "age": [40, 30]}
    assert split.item_features.to_pydict() == {"tags": [["p"], ["q", "r"]], "price": [1.5, 2.5]}
    assert split.disagreements == {"user_city": 1, "item_price": 1}


def test_without_feature_columns_the_tables_still_have_a_row_each(read):
    split = read(user=[1, 2, 3], item=[1, 1, 2], split=["train", "test", "train"])
    assert (split.user_features.num_rows, split.user_features.num_columns) == (3, 0)
    assert (split.item_features.num_rows, split.item_features.num_columns) == (2, 0)


def test_a_csv_file_gives_what_the_parquet_file_gives(tmp_path):
    table = pa.table(
        {
            "user": [3, 1, 2, 1],
            "item": ["p", "q", "p", "p"],
            "split": ["train", "train", "test", "test"],
            "rating": [4.5, None, 3.0, 1.0],
            "timestamp": pa.array([10**15, 10**15 + 1, 10**15 + 2, 10**15 + 3], pa.timestamp("us")),
            "context_device": ["phone", None, "desk", "phone"],
            "user_age": [31, 25, None, 25],
            "user_zip": ["007", "1234", "7", "1234"],
            "item_price": [0.5, 2.0, 0.5, 0.5],
            "ignored": ["so", "what", "?", None],
        }
    )
    pq.write_table(table, tmp_path / "split.parquet")
    pacsv.write_csv(table, tmp_path / "split.csv")
    one, other = (read_fixed_split(tmp_path / f"split.{kind}") for kind in ("parquet", "csv"))
    assert_same(one.train, other.train)
    assert_same(one.test, other.test)
    assert one.user_features == other.user_features
    assert one.user_features["zip"].to_pylist() == ["1234", "7", "007"]
    assert one.item_features == other.item_features
    assert one.hash != other.hash


def test_malformed_lines_of_a_csv_file_are_counted(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("user,item,split\n1,2,train\n1,2,3,4\n1,3,test\n")
    split = read_fixed_split(path)
    assert split.dropped == {"malformed_line": 1}
    assert split.num_rows == 3


def test_the_hash_is_of_the_bytes(tmp_path):
    for name, item in (("a", "2"), ("b", "2"), ("c", "3")):
        (tmp_path / f"{name}.csv").write_text(f"user,item,split\n1,1,train\n1,{item},test\n")
    a, b, c = (read_fixed_split(tmp_path / f"{name}.csv").hash for name in "abc")
    assert a == b != c
    assert len(a) == 32


ROW = st.tuples(
    st.sampled_from(["a", "b", "c", "", None]),
    st.sampled_from(["x", "y", "z", None]),
    st.sampled_from(["train", "validation", "test"]),
    st.one_of(st.none(), st.integers(1, 5).map(float)),
    st.sampled_from(["phone", "desk", None]),
)
ANCHORS = [("a", "x", "train", 1.0, None), ("a", "x", "test", None, "desk")]


def columns_of(rows, order):
    user, item, split, rating, device = zip(*(rows[place] for place in order), strict=True)
    return {
        "user": pa.array(user, pa.string()),
        "item": pa.array(item, pa.string()),
        "split": split,
        "rating": pa.array(rating, pa.float64()),
        "context_device": pa.array(device, pa.string()),
        "timestamp": [1_600_000_000 + int(place) for place in order],
    }


@given(rows=st.lists(ROW, max_size=25), seed=st.integers(0, 99))
def test_every_row_is_kept_or_counted_and_row_order_carries_no_meaning(
    tmp_path_factory, rows, seed
):
    rows = [*ANCHORS, *rows]
    folder = tmp_path_factory.mktemp("rows")
    orders = (np.arange(len(rows)), np.random.default_rng(seed).permutation(len(rows)))
    splits = []
    for number, order in enumerate(orders):
        path = folder / f"{number}.parquet"
        pq.write_table(pa.table(columns_of(rows, order)), path)
        splits.append(read_fixed_split(path))
    one, shuffled = splits
    assert one.users.ids == shuffled.users.ids
    assert one.items.ids == shuffled.items.ids
    parts = [part for part in (one.train, one.validation, one.test) if part is not None]
    assert sum(map(len, parts)) + sum(one.dropped.values()) == one.num_rows == len(rows)
    assert_same(one.train, shuffled.train)
    assert_same(one.test, shuffled.test)
    assert (one.dropped, one.in_both) == (shuffled.dropped, shuffled.in_both)
    expected: dict = {}  # (user, item) of train -> rating and device, the last known of each
    for user, item, name, rating, device in rows:
        if user and item and name == "train":
            old = expected.get((user, item), (None, None))
            new = (old[0] if rating is None else rating, device or old[1])
            expected[user, item] = new
    assert pairs(one.train, one) == sorted(expected)
    devices = (*one.train.context_names["device"], None)
    found = [
        (None if np.isnan(rating) else rating, devices[code])
        for rating, code in zip(
            one.train.ratings.tolist(), one.train.context_codes["device"].tolist(), strict=True
        )
    ]
    assert found == [expected[pair] for pair in sorted(expected)]


def fails(read, match, **columns):
    with pytest.raises(InputError, match=match):
        read(**columns)


def test_input_that_cannot_be_used_is_named(read, tmp_path):
    good = {"user": [1, 2], "item": [1, 2], "split": ["train", "test"]}
    fails(
        read, r"no column item, split; it has user, x, .*needs user, item, split", user=[1], x=[1]
    )
    fails(
        read,
        r"split is 'dev', nothing \(in 1 rows\); allowed are train, validation, test",
        user=[1, 2, 3],
        item=[1, 2, 3],
        split=["train", "dev", None],
    )
    fails(read, "no row for test", **good | {"split": ["train", "validation"]})
    fails(read, "no row for train", **good | {"split": ["test", "test"]})
    fails(read, "no row for train", **good | {"user": pa.nulls(2)})
    fails(read, "1 of 2 rows have a rating .* first is inf", **good, rating=[1.0, np.inf])
    fails(read, "1 of 2 rows have a rating .* first is nan", **good, rating=[np.nan, 2.0])
    fails(read, r"first is 1e\+300.*finite number", **good, rating=[1.0, 1e300])
    fails(read, "first is 'good'", **good, rating=["3", "good"])
    fails(read, "1 of 2 rows have a timestamp .* first is None", **good, timestamp=[10**9, None])
    fails(read, "split.parquet is empty", **{name: [] for name in good})
    with pytest.raises(InputError, match="there is no file"):
        read_fixed_split(tmp_path / "nowhere.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"cannot read .*broken\.parquet"):
        read_fixed_split(tmp_path / "broken.parquet")
    (tmp_path / "rows.jsonl").write_text('{"user": 1}\n')
    with pytest.raises(InputError, match="no Parquet or CSV file"):
        read_fixed_split(tmp_path / "rows.jsonl")


@pytest.fixture
def history(read):
    """Users of 1, 2, …, 40 pairs; a pair's instant is its place in the file."""
    users = np.repeat(np.arange(40), np.arange(1, 41))
    items = np.concatenate([np.arange(n) for n in range(1, 41)])
    order = np.random.default_rng(0).permutation(len(users))
    columns = {
        "user": np.append(users[order], 0),
        "item": np.append(items[order], 99),
        "split": [*["train"] * len(users), "test"],
        "rating": np.append(items[order] % 5, 1),
        "timestamp": 1_600_000_000 + np.arange(len(users) + 1),
        "context_device": [*np.where(users[order] % 2, "phone", "desk"), "phone"],
    }
    return read(**columns).train


def rows_of(interactions):
    columns = [getattr(interactions, name).tolist() for name in SPLIT_ARRAYS]
    return list(zip(*columns, interactions.context_codes["device"].tolist(), strict=True))


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_validation_takes_its_share_and_the_two_parts_are_train(history, share, by_time):
    rest, validation = cut_validation(history, share=share, seed=3, by_time=by_time)
    assert sorted(rows_of(rest) + rows_of(validation)) == rows_of(history)
    assert rows_of(rest) == sorted(rows_of(rest))
    assert rows_of(validation) == sorted(rows_of(validation))
    assert len(validation) == pytest.approx(share * len(history), abs=2)


def test_at_random_every_user_gives_the_share_and_keeps_a_pair(history):
    rest, validation = cut_validation(history, share=0.25, seed=3, by_time=False)
    given_U = np.bincount(validation.user_indices, minlength=40)
    had_U = np.bincount(history.user_indices, minlength=40)
    assert (np.bincount(rest.user_indices, minlength=40) >= 1).all()
    assert (np.abs(given_U - 0.25 * had_U) <= 1).all()
    again = cut_validation(history, share=0.25, seed=3, by_time=False)
    assert rows_of(again[1]) == rows_of(validation)
    other = cut_validation(history, share=0.25, seed=4, by_time=False)
    assert rows_of(other[1]) != rows_of(validation)


def test_a_user_of_one_pair_gives_none_even_of_a_large_share(history):
    rest, _ = cut_validation(history, share=0.95, seed=0, by_time=False)
    assert (np.bincount(rest.user_indices, minlength=40) >= 1).all()


def test_by_time_every_validation_pair_is_newer_than_every_train_pair(history):
    rest, validation = cut_validation(history, share=0.2, seed=0, by_time=True)
    assert rest.last_at.max() < validation.last_at.min()


def test_by_time_pairs_of_one_instant_stay_together(read):
    split = read(
        user=[1, 2, 3, 4, 9],
        item=[1, 1, 1, 1, 1],
        split=["train"] * 4 + ["test"],
        timestamp=[10**9, 10**9, 10**9 + 5, 10**9 + 5, 10**9 + 9],
    )
    for share in (0.1, 0.5, 0.9):
        rest, validation = cut_validation(split.train, share=share, seed=0, by_time=True)
        assert pairs(rest, split) == [("1", "1"), ("2", "1")]
        assert pairs(validation, split) == [("3", "1"), ("4", "1")]


def test_what_cannot_be_cut_is_named(read):
    split = read(
        user=[1, 2, 3],
        item=[1, 1, 1],
        split=["train", "train", "test"],
        timestamp=[10**9, 10**9, 10**9],
    )
    with pytest.raises(ValueError, match="share is 1"):
        cut_validation(split.train, share=1, seed=0, by_time=False)
    with pytest.raises(InputError, match=r"0 of 2 pairs.*more pairs per user"):
        cut_validation(split.train, share=0.9, seed=0, by_time=False)
    with pytest.raises(InputError, match=r"2 of 2 pairs.*more instants"):
        cut_validation(split.train, share=0.5, seed=0, by_time=True)
