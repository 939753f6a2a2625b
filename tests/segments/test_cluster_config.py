import subprocess
import sys

import pytest

from perso.dictionary import USER_ACTIVITY, USER_AFFINITIES
from perso.errors import InputError
from perso.segments.cluster_config import DEFAULT_WORDS, ClusterSpec
from perso.spec import parse_spec, spec_to_dict


def test_default_features_are_numbers_of_the_dictionary():
    types = {f.name: f.type for view in (USER_ACTIVITY, USER_AFFINITIES) for f in view.features}
    spec = ClusterSpec()
    assert {str(types[name]) for name in spec.features} <= {"int64", "float", "double"}
    assert set(spec.log_features) < set(spec.features)


def test_every_default_feature_has_a_word_and_no_word_means_two_things():
    assert set(DEFAULT_WORDS) == set(ClusterSpec().features)
    words = [word for pair in DEFAULT_WORDS.values() for word in pair if word is not None]
    assert len(words) == len(set(words))
    assert all(any(pair) for pair in DEFAULT_WORDS.values())


def test_a_spec_survives_the_file_boundary():
    spec = ClusterSpec(num_clusters=(2, 3), names={"c01": "VIPs"}, words={"spend": (None, "rich")})
    assert parse_spec(ClusterSpec, spec_to_dict(spec)) == spec


def test_a_misspelt_key_is_an_error_that_names_it():
    with pytest.raises(InputError, match="num_cluster: there is no such key"):
        parse_spec(ClusterSpec, {"num_cluster": [3, 8]})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"features": ()}, "features and algorithms"),
        ({"algorithms": ()}, "features and algorithms"),
        ({"winsor": (0.9, 0.1)}, "winsor"),
        ({"winsor": (0.0, 1.1)}, "winsor"),
        ({"explained_variance": 0.0}, "explained_variance"),
        ({"explained_variance": 1.1}, "explained_variance"),
        ({"num_clusters": (1, 4)}, "num_clusters"),
        ({"num_clusters": (5, 4)}, "num_clusters"),
        ({"min_cluster_shares": (0.5,)}, "min_cluster_shares"),
        ({"sample_size": 0}, "sample_size"),
        ({"density_sample_size": 0}, "density_sample_size"),
        ({"silhouette_size": 0}, "silhouette_size"),
        ({"bootstraps": 0}, "bootstraps"),
        ({"min_customers": 0}, "min_customers"),
        ({"reselect_every": 0}, "reselect_every"),
        ({"max_words": 0}, "max_words"),
        ({"max_match_distance": 0.0}, "max_match_distance"),
        ({"label_threshold": float("nan")}, "label_threshold"),
        ({"min_stability": 1.5}, "min_stability"),
        ({"clearly_better": -0.1}, "clearly_better"),
        ({"clearly_better": float("nan")}, "clearly_better"),
        ({"min_likeness": 1.1}, "min_likeness"),
        ({"names": {"c01": "VIPs", "c02": "VIPs"}}, r"names has \['VIPs'\]"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong, told):
    with pytest.raises(ValueError, match=told):
        ClusterSpec(**wrong)


def test_neither_the_spec_nor_a_loaded_model_brings_scikit_learn():
    light = ("cluster_config", "scaling", "labels", "matching", "cluster_model", "cluster_fit")
    imports = "; ".join(f"import perso.segments.{name}" for name in light)
    check = "import sys; assert not {'sklearn', 'scipy', 'ray', 'feast'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{imports}; {check}"], check=True)
