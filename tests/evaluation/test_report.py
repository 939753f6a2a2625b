"""The report on worlds where every figure follows by construction, and against ten naive lines."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.report import NEWCOMERS, NO_SEGMENT, evaluate
from perso.models.popularity import fit_popularity
from perso.models.sgd import SgdConfig, fit_sgd


def build(pairs, *, num_users, num_items, ratings=None):
    pairs = sorted(pairs)
    stars = np.full(len(pairs), np.nan) if ratings is None else [ratings[p] for p in pairs]
    indices = np.array(pairs, np.int32).reshape(-1, 2)
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=indices[:, 0].copy(),
        item_indices=indices[:, 1].copy(),
        weights=np.ones(len(pairs), np.float32),
        ratings=np.asarray(stars, np.float32),
        last_at=np.zeros(len(pairs), np.int64),
        context_names={},
        context_codes={},
    )


class FixedScores:
    """A model whose scores are given; it remembers the segments it was told."""

    def __init__(self, scores_UI):
        self.scores_UI = np.asarray(scores_UI, np.float32)
        self.told = {}

    @property
    def num_items(self):
        return self.scores_UI.shape[1]

    def score(self, batch):
        names = batch.segment_names or (None,) * len(batch.user_indices)
        self.told |= dict(zip(batch.user_indices.tolist(), names, strict=True))
        return self.scores_UI[batch.user_indices]

    def save(self, folder):
        raise NotImplementedError


SHAPE = {"num_users": 4, "num_items": 5}
DESCENDING = FixedScores(np.tile(np.arange(5, 0, -1), (4, 1)))


def test_items_of_the_training_period_are_neither_recommended_nor_relevant():
    train = build([(0, 0), (0, 1)], **SHAPE)
    held_out = build([(0, 0), (0, 2)], **SHAPE)  # 0 again, and 2: the best that is left
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1, 3))
    assert report.overall["recall@1"] == 1.0
    assert report.overall["ndcg@1"] == report.overall["mrr@1"] == report.overall["map@3"] == 1.0
    assert report.overall["coverage@3"] == 3 / 5  # items 2, 3 and 4
    assert report.num_users == 1


def test_users_with_nothing_new_in_the_period_do_not_count():
    train = build([(0, 0), (1, 1)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=build([(0, 0), (1, 0)], **SHAPE), ks=(2,))
    assert report.num_users == 1
    assert report.overall["recall@2"] == 1.0


def test_newcomers_are_a_slice_of_their_own_and_no_part_of_the_whole():
    train = build([(0, 0), (1, 1)], **SHAPE)
    held_out = build([(0, 1), (2, 4), (3, 4)], **SHAPE)
    groups = UserGroups.from_names(["a", "b", "a", None])
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(2,), segments=groups)
    assert report.num_users == 1
    assert report.overall["recall@2"] == 1.0
    assert report.num_users_by_segment == {"a": 1, NEWCOMERS: 2}
    assert report.per_segment[NEWCOMERS]["recall@2"] == 0.0


def test_segments_are_slices_and_told_to_the_model():
    model = FixedScores(np.tile(np.arange(5, 0, -1), (4, 1)))
    train = build([(user, 0) for user in range(4)], **SHAPE)
    held_out = build([(0, 1), (1, 1), (2, 4), (3, 4)], **SHAPE)
    groups = UserGroups.from_names(["a", "a", "b", None])
    report = evaluate(model, train=train, held_out=held_out, ks=(1,), segments=groups)
    assert {name: m["recall@1"] for name, m in report.per_segment.items()} == {
        "a": 1.0,
        "b": 0.0,
        NO_SEGMENT: 0.0,
    }
    assert report.num_users_by_segment == {"a": 2, "b": 1, NO_SEGMENT: 1}
    assert report.overall["recall@1"] == 0.5
    assert model.told == {0: "a", 1: "a", 2: "b", 3: None}


def test_a_low_rating_is_not_relevant_and_no_rating_is():
    train = build([(0, 0)], **SHAPE)
    ratings = {(0, 1): 3.5, (0, 2): 4.0, (0, 3): math.nan}
    held_out = build(ratings, ratings=ratings, **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1, 3))
    assert report.overall["recall@1"] == 0.0  # item 1 is first, but not liked
    assert report.overall["recall@3"] == 1.0
    lower = evaluate(DESCENDING, train=train, held_out=held_out, ks=(1,), min_rating=3.5)
    assert lower.overall["recall@1"] == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def rated():
    rng = np.random.default_rng(0)
    pairs = {(int(u), int(i)) for u, i in rng.integers(0, 15, (150, 2))}
    stars = {pair: float(rng.integers(1, 6)) for pair in pairs}
    held = {(0, 20): 5.0, (20, 0): 1.0}  # an item and a user that nobody knows yet
    held |= {(int(u), int(i)): float(rng.integers(1, 6)) for u, i in rng.integers(0, 15, (40, 2))}
    shape = {"num_users": 21, "num_items": 21}
    return build(pairs, ratings=stars, **shape), build(held, ratings=held, **shape)


def test_rmse_is_over_ratings_of_known_users_and_items(rated):
    train, held_out = rated
    model = fit_sgd(train, SgdConfig(loss="rating", num_factors=2, epochs=2))
    report = evaluate(model, train=train, held_out=held_out)
    known = (held_out.user_indices < 15) & (held_out.item_indices < 15)
    predicted = model.predict(held_out.user_indices[known], held_out.item_indices[known])
    expected = np.sqrt(np.mean((predicted - held_out.ratings[known]) ** 2))
    assert report.overall["rmse"] == pytest.approx(expected, rel=1e-5)
    assert report.num_ratings == known.sum() == len(held_out) - 2


def test_models_that_only_rank_have_no_rmse(rated):
    train, held_out = rated
    for model in (fit_popularity(train), fit_sgd(train, SgdConfig(num_factors=2, epochs=2))):
        report = evaluate(model, train=train, held_out=held_out)
        assert "rmse" not in report.overall
        assert report.num_ratings == 0


def test_a_rating_model_has_no_rmse_where_nothing_was_rated(rated):
    train, held_out = rated
    model = fit_sgd(train, SgdConfig(loss="rating", num_factors=2, epochs=2))
    pairs = set(zip(held_out.user_indices.tolist(), held_out.item_indices.tolist(), strict=True))
    bare = build(pairs, num_users=21, num_items=21)
    assert "rmse" not in evaluate(model, train=train, held_out=bare).overall


def test_nobody_to_measure_gives_nan_and_valid_json():
    train = build([(0, 0)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=build([], **SHAPE), ks=(2,))
    assert report.num_users == 0
    assert math.isnan(report.overall["recall@2"])
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["overall"]["recall@2"] is None
    assert found["per_segment"] == {}


def test_lists_may_be_longer_than_the_catalogue():
    train, held_out = build([(0, 0)], **SHAPE), build([(0, 4)], **SHAPE)
    report = evaluate(DESCENDING, train=train, held_out=held_out, ks=(50,))
    assert report.overall["recall@50"] == 1.0
    assert report.overall["ndcg@50"] == pytest.approx(1 / math.log2(5))


pair_sets = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7)))


@given(
    train_pairs=pair_sets,
    held_pairs=pair_sets,
    seed=st.integers(0, 99),
    batch_size=st.integers(1, 7),
    k=st.integers(1, 9),
)
@settings(deadline=None)
def test_the_report_equals_ten_naive_lines_in_any_batch_size(
    train_pairs, held_pairs, seed, batch_size, k
):
    shape = {"num_users": 6, "num_items": 8}
    scores = np.random.default_rng(seed).normal(size=(6, 8))
    train, held_out = build(train_pairs, **shape), build(held_pairs, **shape)
    before = [array.copy() for array in (train.item_indices, held_out.item_indices)]
    report = evaluate(
        FixedScores(scores), train=train, held_out=held_out, ks=(k,), batch_size=batch_size
    )
    recalls, listed = [], set()
    for user in range(6):
        had = {item for u, item in train_pairs if u == user}
        relevant = {item for u, item in held_pairs if u == user} - had
        if not (had and relevant):
            continue
        best = sorted(set(range(8)) - had, key=lambda item, user=user: -scores[user, item])[:k]
        recalls.append(len(set(best) & relevant) / len(relevant))
        listed |= set(best)
    assert report.num_users == len(recalls)
    expected = np.mean(recalls) if recalls else math.nan
    assert report.overall[f"recall@{k}"] == pytest.approx(expected, nan_ok=True)
    assert report.overall[f"coverage@{k}"] == len(listed) / 8
    np.testing.assert_array_equal(train.item_indices, before[0])
    np.testing.assert_array_equal(held_out.item_indices, before[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ks": ()}, "ks is"),
        ({"ks": (0,)}, "ks is"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"held_out": build([], num_users=4, num_items=6)}, r"number of items: \[5, 6\]"),
        ({"segments": UserGroups.from_names(["a"])}, r"number of users: \[1, 4\]"),
    ],
)
def test_wrong_arguments_are_named(change, says):
    train = build([(0, 0)], **SHAPE)
    with pytest.raises(ValueError, match=says):
        evaluate(DESCENDING, **({"train": train, "held_out": train} | change))
