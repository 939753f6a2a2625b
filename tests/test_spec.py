"""YAML to dataclasses and back: what is refused, and that nothing is lost on the way."""

import json
from dataclasses import dataclass, replace

import pytest

from perso.data.interactions import PrepareSpec
from perso.errors import InputError
from perso.models.blend_config import BlendConfig
from perso.models.families import FAMILIES, ModelConfig
from perso.models.feature_columns import FeatureColumn
from perso.models.hybrid_config import HybridConfig
from perso.models.sgd_config import SgdConfig
from perso.spec import load_spec, parse_spec, spec_hash, spec_to_dict


def test_a_misspelt_key_is_named(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("half_life_dys: 3\n")
    with pytest.raises(InputError, match="half_life_dys"):
        load_spec(PrepareSpec, file)


def test_a_misspelt_key_of_a_nested_section_is_named():
    with pytest.raises(InputError, match=r"split\.test_share"):
        parse_spec(PrepareSpec, {"split": {"test_share": 0.2}})


def test_a_value_out_of_range_says_what_is_allowed():
    with pytest.raises(InputError, match=r"half_life_days is -1\.0; give a positive number"):
        parse_spec(PrepareSpec, {"half_life_days": -1})


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot read spec"):
        load_spec(PrepareSpec, tmp_path / "nowhere.yaml")


def test_text_that_is_not_yaml_is_refused(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("a: [1,\n")
    with pytest.raises(InputError, match="is not YAML"):
        load_spec(PrepareSpec, file)


def test_a_spec_survives_the_way_through_yaml_values():
    spec = PrepareSpec(source="events", path="here", min_user_items=3)
    assert parse_spec(PrepareSpec, spec_to_dict(spec)) == spec


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_every_default_is_named_by_one_key_and_survives_json(family):
    config = parse_spec(ModelConfig, {"family": family})
    assert config == FAMILIES[family]()
    written = json.loads(json.dumps(spec_to_dict(config)))
    assert written["family"] == family
    assert parse_spec(ModelConfig, written) == config


@pytest.mark.parametrize(
    "config",
    [
        SgdConfig(loss="contrasted", similarity="cosine", history_weight=0.5, patience=2),
        BlendConfig(learned=replace(BlendConfig().learned, num_factors=8), spectral_weight=0.5),
        HybridConfig(
            item_columns=(
                FeatureColumn(column="categories", kind="tags", min_count=1),
                FeatureColumn(column="price", kind="number", num_bins=4),
            ),
            user_columns=(),
            context=("region",),
        ),
    ],
    ids=lambda config: config.family,
)
def test_a_family_with_settings_inside_settings_survives_json(config):
    written = json.loads(json.dumps(spec_to_dict(config)))
    assert parse_spec(ModelConfig, written) == config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_misspelt_setting_of_any_family_is_named(family):
    with pytest.raises(InputError, match=rf"{family}\.num_factor: there is no such key \(got 8\)"):
        parse_spec(ModelConfig, {"family": family, "num_factor": 8})


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "family is missing"),
        ({"num_factors": 8}, "family is missing"),
        ({"family": "sdg"}, "family is 'sdg'; give one of 'popularity', 'item_knn', .*'blend'"),
        ({"family": "sgd", "num_factors": "many"}, r"sgd\.num_factors: .*'many'"),
        ({"family": "sgd", "num_factors": 0}, r"sgd: num_factors is 0; give 1 or more$"),
        ({"family": "blend", "learned": {"epoch": 1}}, r"blend\.learned\.epoch: .*no such key"),
        ({"family": "blend", "spectral": {"num_factors": 0}}, r"blend\.spectral: num_factors is 0"),
        (
            {"family": "hybrid", "item_columns": [{"column": "a", "kind": "tags", "bins": 3}]},
            r"hybrid\.item_columns\.0\.bins: there is no such key",
        ),
        (
            {"family": "hybrid", "item_columns": [{"column": "a", "kind": "tag"}]},
            r"hybrid\.item_columns\.0\.kind: .*'tags'.*got 'tag'",
        ),
        ("sgd", "dictionary"),
    ],
)
def test_a_wrong_model_config_says_where_and_what_is_allowed(document, says):
    with pytest.raises(InputError, match=says):
        parse_spec(ModelConfig, document, origin="model.yaml")


@dataclass(frozen=True, kw_only=True)
class Leaf:
    x: int = 0


@dataclass(frozen=True, kw_only=True)
class Branch:
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    by_name: dict[str, list[Leaf]] | None = None


@pytest.mark.parametrize(
    "document",
    [
        {"leaf": {"y": 1}},
        {"leaves": [{"x": 1}, {"y": 1}]},
        {"by_name": {"a": [{"y": 1}]}},
    ],
)
def test_no_container_hides_a_misspelt_key(document):
    with pytest.raises(InputError, match=r"\.y: there is no such key \(got 1\)"):
        parse_spec(Branch, document)


def test_the_hash_ignores_key_order_and_sees_every_value():
    assert spec_hash({"a": 1, "b": 2}) == spec_hash({"b": 2, "a": 1})
    assert spec_hash({"a": 1}) != spec_hash({"a": 2})
