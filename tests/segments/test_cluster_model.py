import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import ArtifactError
from perso.segments.cluster_model import FORMAT_VERSION, ClusterModel
from perso.segments.scaling import RobustScale

NAMES = ("a", "b", "c")
ALGORITHMS = ("kmeans", "gaussian_mixture", "hdbscan")
CENTERS_CD = np.array([[0.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 9.0, 1.0], [4.0, 4.0, 9.0]])


def points_around(centers_CD, num_each=60, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(center, spread, (num_each, len(center))) for center in centers_CD]
    )


def table_of(points_NF):
    return pa.table(dict(zip(NAMES, np.asarray(points_NF, np.float64).T, strict=True)))


def plain_model(algorithm, arrays, num_clusters, **more):
    """A model whose scale and components change nothing: points are what measures are."""
    scale = RobustScale(
        features=NAMES,
        is_log_F=np.zeros(3, np.bool_),
        low_F=np.full(3, -1e9),
        high_F=np.full(3, 1e9),
        center_F=np.zeros(3),
        spread_F=np.ones(3),
    )
    given_parts = {
        "algorithm": algorithm,
        "scale": scale,
        "mean_F": np.zeros(3),
        "components_DF": np.eye(3),
        "centroids_CF": CENTERS_CD[:num_clusters],
        "keys": tuple(f"c{n + 1:02d}" for n in range(num_clusters)),
        "labels": tuple(f"Label {n}" for n in range(num_clusters)),
        "meanings": tuple(f"Meaning {n}" for n in range(num_clusters)),
        "next_key": num_clusters + 1,
        "arrays": arrays,
        "scores": {"silhouette": 0.5, "stability": 1.0, "coverage": 1.0},
        "candidates": ({"algorithm": algorithm, "clusters": num_clusters, "chosen": True},),
    }
    return ClusterModel(**{**given_parts, **more})


def model_of(algorithm):
    """Four clusters; turned and shifted, so that every array matters."""
    points_ND = points_around(CENTERS_CD)
    codes_N = np.repeat(np.arange(4), 60)
    arrays = {
        "kmeans": {"centers_CD": CENTERS_CD},
        "gaussian_mixture": {
            "weights_C": np.array([0.1, 0.2, 0.3, 0.4]),
            "means_CD": CENTERS_CD,
            "precisions_CDD": np.random.default_rng(1).normal(0, 0.2, (4, 3, 3)) + np.eye(3),
        },
        "hdbscan": {
            "cores_KD": points_ND,
            "codes_K": codes_N.astype(np.float64),
            "radius_K": np.full(len(points_ND), 0.8),
        },
    }[algorithm]
    turned_DF, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    return plain_model(
        algorithm, arrays, 4, components_DF=turned_DF, mean_F=np.array([0.3, -0.2, 0.1])
    )


@pytest.fixture(params=ALGORITHMS)
def model(request):
    return model_of(request.param)


def test_kmeans_assigns_as_scikit_learn_does():
    from sklearn.cluster import KMeans

    points_ND = points_around(CENTERS_CD, spread=4.0)
    fitted = KMeans(4, n_init=1, random_state=0).fit(points_ND)
    model = plain_model("kmeans", {"centers_CD": fitted.cluster_centers_}, 4)
    found = model.assign(table_of(points_ND))
    assert found.codes_N.tolist() == fitted.predict(points_ND).tolist()
    assert found.memberships_NC.sum(axis=1).tolist() == [1.0] * len(points_ND)
    assert set(np.unique(found.memberships_NC)) == {0.0, 1.0}


def test_mixtures_give_the_probabilities_of_scikit_learn():
    from sklearn.mixture import GaussianMixture

    points_ND = points_around(CENTERS_CD, spread=3.0)
    fitted = GaussianMixture(4, random_state=0).fit(points_ND)
    arrays = {
        "weights_C": fitted.weights_,
        "means_CD": fitted.means_,
        "precisions_CDD": fitted.precisions_cholesky_,
    }
    found = plain_model("gaussian_mixture", arrays, 4).assign(table_of(points_ND))
    theirs_NC = fitted.predict_proba(points_ND)
    assert ((theirs_NC > 0.1) & (theirs_NC < 0.9)).any()  # some are undecided
    assert found.memberships_NC == pytest.approx(theirs_NC, abs=1e-6)
    assert found.codes_N.tolist() == fitted.predict(points_ND).tolist()
    assert np.allclose(found.memberships_NC.sum(axis=1), 1.0, atol=1e-6)


def test_far_from_every_component_is_still_a_probability():
    model = model_of("gaussian_mixture")
    found = model.assign(table_of([[1e6, -1e6, 1e6]]))
    assert found.memberships_NC.sum() == pytest.approx(1.0)


