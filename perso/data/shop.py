"""The synthetic shop's hidden truth: what its items are and what its shoppers want.

Decides tastes, prices, launches, arrivals and departures. What shoppers then do is simulated by
``perso.data.synthetic``; nothing here depends on it, so the right answer is known before a single
event is.

Shapes: U users, I items, C categories, D taste dimensions.
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.errors import ArtifactError
from perso.schema import CATALOG_SCHEMA

CURRENCY: Final = "EUR"
DEVICES: Final = ("desktop", "mobile", "tablet")
REGIONS: Final = ("east", "north", "south", "west")
USERS_PER_BLOCK: Final = 500
"""Shoppers who are drawn, simulated and written together; part of what a seed means."""

US_PER_DAY: Final = 86_400_000_000

_TASTE_STRENGTH: Final = 4.5  # log-odds between an item that fits a taste fully and one that is off
_KINDS: Final = (
    ("lamps", "Lamp"),
    ("mugs", "Mug"),
    ("candles", "Candle"),
    ("tea", "Tea"),
    ("coffee", "Coffee"),
    ("notebooks", "Notebook"),
    ("toys", "Puzzle"),
    ("garden", "Planter"),
    ("kitchen", "Bowl"),
    ("bath", "Towel"),
    ("soap", "Soap"),
    ("clocks", "Clock"),
    ("frames", "Frame"),
    ("bags", "Bag"),
    ("scarves", "Scarf"),
    ("jewellery", "Bracelet"),
    ("spices", "Spice Mix"),
    ("baking", "Cake Tin"),
    ("posters", "Poster"),
    ("cushions", "Cushion"),
    ("storage", "Basket"),
    ("stationery", "Pen"),
    ("pets", "Pet Blanket"),
    ("outdoor", "Lantern"),
)
_STYLES: Final = ("Nordic", "Vintage", "Rustic", "Modern", "Classic", "Bold", "Quiet")
_MATERIALS: Final = ("Oak", "Copper", "Linen", "Stone", "Glass", "Clay", "Cotton")
_BRANDS: Final = ("Alder", "Birch", "Cedar", "Dune", "Elm", "Fjord", "Grove")


@dataclass(frozen=True, kw_only=True)
class ShopSpec:
    """A shop to generate; equal specs give equal bytes."""

    seed: int = 7
    """Of all randomness."""
    num_users: int = 2_000
    """Shoppers, of whom a few may never show up."""
    num_items: int = 600
    """Items, those launched later included."""
    num_categories: int = 24
    """Categories; each has a centre in taste space, a price level and times of day."""
    num_taste_dims: int = 8
    """Dimensions of the hidden tastes."""
    num_days: int = 90
    """Length of the log."""
    start: date = date(2025, 1, 1)
    """First day of the log (UTC)."""
    sessions_per_user: float = 14.0
    """Mean visits of a shopper who is there throughout; a few come much more often."""
    views_per_session: float = 7.0
    """Mean items viewed in a visit."""
    newcomer_rate: float = 0.25
    """Share of shoppers who first come later than the first day."""
    churn_rate: float = 0.25
    """Share of shoppers who leave for good before the last day."""
    new_item_rate: float = 0.15
    """Share of items launched later than the first day."""
    repeat_rate: float = 0.35
    """Chance that a consumable, once bought, is bought again weeks later."""
    rating_rate: float = 0.1
    """Chance that a purchase is rated."""

    def __post_init__(self) -> None:
        for name in ("num_users", "num_items", "num_categories", "num_taste_dims", "num_days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.num_items < self.num_categories:
            raise ValueError(
                f"num_items is {self.num_items}; give at least one per category, "
                f"{self.num_categories}"
            )
        for name in ("sessions_per_user", "views_per_session"):
            if not 0 < getattr(self, name) < 1_000:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 to 1000, not 0")
        for name in ("newcomer_rate", "churn_rate", "new_item_rate", "repeat_rate", "rating_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")

    @property
    def start_us(self) -> int:
        """Microseconds since the epoch of the first instant."""
        first = datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)
        return int(first.timestamp()) * 1_000_000

    @property
    def num_blocks(self) -> int:
        """Blocks of users, the last one perhaps short."""
        return -(-self.num_users // USERS_PER_BLOCK)


@dataclass(frozen=True, kw_only=True)
class ShopItems:
    """The items and categories of a shop."""

    tastes_ID: NDArray[np.float64]
    """Unit vectors in taste space."""
    appeal_I: NDArray[np.float64]
    """Log-odds that an item has with everybody: the skew of popularity."""
    category_I: NDArray[np.int64]
    """Category codes."""
    price_I: NDArray[np.float64]
    """Unit prices."""
    launch_day_I: NDArray[np.int64]
    """Day of the log on which the item appears; 0: there from the start."""
    centres_CD: NDArray[np.float64]
    """Unit vectors of the categories."""
    consumable_C: NDArray[np.bool_]
    """Whether a category's items are used up and bought again."""

    @property
    def log_price_I(self) -> NDArray[np.float64]:
        """Standardized logarithm of the price: what price sensitivity multiplies."""
        log_price = np.log(self.price_I)
        deviation: NDArray[np.float64] = log_price - log_price.mean()
        return deviation / max(float(log_price.std()), 1e-9)


