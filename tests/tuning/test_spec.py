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
from perso.tuning.gate import GateSpec
from perso.tuning.grid import GridSpec
from perso.tuning.objective import Bound, Term
from perso.tuning.points import planned_points
from perso.tuning.scheduling import AshaSpec, PbtSpec
from perso.tuning.space import Distribution
from perso.tuning.spec import BudgetSpec, SearchSpec


def configs_of(spec):
    return [point.config(spec) for point in planned_points(spec)]


def settings_of(spec):
    return [point.settings(spec) for point in planned_points(spec)]


def test_points_are_every_combination_once_in_the_order_of_the_grid(search):
    configs = configs_of(search(seeds=(3,)))
    found = [(c.num_factors, c.learning_rate, c.l2, c.epochs, c.seed) for c in configs]
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
    tried, configs = settings_of(spec), configs_of(spec)
    num_first = len(num_factors) * len(l2)
    assert len({tuple(found.items()) for found in tried}) == num_first + len(shrinkage)
    assert len(tried) == spec.num_trials == num_first + len(shrinkage)
    assert [config.family for config in configs][:num_first] == ["sgd"] * num_first
    for found, config in zip(tried, configs, strict=True):
        assert {name: getattr(config, name) for name in found} == found


def test_families_follow_each_other_and_a_grid_without_values_is_one_trial(search):
    spec = search(
        grids=(
            GridSpec(family="item_knn"),
            GridSpec(family="sgd", fixed={"epochs": 3}, grid={"num_factors": (8, 4)}),
        )
    )
    assert settings_of(spec) == [
        {"family": "item_knn"},
        {"family": "sgd", "num_factors": 8},
        {"family": "sgd", "num_factors": 4},
    ]
    assert configs_of(spec)[0] == ItemKnnConfig()
    assert configs_of(spec)[2] == SgdConfig(epochs=3, num_factors=4)


def test_a_dotted_key_changes_one_setting_of_a_part_and_leaves_the_rest_of_it():
    grid = GridSpec(
        family="blend",
        fixed={"learned.epochs": 3, "spectral_weight": 0.5},
        grid={"learned.num_factors": (8, 16), "spectral.num_factors": (32,)},
    )
    spec = SearchSpec(grids=(grid,), seeds=(5,))
    assert settings_of(spec)[1] == {
        "family": "blend",
        "learned.num_factors": 16,
        "spectral.num_factors": 32,
    }
    default = spec_to_dict(BlendConfig())
    for config, num_factors in zip(configs_of(spec), (8, 16), strict=True):
        expected = default | {
            "spectral_weight": 0.5,
            "learned": default["learned"] | {"epochs": 3, "num_factors": num_factors, "seed": 5},
            "spectral": default["spectral"] | {"num_factors": 32, "seed": 5},
            "als": default["als"] | {"seed": 5},
        }
        assert spec_to_dict(config) == expected


