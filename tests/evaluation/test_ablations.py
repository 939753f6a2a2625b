"""The hybrid on the synthetic shop: each kind of knowledge pays where the truth says so."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from perso.data.groups import UserGroups
from perso.data.interactions import PrepareSpec, aggregate_pairs, keep_users
from perso.data.partition import count_by_hour
from perso.data.prepared import Interactions
from perso.data.split import SplitSpec, split_by_time
from perso.data.synthetic import ShopSpec, generate_shop
from perso.data.vocabulary import Vocabulary
from perso.evaluation.metrics import ndcg_at_k
from perso.models.hybrid import HybridConfig, fit_hybrid
from perso.models.protocol import UserBatch
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.side_data import SideData
from perso.schema import CONTEXT_COLUMNS
from perso.segments.measure_spec import MeasureSpec
from perso.segments.measures import measure
from perso.segments.partition import Partition
from perso.segments.rfm import RfmScale, RfmSpec

SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class _Shop:
    train: Interactions
    held_out: Interactions
    side: SideData
    is_new_I: np.ndarray


def _build_shop():
    """The shop of the default spec, cut by time as `perso prepare` does it."""
    shop = generate_shop(ShopSpec(new_item_rate=0.3, newcomer_rate=0.4))
    events = shop.events.sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    spec = PrepareSpec(split=SplitSpec(validation_fraction=0.01, test_fraction=0.2))
    ends = split_by_time(count_by_hour(events), spec.split)
    items = Vocabulary(shop.catalog["item_id"].combine_chunks())
    users = keep_users(events, items, spec)
    parts = aggregate_pairs(
        events, users=users, first_user_index=0, items=items, ends=ends, spec=spec
    ).by_split
    sizes = {"num_users": len(users), "num_items": len(items)}
    train, held_out = (_to_arrays(parts[split], **sizes) for split in ("train", "test"))
    # The shop is three months old: who has not come for two of them is as good as lost.
    spec = RfmSpec(recency_horizon_days=60.0)
    partition = Partition(events, catalog=shop.catalog, spec=MeasureSpec())
    measures = measure(partition, ends.train).customers
    codes = RfmScale.fit(measures, spec).score(measures, spec)["segment_code"]
    names = [spec.cube.names[code] for code in codes]
    segment_of = dict(zip(measures["user_id"].to_pylist(), names, strict=True))
    segments = UserGroups.from_names([segment_of.get(user) for user in users.ids.to_pylist()])
    return _Shop(
        train=train,
        held_out=held_out,
        side=SideData(segments=segments, item_features=shop.catalog),
        is_new_I=np.bincount(train.item_indices, minlength=train.num_items) == 0,
    )


def _to_arrays(pairs: pa.Table, *, num_users, num_items):
    names, codes = {}, {}
    for column in CONTEXT_COLUMNS:
        values = np.array(pairs[column].to_pylist())
        names[column], codes[column] = np.unique(values, return_inverse=True)
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=pairs["user_index"].to_numpy(),
        item_indices=pairs["item_index"].to_numpy(),
        weights=pairs["weight"].to_numpy(),
        ratings=np.full(len(pairs), np.nan, np.float32),
        last_at=pairs["last_at"].cast(pa.int64()).to_numpy(),
        context_names={name: tuple(values.tolist()) for name, values in names.items()},
        context_codes={name: values.astype(np.int32) for name, values in codes.items()},
    )


def _ndcg(shop, model):
    """NDCG@20 of the held-out period: of known users, of newcomers, and of new items.

    Lists hold no item that the user had before; those for new items hold nothing else. The
    model is told segments, and the context of each user's first held-out event.
    """
    train, held_out = shop.train, shop.held_out
    known_UI = np.zeros((train.num_users, train.num_items), bool)
    known_UI[train.user_indices, train.item_indices] = True
    relevant_UI = np.zeros_like(known_UI)
    relevant_UI[held_out.user_indices, held_out.item_indices] = True
    relevant_UI &= ~known_UI
    by_time = np.lexsort((held_out.last_at, held_out.user_indices))
    all_users, first = np.unique(held_out.user_indices[by_time], return_index=True)
    row_of_U = dict(zip(all_users.tolist(), by_time[first].tolist(), strict=True))
    users = np.flatnonzero(relevant_UI.any(1))
    rows = [row_of_U[user] for user in users.tolist()]
    segments = shop.side.segments
    scores = model.score(
        UserBatch(
            user_indices=users,
            segment_names=tuple(
                segments.names[code] if code >= 0 else None for code in segments.codes_U[users]
            ),
            context={
                name: [held_out.context_names[name][code] for code in codes[rows]]
                for name, codes in held_out.context_codes.items()
            },
        )
    )
    scores = np.where(known_UI[users], -np.inf, scores)
    is_newcomer = ~known_UI[users].any(1)

    def mean(chosen, allowed_I):
        lists = np.argsort(-np.where(allowed_I, scores[chosen], -np.inf), axis=1, kind="stable")
        relevant = [np.flatnonzero(row & allowed_I) for row in relevant_UI[users[chosen]]]
        return float(np.nanmean(ndcg_at_k(lists[:, :20], relevant, k=20)))

    everything = np.ones(train.num_items, bool)
    return {
        "known": mean(~is_newcomer, everything),
        "newcomers": mean(is_newcomer, everything),
        "new items": mean(np.ones(len(users), bool), shop.is_new_I),
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Steps this small take a hundred times longer where threads wait for a busy core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shop():
    return _build_shop()


@pytest.fixture(scope="module")
def figures(shop):
    """Mean NDCG@20 over the seeds of the hybrid, its ablations and plain SGD."""
    variants = {
        "hybrid": {},
        "no item features": {"item_columns": ()},
        "no context": {"context": ()},
        "no segments": {"use_segments": False},
        "no feature dropout": {"feature_dropout": 0.0},
    }
    runs = {
        name: [
            _ndcg(shop, fit_hybrid(shop.train, shop.side, HybridConfig(seed=seed, **settings)))
            for seed in SEEDS
        ]
        for name, settings in variants.items()
    }
    runs["sgd"] = [_ndcg(shop, fit_sgd(shop.train, SgdConfig(seed=seed))) for seed in SEEDS]
    return {
        name: {where: float(np.mean([run[where] for run in found])) for where in found[0]}
        for name, found in runs.items()
    }


def test_item_features_find_new_items(figures):
    """A new item's category is all that tells who wants it; without it the order is chance."""
    assert figures["hybrid"]["new items"] > 2 * figures["no item features"]["new items"]
    assert figures["hybrid"]["new items"] > 2 * figures["sgd"]["new items"]