@dataclass(frozen=True, kw_only=True)
class ShopUsers:
    """The shoppers of a shop, or of one block of it."""

    tastes_UD: NDArray[np.float64]
    """Unit vectors in taste space, the region's pull included."""
    price_sensitivity_U: NDArray[np.float64]
    """Log-odds lost per standard deviation of log price; those who come often mind less."""
    activity_U: NDArray[np.float64]
    """Visits relative to the mean shopper."""
    region_U: NDArray[np.int64]
    """Codes into REGIONS."""
    device_U: NDArray[np.int64]
    """Codes into DEVICES of the device used most."""
    daypart_U: NDArray[np.int64]
    """Code of the time of day preferred, as in ``perso.schema.DAYPARTS``."""
    first_day_U: NDArray[np.int64]
    """Day of the log from which the shopper comes; above 0: a newcomer."""
    last_day_U: NDArray[np.int64]
    """Last day on which the shopper comes; below the log's last day: churned."""


@dataclass(frozen=True, kw_only=True)
class ShopTruth:
    """Everything that the events of a shop follow from."""

    items: ShopItems
    users: ShopUsers

    @property
    def item_ids(self) -> list[str]:
        """External id of each item row."""
        return [item_id(i) for i in range(len(self.items.price_I))]

    @property
    def user_ids(self) -> list[str]:
        """External id of each user row."""
        return [user_id(u) for u in range(len(self.users.activity_U))]

    def affinity(self, user_indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-odds with which each shopper picks each item, contexts aside.

        Softmax over the items of one category gives the expected shares of a shopper's views in
        it; between categories, the time of day and the device shift the odds. An item not yet
        launched is never viewed.

        Args:
            user_indices: Rows of this truth (not of a vocabulary), shape (B,).

        Returns:
            Shape (B, I); comparable within one shopper.
        """
        rows = {
            f.name: getattr(self.users, f.name)[user_indices] for f in dataclasses.fields(ShopUsers)
        }
        return affinity(ShopUsers(**rows), self.items)

    def save(self, path: Path) -> None:
        """Write all arrays as one npz file."""
        arrays = {f"items.{k}": v for k, v in vars(self.items).items()}
        arrays |= {f"users.{k}": v for k, v in vars(self.users).items()}
        np.savez(path, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "ShopTruth":
        """The truth in an npz file.

        Raises:
            ArtifactError: If the file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                items = {f.name: arrays[f"items.{f.name}"] for f in dataclasses.fields(ShopItems)}
                users = {f.name: arrays[f"users.{f.name}"] for f in dataclasses.fields(ShopUsers)}
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is no truth of a synthetic shop: {error}") from error
        return cls(items=ShopItems(**items), users=ShopUsers(**users))


def user_id(index: int) -> str:
    """The external id of a shopper."""
    return f"u{index:06d}"


def item_id(index: int) -> str:
    """The external id of an item."""
    return f"i{index:05d}"


def affinity(users: ShopUsers, items: ShopItems) -> NDArray[np.float64]:
    """Log-odds of every pair; see :meth:`ShopTruth.affinity`."""
    scores: NDArray[np.float64] = _TASTE_STRENGTH * users.tastes_UD @ items.tastes_ID.T
    scores += items.appeal_I
    scores -= users.price_sensitivity_U[:, None] * items.log_price_I
    return scores


def draw_items(spec: ShopSpec) -> ShopItems:
    """The items of a shop."""
    rng = np.random.default_rng([spec.seed, 0])
    num_items, num_categories = spec.num_items, spec.num_categories
    centres_CD = _unit(rng.normal(size=(num_categories, spec.num_taste_dims)))
    sizes_C = rng.dirichlet(np.full(num_categories, 4.0))
    spread = rng.choice(num_categories, num_items - num_categories, p=sizes_C)
    category_I = rng.permutation(np.r_[np.arange(num_categories), spread])
    noise_ID = _unit(rng.normal(size=(num_items, spec.num_taste_dims)))
    price_level_C = rng.normal(3.0, 0.6, num_categories)
    price_I = np.exp(price_level_C[category_I] + rng.normal(0, 0.4, num_items))
    is_new_I = rng.random(num_items) < spec.new_item_rate
    launch_day_I = np.where(is_new_I, rng.integers(1, max(spec.num_days, 2), num_items), 0)
    return ShopItems(
        tastes_ID=_unit(centres_CD[category_I] + 0.75 * noise_ID),
        appeal_I=rng.normal(0, 0.8, num_items),
        category_I=category_I,
        price_I=np.maximum(np.round(price_I, 1) - 0.05, 0.45),
        launch_day_I=launch_day_I,
        centres_CD=centres_CD,
        consumable_C=np.arange(num_categories) % 3 == 2,
    )


def draw_users(spec: ShopSpec, items: ShopItems, block: int) -> ShopUsers:
    """One block of shoppers, independent of all other blocks."""
    regional = np.random.default_rng([spec.seed, 1])
    pull_RD = _unit(regional.normal(size=(len(REGIONS), spec.num_taste_dims)))
    rng = np.random.default_rng([spec.seed, 2, block])
    count = min(USERS_PER_BLOCK, spec.num_users - block * USERS_PER_BLOCK)
    region_U = rng.choice(len(REGIONS), count, p=[0.2, 0.3, 0.15, 0.35])
    favourites_U2 = rng.integers(0, spec.num_categories, (count, 2))
    noise_UD = _unit(rng.normal(size=(count, spec.num_taste_dims)))
    liked_UD = items.centres_CD[favourites_U2[:, 0]] + 0.6 * items.centres_CD[favourites_U2[:, 1]]
    activity_U = rng.lognormal(-0.4, 0.9, count)  # mean 1
    newcomer_U = rng.random(count) < spec.newcomer_rate
    first_day_U = np.where(newcomer_U, rng.integers(0, spec.num_days, count), 0)
    churner_U = rng.random(count) < spec.churn_rate
    last_day_U = np.where(churner_U, rng.integers(first_day_U, spec.num_days), spec.num_days - 1)
    return ShopUsers(
        tastes_UD=_unit(liked_UD + 0.6 * noise_UD + 0.35 * pull_RD[region_U]),
        price_sensitivity_U=0.3 - 0.35 * np.log(activity_U) + rng.normal(0, 0.25, count),
        activity_U=activity_U,
        region_U=region_U,
        device_U=rng.choice(len(DEVICES), count, p=[0.4, 0.5, 0.1]),
        daypart_U=rng.choice(4, count, p=[0.05, 0.2, 0.35, 0.4]),
        first_day_U=first_day_U,
        last_day_U=last_day_U,
    )


def join_users(blocks: list[ShopUsers]) -> ShopUsers:
    """The shoppers of all blocks in one table."""
    return ShopUsers(
        **{
            f.name: np.concatenate([getattr(block, f.name) for block in blocks])
            for f in dataclasses.fields(ShopUsers)
        }
    )


def describe_items(spec: ShopSpec, items: ShopItems) -> pa.Table:
    """The shop's catalogue, CATALOG_SCHEMA, sorted by item."""
    rng = np.random.default_rng([spec.seed, 3])
    rows = []
    for i, category in enumerate(items.category_I.tolist()):
        kind, noun = _KINDS[category % len(_KINDS)]
        lap = category // len(_KINDS)
        style, material = rng.choice(_STYLES), rng.choice(_MATERIALS)
        rows.append(
            {
                "item_id": item_id(i),
                "title": f"{style} {material} {noun} {i:05d}",
                "price": float(items.price_I[i]),
                "currency": CURRENCY,
                "categories": [f"{kind}-{lap + 1}" if lap else kind],
                "brand": str(rng.choice(_BRANDS)),
                "tags": [str(style).lower(), str(material).lower()],
                "in_stock": bool(rng.random() > 0.03),
            }
        )
    return pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = vectors / np.maximum(lengths, 1e-12)
    return unit