def test_a_part_that_is_given_whole_is_not_changed_by_the_grid_beside_it():
    learned = {"num_factors": 8, "epochs": 2}
    grid = GridSpec(
        family="blend", fixed={"learned": learned}, grid={"learned.num_factors": (4, 16)}
    )
    configs = configs_of(SearchSpec(grids=(grid,)))
    found = [(config.learned.num_factors, config.learned.epochs) for config in configs]
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
        ({"fixed": {"l2": 0.1}}, r"\['l2'\] stand in several"),
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
        ({"name": "spring/sale"}, "'spring/sale', but it names a folder too"),
        ({"name": ".."}, "it names a folder too"),
        ({"name": ""}, "it names a folder too"),
        ({"k": (5, 5)}, r"k is \[5, 5\]"),
        ({"seeds": ()}, r"seeds is \[\]"),
        ({"seeds": (1, 1)}, r"seeds is \[1, 1\]; give different"),
        ({"objective": ()}, "objective is empty"),
        ({"objective": Term(metric="ndcg@7")}, "objective 'ndcg@7' is not measured"),
        (
            {"objective": (Term(metric="ndcg@5"), Term(metric="gini@5"))},
            "gini@5 is better when low",
        ),
        ({"objective": (Term(metric="rmse"),)}, "'rmse' needs models that predict a number"),
        ({"min_segment_users": 0}, "min_segment_users is 0"),
        ({"constraints": {"coverage@7": Bound(at_least=0.1)}}, "constraint 'coverage@7' is not"),
        ({"gate": GateSpec(floors={"coverage@7": 0.1})}, "floor of the gate 'coverage@7' is not"),
        ({"gate": GateSpec(metric="ndcg@7")}, "metric of the gate 'ndcg@7' is not measured"),
        ({"gate": GateSpec(metric="coverage@5")}, "the gate compares users"),
        ({"cpus_per_trial": 0}, "0 CPUs"),
        ({"gpus_per_trial": 1.5}, "gpus_per_trial is 1.5"),
        ({"workers_per_trial": 0}, "workers_per_trial is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"checkpoint_every_s": -0.5}, "checkpoint_every_s -0.5"),
        (
            {"workers_per_trial": 2, "family": "item_knn", "fixed": {}, "grid": {}},
            r"\['item_knn'\] train in one process; only als, sgd, hybrid",
        ),
        (
            {"workers_per_trial": 2, "gpus_per_trial": 0.5},
            "gpus_per_trial is 0.5, but workers that train one model take whole devices",
        ),
        ({"workers_per_trial": 2, "scheduler": "asha"}, "scheduler asha looks into one process"),
        ({"gpus_per_trial": -1.0}, "-1.0 GPUs"),
        ({"max_concurrent": 0}, "max_concurrent is 0"),
        ({"seeds": (-1,)}, r"seeds is \[-1\]"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_starts(search, changes, says):
    with pytest.raises(ValueError, match=says):
        search(**changes)


RATE = {"learning_rate": Distribution(loguniform=(0.01, 0.3))}
DRAWN = {
    "grids": (GridSpec(sample=RATE),),
    "searcher": "random",
    "budget": BudgetSpec(trials=8),
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"searcher": "grid"},
            r"searcher grid .* draws nothing, but sample has \['learning_rate'\]",
        ),
        ({"budget": BudgetSpec()}, "searcher random draws without end; give budget.trials"),
        ({"searcher": "tpe", "budget": BudgetSpec()}, "searcher tpe draws without end"),
        ({"scheduler": "asha", "seeds": (0, 1)}, "asha stops seeds of one point apart"),
        ({"scheduler": "pbt", "seeds": (0, 1)}, "pbt needs searcher random, one seed"),
        ({"scheduler": "pbt", "searcher": "tpe"}, "pbt needs searcher random"),
        ({"scheduler": "pbt", "budget": BudgetSpec(trials=3)}, r"budget\.trials of 4 or more"),
        ({"scheduler": "pbt", "grids": (GridSpec(sample=RATE),) * 2}, "give it one grid"),
        ({"scheduler": "pbt", "grids": (GridSpec(family="item_knn"),)}, "one grid of one of als"),
        (
            {
                "scheduler": "pbt",
                "grids": (GridSpec(grid={"num_factors": (8, 16)}, sample=RATE),),
            },
            r"\['num_factors'\] cannot change during training; pbt varies .*learning_rate",
        ),
        (
            {"scheduler": "pbt", "grids": (GridSpec(grid={"l2": (0.1, 0.2)}),)},
            "pbt has nothing to vary",
        ),
    ],
)
def test_searchers_and_schedulers_that_do_not_fit_are_refused(changes, says):
    SearchSpec(**DRAWN)
    SearchSpec(**DRAWN, scheduler="pbt")
    with pytest.raises(ValueError, match=says):
        SearchSpec(**DRAWN | changes)


def test_a_grid_that_is_larger_than_the_budget_is_refused(search):
    assert search(budget=BudgetSpec(trials=4), seeds=(0, 1)).num_trials == 8
    with pytest.raises(ValueError, match=r"4 combinations, but budget\.trials is 3"):
        search(budget=BudgetSpec(trials=3))


@pytest.mark.parametrize(
    ("part", "wrong", "says"),
    [
        (BudgetSpec, {"trials": 0}, r"budget\.trials is 0"),
        (BudgetSpec, {"minutes": 0.0}, r"budget\.minutes is 0\.0"),
        (AshaSpec, {"first_epoch": 0}, "first_epoch is 0"),
        (AshaSpec, {"reduction": 1.0}, r"reduction is 1\.0"),
        (PbtSpec, {"every_epochs": 0}, "every_epochs is 0"),
        (PbtSpec, {"quantile": 0.6}, r"quantile is 0\.6"),
        (PbtSpec, {"quantile": 0.0}, r"quantile is 0\.0"),
        (PbtSpec, {"resample": 1.5}, r"resample is 1\.5"),
        (GridSpec, {"grid": {"l2": (0.1,)}, "sample": {"l2": RATE["learning_rate"]}}, "several"),
        (GridSpec, {"sample": {"learned.seed": RATE["learning_rate"]}}, r"'learned\.seed'"),
    ],
)
def test_a_wrong_part_is_refused(part, wrong, says):
    with pytest.raises(ValueError, match=says):
        part(**wrong)


