import pytest

from perso.data.interactions import PrepareSpec
from perso.errors import InputError
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


def test_the_hash_ignores_key_order_and_sees_every_value():
    assert spec_hash({"a": 1, "b": 2}) == spec_hash({"b": 2, "a": 1})
    assert spec_hash({"a": 1}) != spec_hash({"a": 2})
