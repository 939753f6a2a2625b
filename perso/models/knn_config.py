"""Settings of item k-NN, readable without loading scipy."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ItemKnnConfig:
    """Which items count as neighbours of an item, and how near they are.

    With ``similarity`` ``cosine`` the similarity of items i and j sums over users u

        S_ij = sum_u R_ui R_uj / d_u^(2a) / (d_i d_j)^b

    where ``d`` is the sum of squares of a user's or item's row of R (its degree, if every pair
    counts 1), ``a`` the user exponent and ``b`` the item exponent: 0 and .5 give the cosine, .5
    and .5 the symmetric normalization of graph filters, 0 and 0 plain co-occurrence, 0 and 1 the
    lift.

    Raises:
        ValueError: If a setting is out of range.

    References:
        Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001
        (cosine, Pearson). Shen et al., How powerful is graph convolution for recommendation?,
        CIKM 2021 (symmetric normalization).
    """

    family: Literal["item_knn"] = "item_knn"
    """Names the model family in a spec."""
    similarity: Literal["cosine", "pearson"] = "cosine"
    """``pearson`` correlates the ratings of users who rated both items (the weights, unless every
    pair has a rating), each around its item's mean; exponents and ``weighted`` do not touch it."""
    num_neighbors: int = 100
    """Nearest items kept of each item: 8 bytes each."""
    shrinkage: float = 2.0
    """Common users behind which a similarity counts half: it is multiplied by n / (n + shrinkage)
    for n common users (Bell and Koren, ICDM 2007), so that a chance pair is no near one."""
    user_exponent: float = 0.5
    """How much less a user of many items says of each pair of them."""
    item_exponent: float = 0.5
    """How far the popularity of the two items is taken out."""
    weighted: bool = False
    """Whether similarities count interactions by weight; otherwise every pair counts 1."""

    def __post_init__(self) -> None:
        if self.family != "item_knn":
            raise ValueError(f"family is {self.family!r}; this is 'item_knn'")
        if self.similarity not in ("cosine", "pearson"):
            raise ValueError(f"similarity is {self.similarity!r}; give 'cosine' or 'pearson'")
        if self.num_neighbors < 1:
            raise ValueError(f"num_neighbors is {self.num_neighbors}; give 1 or more")
        for name in ("shrinkage", "user_exponent", "item_exponent"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; give 0 or more")
