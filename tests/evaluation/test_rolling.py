"""Several cut-offs: what was known at each, and nothing else."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.report import evaluate
from perso.evaluation.rolling import evaluate_rolling, rolling_origin
from perso.models.popularity import fit_popularity


def build(last_at, num_users=6, num_items=6):
    """Interactions of (user, item) → time of the last event."""
    pairs = sorted(last_at)
    indices = np.array(pairs, np.int32).reshape(-1, 2)
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=indices[:, 0].copy(),
        item_indices=indices[:, 1].copy(),
        weights=np.ones(len(pairs), np.float32),
        ratings=np.full(len(pairs), np.nan, np.float32),
        last_at=np.array([last_at[p] for p in pairs], np.int64),
        context_names={"device": ("app",)},
        context_codes={"device": np.zeros(len(pairs), np.int32)},
    )


def pairs_of(interactions):
    return set(
        zip(interactions.user_indices.tolist(), interactions.item_indices.tolist(), strict=True)
    )


worlds = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(0, 9), min_size=1
)


@given(world=worlds, cutoffs=st.sets(st.integers(0, 9), min_size=1, max_size=3))
@settings(deadline=None)
def test_no_training_sees_anything_from_after_its_cut_off(world, cutoffs):
    cutoffs = sorted(cutoffs)
    ends = [*cutoffs[1:], math.inf]
    expected = [
        (
            {pair for pair, at in world.items() if at < cutoff},
            {pair for pair, at in world.items() if cutoff <= at < end},
        )
        for cutoff, end in zip(cutoffs, ends, strict=True)
    ]
    if not all(train and held_out for train, held_out in expected):
        with pytest.raises(ValueError, match="each side needs one or more"):
            list(rolling_origin(build(world), cutoffs))
        return
    found = list(rolling_origin(build(world), cutoffs))
    assert [(pairs_of(train), pairs_of(held_out)) for train, held_out in found] == expected
    for cutoff, (train, held_out) in zip(cutoffs, found, strict=True):
        assert train.last_at.max() < cutoff <= held_out.last_at.min()
        assert len(train.context_codes["device"]) == len(train)


@pytest.mark.parametrize("cutoffs", [[], [3, 3], [5, 2]])
def test_cut_offs_have_to_ascend(cutoffs):
    with pytest.raises(ValueError, match="in ascending order"):
        list(rolling_origin(build({(0, 0): 1}), cutoffs))


@pytest.fixture
def fashion():
    """Until 10 everyone wants item 1 (user 0 first, then one a day), from 10 on item 5."""
    early = {(user, 1): user for user in range(6)}
    return build(
        early | {(user, 5): 10 + user for user in range(6)} | {(user, 0): 0 for user in range(6)}
    )


def test_each_cut_off_has_a_model_of_its_own_and_the_mean_is_over_them(fashion):
    fitted = []

    def fit(train):
        fitted.append(train)
        return fit_popularity(train)

    report = evaluate_rolling(fit, fashion, [3, 10, 13], ks=(1,))
    assert [len(train) for train in fitted] == [9, 12, 15]
    splits = rolling_origin(fashion, [3, 10, 13])
    for found, (train, held_out) in zip(report.reports, splits, strict=True):
        alone = evaluate(fit_popularity(train), train=train, held_out=held_out, ks=(1,))
        assert found.to_dict() == alone.to_dict()
    # Item 1 is foreseen at 3; at 10 nobody had item 5 before; at 13 three users did.
    assert [r.overall["recall@1"] for r in report.reports] == [1.0, 0.0, 1.0]
    assert report.mean["recall@1"] == pytest.approx(2 / 3)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["cutoffs"] == [3, 10, 13]
    assert document["mean"]["recall@1"] == report.mean["recall@1"]
    assert len(document["reports"]) == 3


def test_a_cut_off_without_a_value_does_not_spoil_the_mean(fashion):
    only_newcomers = build({(0, 0): 0, (1, 1): 2, (0, 1): 5})
    report = evaluate_rolling(fit_popularity, only_newcomers, [1, 3], ks=(1,))
    assert math.isnan(report.reports[0].overall["recall@1"])
    assert report.mean["recall@1"] == 1.0


def test_segments_are_those_of_each_cut_off(fashion):
    early, late = (UserGroups.from_names([name] * 6) for name in ("early", "late"))
    report = evaluate_rolling(fit_popularity, fashion, [3, 13], ks=(1,), segments=[early, late])
    assert "early" in report.reports[0].per_segment
    assert "late" in report.reports[1].per_segment
    with pytest.raises(ValueError, match="1 segments for 2 cut-offs"):
        evaluate_rolling(fit_popularity, fashion, [3, 13], segments=[early])
