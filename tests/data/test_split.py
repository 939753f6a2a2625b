from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.split import SplitSpec, split_by_time
from perso.errors import InputError


def test_cuts_leave_the_asked_shares():
    ends = split_by_time(
        dict.fromkeys(range(100), 10), SplitSpec(validation_fraction=0.1, test_fraction=0.2)
    )
    assert ends.train == datetime.fromtimestamp(70 * 3600, UTC)
    assert ends.validation == datetime.fromtimestamp(80 * 3600, UTC)
    assert ends.test == datetime.fromtimestamp(100 * 3600, UTC)


@given(
    st.dictionaries(st.integers(0, 10_000), st.integers(1, 1000), min_size=3, max_size=60),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
)
def test_every_period_has_events_or_the_split_is_refused(by_hour, validation, test):
    spec = SplitSpec(validation_fraction=validation, test_fraction=test)
    try:
        ends = split_by_time(by_hour, spec)
    except InputError:
        return
    hours = [datetime.fromtimestamp(hour * 3600, UTC) for hour in by_hour]
    assert any(hour < ends.train for hour in hours)
    assert any(ends.train <= hour < ends.validation for hour in hours)
    assert any(ends.validation <= hour < ends.test for hour in hours)
    assert all(hour < ends.test for hour in hours)


def test_events_in_two_hours_cannot_be_split():
    with pytest.raises(InputError, match="2 distinct hours"):
        split_by_time({1: 5, 2: 5}, SplitSpec())


@pytest.mark.parametrize("fraction", [0.0, 0.5, -1.0])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match="test_fraction"):
        SplitSpec(test_fraction=fraction)
