from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from perso.segments.cluster_config import ClusterSpec
from perso.segments.cluster_fit import _Fitted, _Setting, _stands, fit_clusters, refit_clusters

NAMES = ("a", "b", "c")
CORNERS = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
SIX = np.concatenate([CORNERS, [[9.0, 9.0, 9.0], [18.0, 0.0, 9.0]]])
ALGORITHMS = ("kmeans", "gaussian_mixture", "hdbscan")
BASE = ClusterSpec(
    features=NAMES,
    log_features=(),
    winsor=(0.0, 1.0),
    explained_variance=0.99,
    num_clusters=(3, 6),
    min_cluster_shares=(0.1,),
    silhouette_size=300,
    bootstraps=2,
    min_customers=50,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads cost more than they give for a few hundred customers."""
    with threadpool_limits(1):
        yield


def blobs(centers, *, sizes=100, spread=0.5, seed=0):
    """Customers around centers, and the number of each one's center."""
    sizes = [sizes] * len(centers) if isinstance(sizes, int) else sizes
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(center, spread, (size, 3)) for center, size in zip(centers, sizes, strict=True)
    ]
    return table_of(np.concatenate(parts)), np.repeat(np.arange(len(centers)), sizes)


def table_of(points_NF):
    return pa.table(dict(zip(NAMES, points_NF.T, strict=True)))


def only(algorithm, **more):
    return replace(BASE, algorithms=(algorithm,), **more)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("centers", [CORNERS, SIX[:5]])
def test_each_algorithm_finds_the_blobs_and_how_many_there_are(algorithm, centers):
    sample, truth_N = blobs(centers)
    model = fit_clusters(sample, only(algorithm), seed=1)
    codes_N = model.assign(sample).codes_N
    assert model.algorithm == algorithm
    assert len(model.keys) == len(centers)
    is_in = codes_N >= 0
    assert is_in.mean() > 0.9
    assert adjusted_rand_score(truth_N[is_in], codes_N[is_in]) == 1.0
    assert model.scores["silhouette"] > 0.7 and model.scores["stability"] > 0.85


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_new_customers_go_to_the_blob_that_they_come_from(algorithm):
    sample, truth_N = blobs(CORNERS)
    later, later_truth_N = blobs(CORNERS, seed=9)
    model = fit_clusters(sample, only(algorithm), seed=1)
    code_of = [np.bincount(model.assign(sample).codes_N[truth_N == n] + 1).argmax() - 1
               for n in range(4)]  # fmt: skip
    codes_N = model.assign(later).codes_N
    is_in = codes_N >= 0
    assert is_in.mean() > 0.85
    assert np.array_equal(codes_N[is_in], np.array(code_of)[later_truth_N[is_in]])


def test_density_leaves_those_who_are_like_nobody_alone():
    rng = np.random.default_rng(3)
    crowd, _ = blobs(CORNERS)
    loners = rng.uniform(-60, 60, (20, 3))
    loners = loners[np.abs(loners).max(axis=1) > 25]
    sample = pa.concat_tables([crowd, table_of(loners)])
    model = fit_clusters(sample, only("hdbscan"), seed=1)
    found = model.assign(sample)
    assert len(model.keys) == 4
    assert (found.codes_N[len(crowd) :] == -1).all()
    assert (found.codes_N[: len(crowd)] >= 0).mean() > 0.9
    assert not found.memberships_NC[len(crowd) :].any()
    assert model.scores["coverage"] < 1.0


def test_the_largest_cluster_comes_first_with_the_mean_of_its_customers():
    sample, truth_N = blobs(CORNERS, sizes=[60, 200, 90, 120])
    model = fit_clusters(sample, only("kmeans"), seed=1)
    codes_N = model.assign(sample).codes_N
    assert np.bincount(codes_N).tolist() == [200, 120, 90, 60]
    assert model.keys == ("c01", "c02", "c03", "c04") and model.next_key == 5
    means_CF = model.scale.restore(model.centroids_CF)
    points_NF = np.stack([sample[name].to_numpy() for name in NAMES], axis=1)
    assert means_CF[0] == pytest.approx(points_NF[truth_N == 1].mean(axis=0))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("sample_size", [20_000, 250])
