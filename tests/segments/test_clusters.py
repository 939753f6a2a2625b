"""Fit and model together, at the edges: rounding, tiny samples, features that say nothing."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial import cKDTree

from perso.errors import ArtifactError
from perso.segments.cluster_config import ClusterSpec
from perso.segments.cluster_fit import fit_clusters, refit_clusters
from perso.segments.cluster_model import ClusterModel
from perso.segments.scaling import RobustScale

CENTERS_CF = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])


def blobs(num=80, seed=0):
    rng = np.random.default_rng(seed)
    rows_NF = np.repeat(CENTERS_CF, num, axis=0) + rng.normal(0.0, 0.5, (4 * num, 3))
    return pa.table(dict(zip("abc", rows_NF.T, strict=True)))


def spec(*algorithms, **more):
    given = {
        "features": ("a", "b", "c"),
        "log_features": (),
        "bootstraps": 1,
        "num_clusters": (4, 4),
    }
    return ClusterSpec(algorithms=algorithms, **given | more)


def line(arrays, num_clusters=2):
    scale = RobustScale(
        features=("a",), is_log_F=np.array([False]), low_F=np.array([-1e9]),
        high_F=np.array([1e9]), center_F=np.zeros(1), spread_F=np.ones(1),
    )  # fmt: skip
    return ClusterModel(
        algorithm="hdbscan", scale=scale, mean_F=np.zeros(1), components_DF=np.eye(1),
        centroids_CF=np.zeros((num_clusters, 1)), keys=("c01", "c02"), labels=("A", "B"),
        meanings=("", ""), next_key=3, arrays=arrays,
    )  # fmt: skip


def test_a_point_at_the_very_edge_of_the_reach_belongs_on_every_machine():
    arrays = {
        "cores_KD": np.array([[0.0], [10.0]]),
        "codes_K": np.array([0.0, 1.0]),
        "radius_K": np.array([1.0, 0.0]),
    }
    table = pa.table({"a": [1.0 + 4e-15, 10.0 - 4e-15, 1.1, 9.9]})
    assert line(arrays).assign(table).codes_N.tolist() == [0, 1, -1, -1]


def test_members_of_the_fit_are_never_noise_to_their_own_cluster():
    rng = np.random.default_rng(0)
    rows_NF = np.round(rng.normal(size=(400, 9)), 1).repeat(3, axis=0)  # many are the same
    names = [f"f{n}" for n in range(9)]
    table = pa.table(dict(zip(names, rows_NF.T, strict=True)))
    turn_FF = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    points_ND = rows_NF @ turn_FF.T  # as a fit on another machine's BLAS would have them
    reach_K = cKDTree(points_ND).query(points_ND, k=3)[0][:, -1]  # 0: two more lie there
    model = replace(
        line({}, 2),
        scale=RobustScale(
            features=tuple(names), is_log_F=np.zeros(9, np.bool_), low_F=np.full(9, -1e9),
            high_F=np.full(9, 1e9), center_F=np.zeros(9), spread_F=np.ones(9),
        ),
        mean_F=np.zeros(9), components_DF=turn_FF, centroids_CF=np.zeros((2, 9)),
        arrays={"cores_KD": points_ND, "codes_K": np.zeros(len(points_ND)), "radius_K": reach_K},
    )  # fmt: skip
    assert set(model.assign(table).codes_N.tolist()) == {0}


@pytest.mark.parametrize("num_rows", [2, 3, 5, 6, 12])
@pytest.mark.parametrize("algorithm", ["kmeans", "gaussian_mixture", "hdbscan"])
def test_a_handful_of_customers_is_no_crash(algorithm, num_rows):
    table = blobs().take(pa.array(np.linspace(0, 319, num_rows).astype(int)))
    model = fit_clusters(table, spec(algorithm, min_customers=1, num_clusters=(2, 4)), seed=0)
    assert model is None or len(model.assign(table).codes_N) == num_rows


def test_features_that_say_nothing_are_recorded(tmp_path):
    table = blobs().append_column("return_rate", pa.nulls(320, pa.float64()))
    asked = spec("kmeans", features=("a", "b", "c", "return_rate", "not_there"))
    model = fit_clusters(table, asked, seed=0)
    assert model.left_out == ("return_rate", "not_there")
    assert model.describe()["left out"] == "return rate, not there"
    assert refit_clusters(table, asked, previous=model, seed=1).left_out == model.left_out
    model.save(tmp_path / "clusters")
    assert ClusterModel.load(tmp_path / "clusters").left_out == model.left_out
    assert "left out" not in fit_clusters(table, spec("kmeans"), seed=0).describe()


def test_a_changed_letter_of_a_label_is_damage(tmp_path):
    fit_clusters(blobs(), spec("kmeans"), seed=0).save(tmp_path / "clusters")
    file = tmp_path / "clusters" / "manifest.json"
    manifest = json.loads(file.read_text())
    for name in ("labels", "meanings"):
        file.write_text(json.dumps(manifest | {name: ["x", *manifest[name][1:]]}))
        with pytest.raises(ArtifactError, match="perso segments run"):
            ClusterModel.load(tmp_path / "clusters")
