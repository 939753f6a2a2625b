"""The Pareto front against its definition, row by row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perso.tuning.report.pareto import pareto_front


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(0, 12), st.integers(1, 3)),
        elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan]),
    )
)
def test_a_row_is_on_the_front_if_no_other_is_as_good_and_somewhere_better(values_NM) -> None:
    known = [row for row in values_NM if np.isfinite(row).all()]
    expected = [
        bool(np.isfinite(row).all())
        and not any((other >= row).all() and (other > row).any() for other in known)
        for row in values_NM
    ]
    assert pareto_front(values_NM).tolist() == expected