def test_features_that_have_stood_alone_find_new_items_better(figures):
    assert figures["hybrid"]["new items"] > 1.05 * figures["no feature dropout"]["new items"]


def test_context_helps_newcomers(figures):
    """Region pulls tastes, hour and device shift the odds of categories."""
    assert figures["hybrid"]["newcomers"] > 1.05 * figures["no context"]["newcomers"]
    assert figures["hybrid"]["newcomers"] > 1.05 * figures["sgd"]["newcomers"]


def test_nothing_that_the_hybrid_knows_harms_known_users(figures):
    for name in ("no item features", "no context", "no segments", "sgd"):
        assert figures["hybrid"]["known"] > 0.96 * figures[name]["known"]


def test_segments_know_who_minds_the_price(shop):
    """Who comes often minds prices less: champions prefer what costs more, the hibernating, who
    spent little, what costs less. A user's history says so too, therefore no list of known users
    gets better by it.
    """
    log_price_I = np.log(shop.side.item_features["price"].to_numpy())
    for seed in SEEDS:
        model = fit_hybrid(shop.train, shop.side, HybridConfig(seed=seed))
        names, vectors_SD = model.request_features.columns["segment"]
        scores_SI = vectors_SD @ model.item_factors_ID.T
        likes_costly = {
            name: np.corrcoef(row, log_price_I)[0, 1]
            for name, row in zip(names, scores_SI, strict=True)
        }
        assert likes_costly["champions"] > 0.5
        assert likes_costly["hibernating"] < -0.5
