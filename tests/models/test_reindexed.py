"""A champion over the rows of a newer dataset."""

import numpy as np
import pyarrow as pa
import pytest

from perso.data.vocabulary import Vocabulary
from perso.models.item_knn import fit_item_knn
from perso.models.popularity import fit_popularity
from perso.models.protocol import UserBatch
from perso.models.reindexed import ReindexedModel, own_rows

USERS = [f"u{n}" for n in range(41)]
ITEMS = [f"i{n}" for n in range(24)]


@pytest.fixture(scope="module")
def reindexed(two_tastes):
    """Makes the two tastes' item k-NN answer over other vocabularies."""
    model, popularity = fit_item_knn(two_tastes), fit_popularity(two_tastes)

    def reindexed(*, users=USERS, items=ITEMS):
        own = {"users": Vocabulary(pa.array(USERS)), "items": Vocabulary(pa.array(ITEMS))}
        return ReindexedModel(
            model=model,
            popularity=popularity,
            own_user_U=own_rows(Vocabulary(pa.array(users)), own["users"]),
            own_item_I=own_rows(Vocabulary(pa.array(items)), own["items"]),
        )

    return reindexed


def batch(*users):
    return UserBatch(user_indices=np.array(users, np.int64))


def test_over_its_own_vocabularies_a_model_answers_as_it_does(reindexed):
    served = reindexed()
    everyone = batch(*range(40))
    np.testing.assert_array_equal(served.score(everyone), served.model.score(everyone))


def test_users_and_items_are_found_by_their_ids(reindexed):
    served = reindexed(users=USERS[::-1], items=[*ITEMS[5:], *ITEMS[:5]])
    (scores_I,) = served.score(batch(40 - 7))  # u7
    (own_I,) = served.model.score(batch(7))
    np.testing.assert_array_equal(scores_I, np.concatenate([own_I[5:], own_I[:5]]))


@pytest.mark.parametrize("stranger", [-1, 0, 2])
def test_whoever_it_does_not_know_gets_what_it_serves_to_strangers(reindexed, stranger):
    served = reindexed(users=["new", "u3", "u40"])  # u40 is registered and did nothing
    (scores_I,) = served.score(batch(stranger))
    np.testing.assert_array_equal(scores_I, served.popularity.global_scores_I)


def test_what_it_does_not_know_cannot_be_in_a_list(reindexed):
    served = reindexed(items=["new", *ITEMS[:3], "newer"])
    assert served.num_items == 5
    scores_BI = served.score(batch(3, -1))
    assert np.isneginf(scores_BI[:, [0, 4]]).all()
    assert np.isfinite(scores_BI[:, 1:4]).all()
