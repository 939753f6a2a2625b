"""A shop of two tastes in which every right answer follows by construction."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from perso.data.vocabulary import Vocabulary
from perso.models.bundle import Bundle
from perso.models.factors import FactorModel
from perso.models.newton_encoder import NewtonEncoder
from perso.models.popularity import PopularityModel
from perso.models.related_items import RelatedItems
from perso.models.request_features import RequestFeatures
from perso.models.seen import SeenItems
from perso.schema import CATALOG_SCHEMA

ITEM_IDS = ["m0", "m1", "m2", "m3", "m4", "l0", "l1", "l2", "l3", "l4", "new"]
"""Five mugs, five lamps and a mug that nobody touched before training."""


def make_world():
    """Ann likes mugs and has m0, Bob likes lamps; Zoe is registered and did nothing yet.

    In the whole shop lamps sell better than mugs, l0 best; the segment ``loyal`` buys m3, then
    m1; on mobiles m2 and l2 are bought, in DE l3. Prices are 10, 20, … in the order of
    ITEM_IDS, unknown for the new one; l4 is out of stock. Who
    buys m0 takes l3 or m2 along.
    """
    factors_ID = np.zeros((11, 2), np.float32)
    factors_ID[:5] = [[1.0, 0.02 * n] for n in range(5)]
    factors_ID[5:10] = [[0.02 * n, 1.0] for n in range(5)]
    global_I = np.array([5, 4, 3, 2, 1, 10, 9, 8, 7, 6, 0], np.float32)
    bias_I = np.log(global_I + 0.1).astype(np.float32) / 10
    shares_I = global_I / global_I.sum()
    center_D = shares_I @ factors_ID
    spread_ID = factors_ID - center_D
    encoder = NewtonEncoder(
        loss="softmax",
        weight_unit=1.0,
        l2=0.05,
        center_D=center_D.astype(np.float32),
        curvature_DD=((spread_ID.T * shares_I) @ spread_ID).astype(np.float32),
        positive_rating=float("nan"),
        recent_boost=10.0,
    )
    return Bundle(
        manifest={
            "created_at": "2026-01-02T00:00:00+00:00",
            "trained_until": "2026-01-01T00:00:00+00:00",
            "data_key": "world",
            "metrics": {"ndcg@20": 0.5},
            "spec": {},
        },
        users=Vocabulary(pa.array(["ann", "bob", "zoe"])),
        items=Vocabulary(pa.array(ITEM_IDS)),
        model=FactorModel(
            user_factors_UD=np.array([[2, -1], [-1, 2], [0, 0]], np.float32),
            user_bias_U=np.zeros(3, np.float32),
            user_weight_U=np.array([5, 5, 0], np.float32),
            item_factors_ID=factors_ID,
            item_bias_I=bias_I,
            global_bias=0.0,
            encoder=encoder,
            request_features=RequestFeatures(num_factors=2),
        ),
        popularity=PopularityModel(
            global_scores_I=global_I,
            slices={
                "segment": (("loyal",), _rows({"m3": 2, "m1": 1})),
                "device": (("mobile",), _rows({"m2": 4, "l2": 1})),
                "region": (("DE",), _rows({"l3": 1})),
            },
        ),
        catalog=pa.Table.from_pylist(
            [
                {
                    "item_id": item_id,
                    "title": f"The {item_id}",
                    "price": None if item_id == "new" else 10.0 * (n + 1),
                    "categories": ["lamps"] if item_id.startswith("l") else ["mugs"],
                    "in_stock": {"l4": False, "l3": None}.get(item_id, True),
                }
                for n, item_id in enumerate(ITEM_IDS)
            ],
            CATALOG_SCHEMA,
        ),
        seen=SeenItems(
            indptr_U1=np.array([0, 1, 1, 1], np.int64), item_indices=np.array([0], np.int32)
        ),
        bought_together=_baskets({"m0": {"l3": 0.5, "m2": 0.25}, "m2": {"m0": 0.25}}),
    )


def _rows(scores):
    return np.array([[scores.get(item_id, 0) for item_id in ITEM_IDS]], np.float32)


def _baskets(together):
    item_indices_IN = np.full((11, 2), -1, np.int32)
    scores_IN = np.zeros((11, 2), np.float32)
    for item_id, companions in together.items():
        row, length = ITEM_IDS.index(item_id), len(companions)
        item_indices_IN[row, :length] = [ITEM_IDS.index(companion) for companion in companions]
        scores_IN[row, :length] = list(companions.values())
    return RelatedItems(item_indices_IN=item_indices_IN, scores_IN=scores_IN)


@pytest.fixture(scope="session")
def world():
    return make_world()


def make_crowd(num_users=60, num_items=30, *, num_factors=4, seed=0):
    """Many users at random: a third without history, some with all items but a few.

    Vectors are eighths, so that sums are exact and ties are real whatever the order of adding up.
    """
    rng = np.random.default_rng(seed)
    world = make_world()

    def eighths(*shape):
        return (rng.integers(-8, 9, shape) / 8).astype(np.float32)

    num_seen_U = rng.integers(0, 6, num_users)
    num_seen_U[::7] = num_items - 2
    num_seen_U[::3] = 0
    seen = [np.sort(rng.choice(num_items, n, replace=False)) for n in num_seen_U]
    users_UD = eighths(num_users, num_factors)
    users_UD[num_seen_U == 0] = 0
    items_ID = eighths(num_items, num_factors)
    items_ID[-3:] = 0
    catalog = [
        {"item_id": f"i{n:05d}", "price": float(n + 1), "categories": [f"c{n % 3}"]}
        for n in range(num_items)
    ]
    return replace(
        world,
        users=Vocabulary(pa.array([f"u{n:06d}" for n in range(num_users)])),
        items=Vocabulary(pa.array([card["item_id"] for card in catalog])),
        model=replace(
            world.model,
            user_factors_UD=users_UD,
            user_bias_U=np.zeros(num_users, np.float32),
            user_weight_U=num_seen_U.astype(np.float32),
            item_factors_ID=items_ID,
            item_bias_I=eighths(num_items),
            encoder=replace(
                world.model.encoder,
                center_D=np.zeros(num_factors, np.float32),
                curvature_DD=np.eye(num_factors, dtype=np.float32),
            ),
            request_features=RequestFeatures(num_factors=num_factors),
        ),
        popularity=PopularityModel(
            global_scores_I=rng.integers(0, 9, num_items).astype(np.float32),
            slices={
                "segment": (
                    ("loyal", "new"),
                    rng.integers(0, 3, (2, num_items)).astype(np.float32),
                )
            },
        ),
        catalog=pa.Table.from_pylist(catalog, CATALOG_SCHEMA),
        seen=SeenItems(
            indptr_U1=np.cumsum([0, *num_seen_U]),
            item_indices=np.concatenate(seen).astype(np.int32),
        ),
        bought_together=RelatedItems(
            item_indices_IN=np.full((num_items, 1), -1, np.int32),
            scores_IN=np.zeros((num_items, 1), np.float32),
        ),
    )


@pytest.fixture(scope="session")
def crowd():
    return make_crowd()
