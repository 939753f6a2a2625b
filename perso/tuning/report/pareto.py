"""Which points no other point beats in everything."""

import numpy as np
from numpy.typing import NDArray


def pareto_front(values_NM: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no other row is as good everywhere and better somewhere.

    Args:
        values_NM: Higher is better; rows with a ``nan`` are on no front and beat nobody.

    Returns:
        Shape (N,). Of equal rows all are on the front or none.

    Example:
        >>> pareto_front(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0]])).tolist()
        [True, True, False]
    """
    known_N: NDArray[np.bool_] = np.asarray(np.isfinite(values_NM).all(axis=1))
    front_N: NDArray[np.bool_] = known_N.copy()
    for place in np.flatnonzero(known_N):
        as_good_N = (values_NM >= values_NM[place]).all(axis=1)
        better_N = (values_NM > values_NM[place]).any(axis=1)
        front_N[place] = not (as_good_N & better_N & known_N).any()
    return front_N
