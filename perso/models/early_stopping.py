"""When training has stopped to get better at interactions that it has not seen."""

# U users, I items, B users of the check, D factors

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perso.data.prepared import Interactions
from perso.models.progress import TrainingState
from perso.models.ranks import ALONE, Ranks
from perso.models.sgd_config import SgdConfig
from perso.models.sgd_state import copied
from perso.models.tables import Table

SHARE: Final = 0.05
"""Share of the interactions set aside; the closed form of the user side sees them all again."""
_MAX_USERS: Final = 2_000
_SCORES_AT_ONCE: Final = 1 << 24


@dataclass(kw_only=True)
class EarlyStopping:
    """Interactions set aside, and the best tables so far; does nothing without patience."""

    kept: Interactions
    """What training may see."""
    patience: int | None
    ranks: Ranks = ALONE
    """Who takes part; the first one's measure counts."""
    _is_kept_P: NDArray[np.bool_] | None = None
    _aside: Interactions | None = None
    _best: float = -1.0
    _waited: int = 0
    _saved: dict[str, Tensor] | None = None

    @classmethod
    def of(
        cls, interactions: Interactions, config: SgdConfig, ranks: Ranks = ALONE
    ) -> "EarlyStopping":
        """Set interactions aside, at random by the config's seed, no user's first one."""
        if config.patience is None:
            return cls(kept=interactions, patience=None)
        rng = np.random.default_rng([config.seed, 1])
        is_kept_P = rng.random(len(interactions)) >= SHARE
        first_P = np.r_[True, np.diff(interactions.user_indices) > 0]
        is_kept_P |= first_P
        return cls(
            kept=interactions.take(is_kept_P),
            patience=config.patience,
            ranks=ranks,
            _is_kept_P=is_kept_P,
            _aside=interactions.take(~is_kept_P),
        )

    def keep(self, values_P: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Of values per interaction those of the kept ones."""
        if values_P is None or self._is_kept_P is None:
            return values_P
        return values_P[self._is_kept_P]

    @property
    def is_over(self) -> bool:
        """Whether the epochs without an improvement have used up the patience."""
        return self.patience is not None and self._waited >= self.patience

    def watch(
        self, factors: Callable[[], tuple[Tensor, Tensor, Tensor]], tables: Mapping[str, Table]
    ) -> None:
        """Measure an epoch, and keep a copy of its tables if it is the best so far.

        Args:
            factors: User and item vectors and item biases after the epoch.
            tables: What they are made of, by name.
        """
        if not self._watches:
            return
        measured = self._gain(*factors())
        self.ranks.align_([measured])
        gain = float(measured)
        if gain > self._best or self._saved is None:
            self._best, self._waited = gain, 0
            self._saved = {name: table.values.clone() for name, table in tables.items()}
        else:
            self._waited += 1

    @contextmanager
    def best(self, tables: Mapping[str, Table]) -> Iterator[None]:
        """Within it, tables hold the values of the best epoch so far."""
        last = {name: table.values for name, table in tables.items()}
        try:
            for name, values in (self._saved or {}).items():
                tables[name].values = values
            yield
        finally:
            for name, values in last.items():
                tables[name].values = values

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of what has been watched, by name."""
        if self._saved is None:
            return {}
        return {
            "best.gain": np.array(self._best),
            "best.epochs_since": np.array(self._waited),
            **{f"best.{name}": copied(values) for name, values in self._saved.items()},
        }

    def shapes(self, tables: Mapping[str, Table]) -> dict[str, tuple[int, ...]]:
        """Names and shapes of :meth:`arrays` after an epoch."""
        if not self._watches:
            return {}
        saved = {f"best.{name}": tuple(table.values.shape) for name, table in tables.items()}
        return {"best.gain": (), "best.epochs_since": (), **saved}

    def resume(self, state: TrainingState, tables: Mapping[str, Table]) -> None:
        """Take over what was watched, from a state of these shapes."""
        if not self._watches:
            return
        self._best = float(state["best.gain"])
        self._waited = int(state["best.epochs_since"])
        self._saved = {
            name: torch.tensor(state[f"best.{name}"]).to(table.values)
            for name, table in tables.items()
        }

    @property
    def _watches(self) -> bool:
        return self._aside is not None and len(self._aside) > 0

    def _gain(self, user_UD: Tensor, item_ID: Tensor, bias_I: Tensor) -> Tensor:
        """Mean of ``1 / log2(rank + 1)`` of what was set aside, of some users."""
        assert self._aside is not None
        users = np.unique(self._aside.user_indices)
        users = users[:: -(-len(users) // _MAX_USERS)]
        gains = []
        at_once = max(1, _SCORES_AT_ONCE // self.kept.num_items)
        for start in range(0, len(users), at_once):
            users_B = users[start : start + at_once]
            scores_BI = user_UD[torch.from_numpy(users_B).long()] @ item_ID.T + bias_I
            scores_BI[_places(self.kept, users_B)] = -torch.inf
            rows, items = _places(self._aside, users_B)
            better = (scores_BI[rows] > scores_BI[rows, items][:, None]).sum(1)
            gains.append(1 / torch.log2(better + 2.0))
        return torch.cat(gains).mean()


def _places(interactions: Interactions, users_B: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
    """Row and item of each pair of some users, who are in ascending order as the pairs are."""
    start = np.searchsorted(interactions.user_indices, users_B[0])
    end = np.searchsorted(interactions.user_indices, users_B[-1], side="right")
    users_P = interactions.user_indices[start:end]
    rows = np.searchsorted(users_B, users_P)
    inside = users_B[rows] == users_P
    items = interactions.item_indices[start:end][inside].astype(np.int64)
    return torch.from_numpy(rows[inside]), torch.from_numpy(items)
