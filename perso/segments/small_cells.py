"""What of a table of customers may leave the system: no small cell, and none to be worked out.

Decides which cells are hidden, not how that is shown.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hide_small(
    counts: NDArray[np.int64], minimum: int, *, first: NDArray[np.bool_] | None = None
) -> "np.ma.MaskedArray[Any, np.dtype[np.int64]]":
    """A table of customers as it may leave the system: small cells are masked.

    A cell of 1 to ``minimum`` - 1 customers is masked. As the totals of rows and columns are
    known (they are the sizes of the segments), a cell that stands alone could be worked out by
    subtraction; so the next smallest of its row and column go with it, until what is masked in a
    line is two cells or more and ``minimum`` customers or more, or nothing is left there. The
    choice is greedy: it may hide more than the least possible, and a linear program over all
    totals may still narrow a cell down, as may a second table of the same customers.

    Args:
        counts: 0 or more; a matrix, or one line of it.
        minimum: Fewest customers that may be told of; 1 hides nothing.
        first: Cells that go before smaller ones when a neighbour has to; of the same shape.

    Returns:
        A copy, masked where hidden; its ``sum()`` leaves the hidden cells out.

    References:
        Sweeney, k-anonymity, 2002; Hundepool et al., Statistical Disclosure Control, 2012,
        chapter 4 (secondary cell suppression).

    Example:
        >>> print(hide_small(np.array([3, 12, 0, 400]), 10))
        [-- -- 0 400]
    """
    goes_first = np.zeros(counts.shape, np.bool_) if first is None else first
    table = np.atleast_2d(counts)
    hidden = (table > 0) & (table < minimum)
    # Views: what is hidden in a column is hidden in its rows.
    ways = [(table, hidden, np.atleast_2d(goes_first))]
    if counts.ndim == 2:
        ways.append((table.T, hidden.T, goes_first.T))
    changed = True
    while changed:
        changed = False
        for lines, is_hidden, goes in ways:
            for place in np.flatnonzero(is_hidden.any(axis=1)):
                line, hidden_here = lines[place], is_hidden[place]
                is_safe = hidden_here.sum() >= 2 and line[hidden_here].sum() >= minimum
                others = np.flatnonzero(~hidden_here & (line > 0))
                if is_safe or not others.size:
                    continue
                # A cell that also keeps one of another line company saves hiding one there.
                helps_twice = is_hidden[:, others].sum(axis=0) > 0
                best = np.lexsort((line[others], ~goes[place][others], ~helps_twice))[0]
                hidden_here[others[best]] = True
                changed = True
    return np.ma.MaskedArray(counts.copy(), mask=hidden.reshape(counts.shape))


def hide_small_sizes(sizes: Mapping[str, int], minimum: int) -> dict[str, int | None]:
    """Customers per segment as they may leave the system: None where :func:`hide_small` masks.

    Example:
        >>> hide_small_sizes({"loyal": 400, "new": 12, "other": 3}, 10)
        {'loyal': 400, 'new': None, 'other': None}
    """
    labels = sorted(sizes)  # so that equal sizes are decided alike, whatever the order
    shown = hide_small(np.array([sizes[label] for label in labels], np.int64), minimum)
    return dict(zip(labels, shown.tolist(), strict=True))
