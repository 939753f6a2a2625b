"""Axes of searched settings: the kind that fits the values, and every value in its place."""

import math

import pytest

from perso.tuning.report.setting_axis import SettingAxis


def test_values_that_span_magnitudes_lie_by_magnitude() -> None:
    axis = SettingAxis.of("l2", [0.01, 0.1, 1.0])
    assert axis.is_log
    assert [axis.place(value) for value in (0.01, 0.1, 1.0)] == pytest.approx([0, 0.5, 1])


def test_doubled_numbers_lie_evenly() -> None:
    axis = SettingAxis.of("num_factors", [16, 64, 32, 128])
    places, texts = axis.ticks()
    assert texts == ["16", "32", "64", "128"]
    assert places == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_near_numbers_lie_linearly() -> None:
    axis = SettingAxis.of("dropout", [0.1, 0.2, 0.3])
    assert not axis.is_log
    assert axis.place(0.2) == pytest.approx(0.5)


def test_a_zero_beside_magnitudes_is_a_step_of_its_own() -> None:
    axis = SettingAxis.of("l2", [1.0, 0.0, 0.01])
    assert axis.choices == ("0", "0.01", "1")
    assert axis.is_number
    assert [axis.place(value) for value in (0.0, 0.01, 1.0)] == [0, 0.5, 1]


@pytest.mark.parametrize("values", [["bpr", "softmax"], [True, False], [None, 3], [(1, 2), (3,)]])
def test_what_is_no_number_lies_one_by_one(values) -> None:
    axis = SettingAxis.of("loss", values)
    assert axis.is_stepped
    assert not axis.is_number
    assert sorted(axis.place(value) for value in values) == [0, 1]


def test_a_range_has_round_ticks_inside_its_ends() -> None:
    for bounds, values in (((0.01, 0.3), [0.02, 0.21]), ((0.0, 0.5), [0.11, 0.42])):
        axis = SettingAxis.of("x", values, bounds=bounds)
        places, texts = axis.ticks()
        assert axis.place(bounds[0]) == pytest.approx(0)
        assert axis.place(bounds[1]) == pytest.approx(1)
        assert len(places) >= 3
        assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
        assert all(len(text) <= 4 for text in texts)


def test_a_value_of_no_axis_has_no_place() -> None:
    assert math.isnan(SettingAxis.of("loss", ["bpr", "softmax"]).place("warp"))
