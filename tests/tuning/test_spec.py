"""What a search tries, and which searches are refused before anything starts."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import InputError
from perso.models.blend_config import BlendConfig
from perso.models.knn_config import ItemKnnConfig
from perso.models.sgd_config import SgdConfig
from perso.spec import load_spec, parse_spec, spec_to_dict
from perso.tuning.spec import GridSpec, SearchSpec


def test_points_are_every_combination_once_in_the_order_of_the_grid(search):
    found = [
        (p.num_factors, p.learning_rate, p.l2, p.epochs, p.seed) for p in search(seed=3).points()
    ]
    assert found == [(n, 0.1, l2, 8, 3) for n, l2 in itertools.product((4, 8), (0.03, 0.1))]


@settings(deadline=None)
@given(
    num_factors=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    l2=st.lists(st.floats(1e-6, 1), min_size=1, max_size=4, unique=True),
    shrinkage=st.lists(st.floats(0, 9), min_size=1, max_size=4, unique=True),
)
def test_every_grid_has_as_many_points_as_the_product_of_its_values(num_factors, l2, shrinkage):
    spec = SearchSpec(
        grids=(
            GridSpec(grid={"num_factors": tuple(num_factors), "l2": tuple(l2)}),
            GridSpec(family="item_knn", grid={"shrinkage": tuple(shrinkage)}),
        )
    )
    tried = [tuple(found.items()) for found in spec.settings()]
    num_first = len(num_factors) * len(l2)
    assert len(set(tried)) == len(tried) == num_first + len(shrinkage) == len(spec.points())
    assert [found["family"] for found in spec.settings()] == [p.family for p in spec.points()]
    assert [p.family for p in spec.points()][:num_first] == ["sgd"] * num_first
    for found, point in zip(spec.settings(), spec.points(), strict=True):
        assert {name: getattr(point, name) for name in found} == found


def test_families_follow_each_other_and_a_grid_without_values_is_one_trial(search):
    spec = search(
        grids=(
            GridSpec(family="item_knn"),
            GridSpec(family="sgd", fixed={"epochs": 3}, grid={"num_factors": (8, 4)}),
        )
    )
    assert spec.settings() == [
        {"family": "item_knn"},
        {"family": "sgd", "num_factors": 8},
        {"family": "sgd", "num_factors": 4},
    ]
    assert spec.points()[0] == ItemKnnConfig()
    assert spec.points()[2] == SgdConfig(epochs=3, num_factors=4)


def test_a_dotted_key_changes_one_setting_of_a_part_and_leaves_the_rest_of_it():
    grid = GridSpec(
        family="blend",
        fixed={"learned.epochs": 3, "spectral_weight": 0.5},
        grid={"learned.num_factors": (8, 16), "spectral.num_factors": (32,)},
    )
    spec = SearchSpec(grids=(grid,), seed=5)
    assert spec.settings()[1] == {
        "family": "blend",
        "learned.num_factors": 16,
        "spectral.num_factors": 32,
    }
    default = spec_to_dict(BlendConfig())
    for point, num_factors in zip(spec.points(), (8, 16), strict=True):
        expected = default | {
            "spectral_weight": 0.5,
            "learned": default["learned"] | {"epochs": 3, "num_factors": num_factors, "seed": 5},
            "spectral": default["spectral"] | {"num_factors": 32, "seed": 5},
            "als": default["als"] | {"seed": 5},
        }
        assert spec_to_dict(point) == expected


def test_a_part_that_is_given_whole_is_not_changed_by_the_grid_beside_it():
    learned = {"num_factors": 8, "epochs": 2}
    grid = GridSpec(
        family="blend", fixed={"learned": learned}, grid={"learned.num_factors": (4, 16)}
    )
    found = [(p.learned.num_factors, p.learned.epochs) for p in SearchSpec(grids=(grid,)).points()]
    assert found == [(4, 2), (16, 2)]
    assert learned == {"num_factors": 8, "epochs": 2}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grids": ()}, "grids is empty"),
        ({"grid": {"l2": ()}}, r"grid\.l2 is empty"),
        ({"grid": {"l2": (0.1, 0.1)}}, r"grid\.l2 repeats a value"),
        ({"grid": {"num_factor": (8,)}}, "num_factor.*settings of sgd are: .*num_factors"),
        ({"grid": {"num_factors": (-1,)}}, "-1"),
        ({"grid": {"num_factors.x": (1,)}}, "num_factors"),
        ({"fixed": {"epoch": 3}}, "epoch.*settings of sgd are: .*epochs"),
        ({"fixed": {"l2": 0.1}}, r"\['l2'\] stand in both"),
        ({"fixed": {"seed": 1}}, "'seed' is no setting of a grid"),
        ({"fixed": {"family": "als"}}, "'family' is no setting of a grid"),
        ({"family": "blend", "fixed": {}, "grid": {"learned.seed": (1, 2)}}, r"'learned\.seed'"),
        (
            {"family": "blend", "fixed": {}, "grid": {"learned.num_factor": (8,)}},
            r"learned\.num_factor: there is no such key",
        ),
        (
            {"family": "blend", "fixed": {}, "grid": {"learnd.num_factors": (8,)}},
            r"learnd: there is no such key.*settings of blend are: als, .*learned, .*spectral",
        ),
        ({"family": "item_knn"}, "settings of item_knn are: .*num_neighbors"),
        ({"k": ()}, "k is"),
        ({"k": (0, 5)}, "k is"),
        ({"objective": "ndcg@50"}, r"'ndcg@50' is not measured; choose of .*ndcg@10"),
        ({"objective": "accuracy@5"}, "not measured"),
        ({"objective": "rmse"}, "'rmse' needs models that predict a number"),
        (
            {
                "objective": "mae",
                "fixed": {"loss": "squared"},
                "grid": {"target": ("ratings", "weights")},
            },
            "'mae' cannot compare stars with weights",
        ),
        ({"cpus_per_trial": 0}, "0 CPUs"),
        ({"gpus_per_trial": -1.0}, "-1.0 GPUs"),
        ({"max_concurrent": 0}, "max_concurrent is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_starts(search, changes, says):
    with pytest.raises(ValueError, match=says):
        search(**changes)


def test_an_error_is_an_objective_only_where_every_trial_predicts(search):
    rating = GridSpec(fixed={"loss": "squared"})
    assert search(grids=(rating,), objective="rmse").minimizes
    with pytest.raises(ValueError, match="every trial"):
        search(grids=(rating, GridSpec(family="item_knn")), objective="rmse")


def test_the_gate_is_the_objective_or_the_longest_list_where_that_is_an_error(search):
    assert search(objective="recall@5").gate == "recall@5"
    assert not search(objective="recall@5").minimizes
    assert search(fixed={"loss": "squared"}, objective="mae", k=(10, 30, 20)).gate == "ndcg@30"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grids: [{grid: {l2: [0.1]}}]\nobjectiv: ndcg@20\n", "objectiv"),
        ("grids: [{gird: {l2: [0.1]}}]\n", r"grids\.0\.gird"),
        ("grids: [{family: popularity}]\n", r"grids\.0\.family.*'item_knn'"),
    ],
)
def test_a_misspelt_key_in_a_job_file_is_one_named_error(tmp_path, text, says):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_spec(SearchSpec, path)


def test_numbers_that_yaml_reads_as_text_become_numbers(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("grids: [{grid: {l2: [1e-4]}}]\n")  # no dot: YAML 1.1 says string
    assert load_spec(SearchSpec, path).points()[0].l2 == 1e-4


def test_a_spec_survives_its_own_file(search):
    blend = GridSpec(family="blend", grid={"learned.num_factors": (8, 16)})
    original = search(grids=(GridSpec(), blend), min_rating=3.5, max_concurrent=2)
    again = parse_spec(SearchSpec, spec_to_dict(original))
    assert again == original
    assert again.points() == original.points()
