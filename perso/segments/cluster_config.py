"""What clusters are looked for, readable without loading scikit-learn."""

from dataclasses import dataclass, field
from typing import Final, Literal

Algorithm = Literal["kmeans", "gaussian_mixture", "hdbscan"]

_COUNTS_AND_MONEY: Final = (
    "days_since_event",
    "num_sessions",
    "browsing_depth",
    "num_orders",
    "spend",
    "average_order_value",
)
_SHARES: Final = (
    "cart_abandonment_rate",
    "return_rate",
    "discount_share",
    "category_entropy",
    "night_share",
    "morning_share",
    "afternoon_share",
    "evening_share",
    "mobile_share",
    "engagement",
)

DEFAULT_WORDS: Final[dict[str, tuple[str | None, str | None]]] = {
    "num_orders": ("rare", "frequent"),
    "spend": ("low-spend", "high-value"),
    "average_order_value": ("small-basket", "big-basket"),
    "days_since_event": ("recent", "lapsed"),
    "num_sessions": (None, "regular"),
    "browsing_depth": (None, "deep-browsing"),
    "category_entropy": ("focused", "wide-ranging"),
    "engagement": ("hurried", "engaged"),
    "night_share": (None, "night"),
    "morning_share": (None, "morning"),
    "afternoon_share": (None, "afternoon"),
    "evening_share": (None, "evening"),
    "mobile_share": ("desktop", "mobile"),
    "cart_abandonment_rate": ("decided", "cart-leaving"),
    "return_rate": (None, "returning-goods"),
    "discount_share": ("full-price", "bargain"),
}
"""Per measure the word for much less and for much more of it than most have."""


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """How like customers are found and named."""

    features: tuple[str, ...] = (*_COUNTS_AND_MONEY, *_SHARES)
    """Numeric measures; one that is unknown for everybody, or the same, is left out of a fit."""
    log_features: tuple[str, ...] = _COUNTS_AND_MONEY
    """Those that are taken on a logarithmic scale first: a few have a hundred times the usual."""
    winsor: tuple[float, float] = (0.01, 0.99)
    """Quantiles that values are cut off at."""
    explained_variance: float = 0.9
    """Share of the variance that the principal components keep."""
    algorithms: tuple[Algorithm, ...] = ("kmeans", "gaussian_mixture", "hdbscan")
    """Which are tried."""
    num_clusters: tuple[int, int] = (4, 8)
    """Fewest and most clusters that K-Means and Gaussian mixture are tried with; HDBSCAN finds its
    own number, and with fewer than the fewest it is not chosen."""
    min_cluster_shares: tuple[float, ...] = (0.02, 0.05)
    """Smallest clusters that HDBSCAN is tried with, as shares of its sample."""
    sample_size: int = 20_000
    """Customers that scales, components and centroids are fitted on."""
    density_sample_size: int = 5_000
    """Customers that HDBSCAN is fitted on: its time grows with the square."""
    silhouette_size: int = 4_000
    """Customers that silhouettes and bootstraps are measured on."""
    bootstraps: int = 5
    """Refits on resamples behind a candidate's stability."""
    min_stability: float = 0.6
    """Mean adjusted Rand index between bootstraps below which a candidate is not trusted."""
    min_customers: int = 200
    """With fewer there are no clusters."""
    reselect_every: int = 13
    """Steps after which a new selection of algorithm and number of clusters is tried; in between a
    refit starts from the clusters before."""
    clearly_better: float = 0.15
    """Share by which a new selection's silhouette must be above that of the clusters in use."""
    max_match_distance: float = 0.75
    """Farthest that a cluster may move from one fit to the next and keep its name, in the unit of
    the scale (a usual customer's deviation) per root of the number of features."""
    label_threshold: float = 0.5
    """Deviation from which a measure is a word of the label."""
    max_words: int = 3
    """Words before the noun of a label."""
    min_likeness: float = 0.5
    """Share of common words below which a label no longer says what its cluster is: an alert."""
    words: dict[str, tuple[str | None, str | None]] = field(
        default_factory=lambda: dict(DEFAULT_WORDS)
    )
    """Per measure the word for much less and for much more; null: says nothing."""
    names: dict[str, str] = field(default_factory=dict)
    """Labels given by people, by cluster key, each name once; they win."""

    def __post_init__(self) -> None:
        if not self.features or not self.algorithms:
            raise ValueError("features and algorithms need at least one entry each")
        low, high = self.winsor
        if not 0 <= low < high <= 1:
            raise ValueError(f"winsor is {self.winsor}; give two rising quantiles in 0 to 1")
        if not 0 < self.explained_variance <= 1:
            raise ValueError(
                f"explained_variance is {self.explained_variance}; give a share above 0, at most 1"
            )
        fewest, most = self.num_clusters
        if not 2 <= fewest <= most:
            raise ValueError(f"num_clusters is {self.num_clusters}; give two rising numbers from 2")
        if not all(0 < share < 0.5 for share in self.min_cluster_shares):
            raise ValueError(
                f"min_cluster_shares is {self.min_cluster_shares}; give shares above 0, below 0.5"
            )
        for name in (
            "sample_size", "density_sample_size", "silhouette_size", "bootstraps",
            "min_customers", "reselect_every", "max_words",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("max_match_distance", "label_threshold"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
        given = list(self.names.values())
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ValueError(f"names has {twice} for several clusters; give each a name of its own")
        for name, least in (("min_stability", -1), ("clearly_better", 0), ("min_likeness", 0)):
            if not least <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number in {least} to 1")