def test_what_draws_is_counted_by_its_budget_and_a_grid_by_its_combinations(search):
    assert SearchSpec(**DRAWN, seeds=(0, 1)).num_trials == 16
    assert search().num_trials == 4


EVERYTHING = """
name: spring
searcher: tpe
grids:
- family: sgd
  fixed: {epochs: 20, batch_size: 4096}
  grid: {loss: [softmax, bpr]}
  sample: {learning_rate: {loguniform: [0.01, 0.3]}, num_factors: {quantized: [16, 128, 16]}}
- {family: item_knn, grid: {num_neighbors: [50, 100]}}
objective: [{metric: ndcg@20, weight: 0.8}, {metric: ndcg@20, weight: 0.2, over: worst_segment}]
constraints: {coverage@20: {at_least: 0.2}}
budget: {trials: 30, minutes: 60}
scheduler: asha
asha: {first_epoch: 2, reduction: 3}
gate: {min_gain: 0.02, floors: {coverage@20: 0.1}}
"""


def test_a_search_with_everything_is_fifteen_lines(tmp_path):
    assert EVERYTHING.strip().count("\n") < 15
    path = tmp_path / "search.yaml"
    path.write_text(EVERYTHING)
    spec = load_spec(SearchSpec, path)
    assert spec.goal.name == "0.8 ndcg@20 + 0.2 worst segment's ndcg@20"
    assert (spec.goal.mode, spec.gate_metric, spec.num_trials) == ("max", "ndcg@20", 30)
    assert spec.grids[0].sample["num_factors"].steps == tuple(range(16, 129, 16))
    assert spec.constraints == {"coverage@20": Bound(at_least=0.2)}
    assert spec.rungs("sgd", 20) == [2, 6, 18]
    assert spec.rungs("item_knn", 0) == []
    assert {config.family for config in spec.extremes()} == {"sgd", "item_knn"}
    assert parse_spec(SearchSpec, spec_to_dict(spec)) == spec


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("ndcg@20", "ndcg@20"),
        ("{metric: ndcg@20, over: worst_segment}", Term(metric="ndcg@20", over="worst_segment")),
        ("[{metric: mrr@10}]", (Term(metric="mrr@10"),)),
    ],
)
def test_an_objective_is_written_in_three_ways(tmp_path, text, objective):
    path = tmp_path / "search.yaml"
    path.write_text(f"objective: {text}\n")
    assert load_spec(SearchSpec, path).objective == objective


def test_the_mode_may_be_said(search):
    assert search(objective="novelty@5").goal.mode == "max"
    assert search(objective="novelty@5", mode="min").goal.mode == "min"
    assert search(objective="popularity_lift@5").goal.mode == "min"


def test_the_gate_takes_its_own_metric_or_the_heaviest_ranking_term(search):
    assert search(gate=GateSpec(metric="mrr@10")).gate_metric == "mrr@10"
    terms = (
        Term(metric="ndcg@5", weight=0.3),
        Term(metric="recall@10", weight=0.5, over="worst_segment"),
        Term(metric="coverage@5", weight=0.9),
    )
    assert search(objective=terms).gate_metric == "recall@10"


def test_an_error_is_an_objective_only_where_every_trial_predicts(search):
    rating = GridSpec(fixed={"loss": "squared"})
    assert search(grids=(rating,), objective="rmse").goal.mode == "min"
    with pytest.raises(ValueError, match="every trial"):
        search(grids=(rating, GridSpec(family="item_knn")), objective="rmse")


def test_the_gate_is_the_objective_or_the_longest_list_where_that_is_an_error(search):
    assert search(objective="recall@5").gate_metric == "recall@5"
    assert search(objective="recall@5").goal.mode == "max"
    squared = search(fixed={"loss": "squared"}, objective="mae", k=(10, 30, 20))
    assert squared.gate_metric == "ndcg@30"


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
    assert configs_of(load_spec(SearchSpec, path))[0].l2 == 1e-4


def test_a_spec_survives_its_own_file(search):
    blend = GridSpec(family="blend", grid={"learned.num_factors": (8, 16)})
    original = search(grids=(GridSpec(), blend), min_rating=3.5, max_concurrent=2)
    again = parse_spec(SearchSpec, spec_to_dict(original))
    assert again == original
    assert planned_points(again) == planned_points(original)