def test_density_gives_the_cluster_of_the_nearest_point_within_its_reach():
    model = model_of("hdbscan")
    rng = np.random.default_rng(5)
    measures = table_of(rng.uniform(-4, 12, (300, 3)))
    cores_KD, codes_K = model.arrays["cores_KD"], model.arrays["codes_K"]
    expected = []
    for point_D in model.components(measures):
        distances_K = np.sqrt(((cores_KD - point_D) ** 2).sum(axis=1))
        nearest = distances_K.argmin()
        is_near = distances_K[nearest] <= model.arrays["radius_K"][nearest]
        expected.append(int(codes_K[nearest]) if is_near else -1)
    found = model.assign(measures)
    assert found.codes_N.tolist() == expected
    assert {-1, 0, 1, 2, 3} >= set(expected) > {-1}
    is_noise = found.codes_N < 0
    assert not found.memberships_NC[is_noise].any()
    assert (found.memberships_NC[~is_noise].sum(axis=1) == 1).all()


def test_distances_are_from_the_own_centroid_and_for_noise_from_the_nearest():
    model = model_of("hdbscan")
    points_NF = np.random.default_rng(6).uniform(-4, 12, (200, 3))
    found = model.assign(table_of(points_NF))
    for point_F, code, distance in zip(points_NF, found.codes_N, found.distances_N, strict=True):
        from_all = np.sqrt(((model.centroids_CF - point_F) ** 2).sum(axis=1))
        assert distance == pytest.approx(from_all.min() if code < 0 else from_all[code], rel=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_assigning_in_pieces_equals_assigning_the_whole(algorithm, data):
    model = model_of(algorithm)
    size = data.draw(st.integers(1, 90))
    points_NF = np.random.default_rng(size).uniform(-4, 12, (size, 3))
    measures, whole = table_of(points_NF), model.assign(table_of(points_NF))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
    ends = zip([0, *cuts], [*cuts, size], strict=True)
    pieces = [model.assign(measures.slice(start, end - start)) for start, end in ends]
    for name in ("codes_N", "memberships_NC", "distances_N"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        assert np.array_equal(joined, getattr(whole, name)), name


@pytest.mark.parametrize("size", [1, 3, 7])
def test_components_of_a_customer_are_the_same_bits_in_any_company(size):
    rng = np.random.default_rng(0)
    names = [f"m{n}" for n in range(16)]
    components_DF, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    scale = RobustScale(
        features=tuple(names),
        is_log_F=np.zeros(16, np.bool_),
        low_F=np.full(16, -9.0),
        high_F=np.full(16, 9.0),
        center_F=rng.normal(size=16),
        spread_F=rng.uniform(1, 2, 16),
    )
    model = replace(
        model_of("kmeans"), scale=scale, mean_F=rng.normal(size=16), components_DF=components_DF[:9]
    )
    measures = pa.table(dict(zip(names, rng.normal(size=(16, 400)), strict=True)))
    pieces = [model.components(measures.slice(at, size)) for at in range(0, 400, size)]
    whole = model.components(measures)
    assert np.array_equal(np.concatenate(pieces), whole)
    assert whole == pytest.approx((scale.transform(measures) - model.mean_F) @ components_DF[:9].T)


def test_blocks_give_what_one_block_gives(model, monkeypatch):
    measures = table_of(np.random.default_rng(3).uniform(-4, 12, (501, 3)))
    whole = model.assign(measures)
    monkeypatch.setattr("perso.segments.cluster_model._BLOCK", 100)
    blocks = model.assign(measures)
    assert np.array_equal(whole.codes_N, blocks.codes_N)
    assert np.array_equal(whole.memberships_NC, blocks.memberships_NC)


def test_no_customers_have_no_clusters(model):
    found = model.assign(table_of(np.zeros((0, 3))))
    assert found.codes_N.shape == (0,) and found.codes_N.dtype == np.int32
    assert found.memberships_NC.shape == (0, 4) and found.memberships_NC.dtype == np.float32
    assert found.distances_N.shape == (0,) and found.distances_N.dtype == np.float32


def test_another_order_of_clusters_assigns_the_same_customers(model):
    order = np.array([2, 0, 3, 1])
    measures = table_of(np.random.default_rng(4).uniform(-4, 12, (300, 3)))
    before, after = model.assign(measures), model.reordered(order).assign(measures)
    is_in = before.codes_N >= 0
    assert np.array_equal(is_in, after.codes_N >= 0)
    assert np.array_equal(order[after.codes_N[is_in]], before.codes_N[is_in])
    assert np.array_equal(after.memberships_NC, before.memberships_NC[:, order])
    assert np.array_equal(after.distances_N, before.distances_N)


def test_a_picture_has_two_axes_even_of_one_component(model):
    measures = table_of(points_around(CENTERS_CD, num_each=2))
    assert np.array_equal(model.project(measures), model.components(measures)[:, :2])
    line = replace(model, components_DF=model.components_DF[:1])
    projected = line.project(measures)
    assert projected.shape == (8, 2) and not projected[:, 1].any()


def test_a_saved_model_comes_back_with_every_number_and_name(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = ClusterModel.load(tmp_path / "m")
    assert loaded.fit_id == model.fit_id and len(model.fit_id) == 16
    for name in ("algorithm", "features", "keys", "labels", "meanings", "next_key"):
        assert getattr(loaded, name) == getattr(model, name)
    assert dict(loaded.scores) == dict(model.scores)
    assert loaded.candidates == model.candidates
    measures = table_of(np.random.default_rng(8).uniform(-4, 12, (50, 3)))
    one, other = model.assign(measures), loaded.assign(measures)
    assert np.array_equal(one.codes_N, other.codes_N)
    assert np.array_equal(one.memberships_NC, other.memberships_NC)


def test_a_saved_model_is_never_written_over(model, tmp_path):
    model.save(tmp_path / "m")
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "m")


def test_the_fit_is_another_when_any_number_or_key_is(model):
    ids = {model.fit_id, replace(model, keys=("c05", *model.keys[1:])).fit_id}
    changed = {**model._all_arrays()}
    for name in model.arrays:
        nudged = changed[name].copy()
        nudged.flat[0] = np.nextafter(nudged.flat[0], np.inf)
        ids.add(replace(model, arrays={**model.arrays, name: nudged}).fit_id)
    ids.add(replace(model, mean_F=model.mean_F + 1e-9).fit_id)
    assert len(ids) == 3 + len(model.arrays)


def test_a_flipped_byte_anywhere_is_an_error(tmp_path):
    model_of("kmeans").save(tmp_path / "m")
    file = tmp_path / "m" / "arrays.npz"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="checksum"):
            ClusterModel.load(tmp_path / "m")
    file.write_bytes(whole)
    ClusterModel.load(tmp_path / "m")


@pytest.mark.parametrize("size", [0, 10, 200])
def test_a_truncated_file_is_an_error_that_says_the_cure(model, tmp_path, size):
    for name in ("manifest.json", "arrays.npz"):
        folder = tmp_path / name
        model.save(folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:size])
        with pytest.raises(ArtifactError, match="perso segments run"):
            ClusterModel.load(folder)