def test_shuffled_customers_give_the_same_fit(algorithm, sample_size):
    spec = only(algorithm, sample_size=sample_size, density_sample_size=200)
    sample, _ = blobs(CORNERS, spread=1.5)  # they touch, so that rounding could show
    shuffled = sample.take(np.random.default_rng(5).permutation(len(sample)))
    one, other = fit_clusters(sample, spec, seed=1), fit_clusters(shuffled, spec, seed=1)
    assert one.fit_id == other.fit_id
    assert one.labels == other.labels and one.candidates == other.candidates


def test_a_fit_changes_no_input_and_follows_its_seed():
    sample, _ = blobs(CORNERS, spread=3.0)
    before = sample.to_pydict()
    ids = [fit_clusters(sample, only("kmeans"), seed=seed).fit_id for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    assert sample.to_pydict() == before


def test_too_few_customers_have_no_clusters():
    sample, _ = blobs(CORNERS, sizes=10)
    assert fit_clusters(sample, replace(BASE, min_customers=41), seed=1) is None
    model = fit_clusters(sample, only("kmeans", min_customers=40), seed=1)
    assert model is not None
    stricter = only("kmeans", min_customers=41)
    assert refit_clusters(sample, stricter, previous=model, seed=1) is None
    assert fit_clusters(sample.slice(0, 0), BASE, seed=1) is None


def test_fewer_groups_than_asked_for_are_none():
    sample, _ = blobs(CORNERS[:2])
    assert fit_clusters(sample, only("hdbscan"), seed=1) is None  # it finds two


def test_a_text_feature_is_an_error():
    sample, _ = blobs(CORNERS)
    sample = sample.set_column(1, "b", pa.array(["x"] * len(sample)))
    with pytest.raises(ValueError, match="'b' is string, no number"):
        fit_clusters(sample, only("kmeans"), seed=1)


def test_features_that_say_nothing_are_left_out_and_the_rest_decides():
    sample, truth_N = blobs(CORNERS)
    sample = sample.append_column("same", pa.array([7.0] * len(sample)))
    sample = sample.append_column("unknown", pa.nulls(len(sample), pa.float64()))
    spec = only("kmeans", features=(*NAMES, "same", "unknown", "absent"))
    model = fit_clusters(sample, spec, seed=1)
    assert model.features == NAMES
    assert adjusted_rand_score(truth_N, model.assign(sample).codes_N) == 1.0


def test_every_candidate_is_told_and_the_best_of_the_stable_is_chosen():
    sample, _ = blobs(CORNERS)
    model = fit_clusters(sample, BASE, seed=1)
    tried = [(told["algorithm"], told["clusters"]) for told in model.candidates]
    # Of mixtures only the one that BIC prefers is measured.
    assert tried == [*(("kmeans", k) for k in range(3, 7)), ("gaussian_mixture", 4), ("hdbscan", 4)]
    (chosen,) = [told for told in model.candidates if told["chosen"]]
    stable = [told for told in model.candidates if told["stability"] >= BASE.min_stability]
    assert chosen["silhouette"] == max(told["silhouette"] for told in stable)
    assert (chosen["algorithm"], chosen["clusters"]) == (model.algorithm, len(model.keys))
    assert "bic" in model.candidates[4] and "bic" not in model.candidates[0]


def test_where_nothing_is_stable_the_most_stable_is_chosen():
    shapeless = table_of(np.random.default_rng(2).uniform(0, 1, (400, 3)))
    model = fit_clusters(shapeless, only("kmeans", min_stability=1.0), seed=1)
    (chosen,) = [told for told in model.candidates if told["chosen"]]
    stabilities = [told["stability"] for told in model.candidates]
    assert max(stabilities) < 1.0
    assert chosen["stability"] == max(stabilities)


def test_a_shapeless_crowd_is_less_stable_than_blobs():
    shapeless = table_of(np.random.default_rng(2).uniform(0, 1, (400, 3)))
    crowd = fit_clusters(shapeless, only("kmeans"), seed=1)
    groups = fit_clusters(blobs(CORNERS)[0], only("kmeans"), seed=1)
    assert crowd.scores["stability"] < groups.scores["stability"] - 0.05
    assert crowd.scores["silhouette"] < groups.scores["silhouette"] - 0.2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refit_follows_blobs_that_moved_a_little(algorithm):
    sample, truth_N = blobs(CORNERS, sizes=[140, 120, 100, 80])
    moved, _ = blobs(CORNERS + 0.2, sizes=[140, 120, 100, 80], seed=8)
    model = fit_clusters(sample, only(algorithm), seed=1)
    again = refit_clusters(moved, only(algorithm), previous=model, seed=2)
    assert len(again.keys) == 4 and again.candidates == model.candidates
    for one, other in ((model, again), (again, again)):
        codes_N, before_N = other.assign(moved).codes_N, one.assign(sample).codes_N
        both = (codes_N >= 0) & (before_N >= 0)
        assert adjusted_rand_score(truth_N[both], codes_N[both]) == 1.0
        assert both.mean() > 0.7


def test_a_refit_keeps_the_scale_and_the_components_of_the_selection():
    sample, _ = blobs(CORNERS)
    moved, _ = blobs(CORNERS * 1.1, seed=8)
    model = fit_clusters(sample, only("kmeans"), seed=1)
    again = refit_clusters(moved, only("kmeans"), previous=model, seed=1)
    assert again.scale is model.scale and again.components_DF is model.components_DF
    assert again.fit_id != model.fit_id


def test_density_clusters_are_kept_as_they_are_and_measured_anew():
    sample, _ = blobs(CORNERS)
    model = fit_clusters(sample, only("hdbscan"), seed=1)
    wider = refit_clusters(
        blobs(CORNERS, spread=0.9, seed=8)[0], only("hdbscan"), previous=model, seed=1
    )
    assert wider.fit_id == model.fit_id
    assert wider.scores["coverage"] < model.scores["coverage"]


def test_clusters_in_use_stand_where_a_new_selection_is_about_as_good():
    model = fit_clusters(blobs(CORNERS)[0], only("kmeans"), seed=1)
    later = blobs(CORNERS, seed=8)[0]
    standing = fit_clusters(later, BASE, seed=2, previous=model)
    assert standing.candidates == model.candidates  # those of its selection
    assert standing.fit_id == refit_clusters(later, BASE, previous=model, seed=2).fit_id


@pytest.mark.parametrize("algorithm", ["kmeans", "gaussian_mixture"])
def test_a_clearly_better_selection_replaces_the_clusters_in_use(algorithm):
    spec = only(algorithm, clearly_better=0.05)
    model = fit_clusters(blobs(CORNERS)[0], spec, seed=1)
    grown, truth_N = blobs(SIX, seed=8)
    fresh = fit_clusters(grown, spec, seed=2, previous=model)
    assert len(fresh.keys) == 6
    assert adjusted_rand_score(truth_N, fresh.assign(grown).codes_N) == 1.0
    patient = replace(spec, clearly_better=0.9, min_stability=-1.0)
    patient = fit_clusters(grown, patient, seed=2, previous=model)
    assert len(patient.keys) == 4


def test_clusters_that_are_no_longer_stable_do_not_stand():
    model = fit_clusters(blobs(CORNERS)[0], only("kmeans"), seed=1)
    spec = only("kmeans", clearly_better=0.99, min_stability=1.0)
    shapeless = table_of(np.random.default_rng(2).uniform(0, 9, (400, 3)))
    fresh = fit_clusters(shapeless, spec, seed=2, previous=model)
    assert fresh.candidates != model.candidates


@pytest.mark.parametrize(
    ("standing", "chosen", "stands"),
    [(0.40, 0.45, True), (0.40, 0.50, False), (-0.20, -0.21, True), (-0.20, -0.10, False)],
)
def test_clearly_better_means_the_same_below_0(standing, chosen, stands):
    model = fit_clusters(blobs(CORNERS)[0], only("hdbscan"), seed=1)
    model = replace(model, scores={"silhouette": standing, "stability": 1.0})
    fitted = _Fitted(
        setting=_Setting(algorithm="kmeans", size=4),
        arrays={},
        num_clusters=4,
        figures={"silhouette": chosen, "stability": 1.0},
    )
    assert _stands(model, fitted, replace(BASE, clearly_better=0.15)) is stands


def test_one_component_is_enough_for_measures_that_say_the_same():
    rng = np.random.default_rng(0)
    line_N = np.concatenate([rng.normal(center, 0.3, 80) for center in (0, 10, 20)])
    sample = table_of(np.stack([line_N, line_N * 2, -line_N], axis=1))
    model = fit_clusters(sample, only("kmeans", explained_variance=1.0), seed=1)
    assert model.components_DF.shape == (1, 3)
    assert np.bincount(model.assign(sample).codes_N).tolist() == [80, 80, 80]
