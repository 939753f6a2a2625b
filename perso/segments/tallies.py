"""Sums per customer and label, and the labels with most weight: plain array work.

N rows of input, U customers; a customer is a dense code 0 to U - 1.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """A list of codes for each of I things: row ``i`` is ``codes[offsets[i]:offsets[i + 1]]``."""

    names: pa.Array
    """What a code means."""
    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    """Shape (I + 1,)."""

    @classmethod
    def of_lists(cls, lists: pa.Array) -> "Ragged":
        """The lists of an Arrow list column; a null is an empty list."""
        flat = pa.compute.list_flatten(lists).dictionary_encode()
        lengths = pa.compute.fill_null(pa.compute.list_value_length(lists), 0)
        return cls(
            names=flat.dictionary,
            codes=flat.indices.to_numpy().astype(np.int64),
            offsets=np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int64),
        )

    @classmethod
    def of_values(cls, values: pa.Array) -> "Ragged":
        """At most one label each; a null is none."""
        encoded = values.dictionary_encode()
        is_known = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
        return cls(
            names=encoded.dictionary,
            codes=encoded.indices.drop_null().to_numpy().astype(np.int64),
            offsets=np.concatenate([[0], np.cumsum(is_known)]).astype(np.int64),
        )

    def spread(
        self, users: NDArray[np.int64], rows: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> "Tally":
        """Each weight divided evenly over the labels of its row, added up per user and label."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        starts = np.repeat(self.offsets[rows], lengths)
        places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        shares = np.repeat(weights / np.maximum(lengths, 1), lengths)
        return Tally.of(np.repeat(users, lengths), self.codes[starts + places], shares, self.names)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """One weight per user and label that occur together, sorted by user, then label code."""

    users: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    names: pa.Array
    """What a label code means."""

    @classmethod
    def of(
        cls,
        users: NDArray[np.int64],
        labels: NDArray[np.int64],
        weights: NDArray[np.float64],
        names: pa.Array,
    ) -> "Tally":
        """Add up rows; those without weight are left out."""
        has_weight = weights > 0
        width = max(len(names), 1)
        keys, place = np.unique(users[has_weight] * width + labels[has_weight], return_inverse=True)
        return cls(
            users=keys // width,
            labels=keys % width,
            weights=np.bincount(place, weights[has_weight], minlength=len(keys)).astype(float),
            names=names,
        )

    def entropy_bits(self, num_users: int) -> NDArray[np.float64]:
        """Shannon entropy of each user's weights, shape (U,); nan without any.

        References:
            Shannon, A Mathematical Theory of Communication, 1948.
        """
        totals = np.bincount(self.users, self.weights, minlength=num_users)
        shares = self.weights / totals[self.users]
        bits = np.bincount(self.users, -shares * np.log2(shares), minlength=num_users)
        # Rounding can leave a sum of one share a hair below zero.
        return np.where(totals > 0, np.maximum(bits, 0.0), np.nan)

    def best(self, num_users: int, limit: int) -> tuple[pa.ListArray, pa.ListArray]:
        """Each user's labels with most weight and their shares of the user's whole weight.

        Of equal weights the first in the alphabet. Two list columns of length U, best first.
        """
        totals = np.bincount(self.users, self.weights, minlength=num_users)
        alphabet = np.empty(len(self.names), np.int64)
        alphabet[pa.compute.sort_indices(self.names).to_numpy()] = np.arange(len(self.names))
        order = np.lexsort((alphabet[self.labels], -self.weights, self.users))
        users = self.users[order]
        first_of_user = np.searchsorted(users, users, side="left")
        kept = order[np.arange(len(order)) - first_of_user < limit]
        counts = np.bincount(self.users[kept], minlength=num_users)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        labels = self.names.take(pa.array(self.labels[kept])).cast(pa.string())
        shares = (self.weights[kept] / totals[self.users[kept]]).astype(np.float32)
        return (
            pa.ListArray.from_arrays(offsets, labels),
            pa.ListArray.from_arrays(offsets, pa.array(shares)),
        )

    def most(self, num_users: int) -> pa.StringArray:
        """Each user's label with most weight, null without any; of equals the first by name."""
        lists, _ = self.best(num_users, 1)
        lengths = lists.value_lengths().to_numpy()
        place = np.cumsum(lengths) - 1
        return lists.values.take(pa.array(place, mask=lengths == 0))