def edit_manifest(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, value in changes.items():
        if value is None:
            del manifest[name]
        else:
            manifest[name] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": FORMAT_VERSION + 1}, f"format version {FORMAT_VERSION + 1}"),
        ({"format_version": None}, "cannot be read"),
        ({"labels": None}, "cannot be read"),
        ({"labels": ["Only one"]}, "cannot be read"),
        ({"next_key": "many"}, "cannot be read"),
        ({"algorithm": "spectral"}, "cannot be read"),
        ({"algorithm": "gaussian_mixture"}, "cannot be read"),
        ({"fit_id": "0" * 16}, "damaged"),
        ({"keys": ["c01", "c02", "c03", "c09"]}, "damaged"),
        ({"features": ["a", "b", "z"]}, "damaged"),
    ],
)
def test_a_foreign_manifest_is_an_error(tmp_path, changes, says):
    model_of("kmeans").save(tmp_path / "m")
    edit_manifest(tmp_path / "m", **changes)
    with pytest.raises(ArtifactError, match=says):
        ClusterModel.load(tmp_path / "m")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "3"])
def test_a_manifest_that_is_no_mapping_is_an_error(tmp_path, text):
    model_of("kmeans").save(tmp_path / "m")
    (tmp_path / "m" / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError):
        ClusterModel.load(tmp_path / "m")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="nowhere"):
        ClusterModel.load(tmp_path / "nowhere")


def forge_digest(folder):
    content = (folder / "arrays.npz").read_bytes()
    edit_manifest(folder, arrays_digest=hashlib.blake2b(content, digest_size=16).hexdigest())


class _Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (_spring, ())


def _spring():
    raise AssertionError("a pickle was run")


def test_a_pickle_in_the_artifact_is_never_run(model, tmp_path):
    model.save(tmp_path / "m")
    file = tmp_path / "m" / "arrays.npz"
    with zipfile.ZipFile(file) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    trap = io.BytesIO()
    np.lib.format.write_array(trap, np.array([_Trap()], object), allow_pickle=True)
    for content in (trap.getvalue(), pickle.dumps(_Trap())):
        with zipfile.ZipFile(file, "w") as stored:
            for name, member in {**members, "mean_F.npy": content}.items():
                stored.writestr(name, member)
        forge_digest(tmp_path / "m")
        with pytest.raises(ArtifactError, match="pickle"):
            ClusterModel.load(tmp_path / "m")
    file.write_bytes(pickle.dumps(_Trap()))
    forge_digest(tmp_path / "m")
    with pytest.raises(ArtifactError, match="pickle"):
        ClusterModel.load(tmp_path / "m")


def test_a_description_says_what_sets_each_cluster_apart(model):
    told = model.describe()
    assert told["number of clusters"] == 4 and told["stability"] == 1.0
    assert list(told["clusters"]) == list(model.keys)
    assert told["clusters"]["c02"].startswith("a 8 (+8.0), b 0 (+0.0)")
    assert json.loads(json.dumps(told)) == told
