"""Train/serve skew: whether the values that serving reads are those that training would join.

For a sample of customers the point-in-time join, as of the instant that the last sync brought
online, is held against what readers get online, field by field: the thin reader, Feast's own, and
if asked a running service. Floats must be equal to the last bit of their type. A customer whose
recent events were pushed since is newer online by design; those fields are counted and passed
over.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perso.dictionary import CREATED, RECOMMENDER_V1, USER, USER_SEGMENTS_V1, VIEWS, Service
from perso.errors import FeatureStoreError
from perso.features.store import Features

CHECKED: Final = (RECOMMENDER_V1, USER_SEGMENTS_V1)
"""The services that are compared."""

_MISSING: Final = "(no row)"
_TIMEOUT_S: Final = 10.0

Read = Callable[[Sequence[str]], list[Mapping[str, Any] | None]]


@dataclass(frozen=True, kw_only=True)
class SkewReport:
    """What was compared and what differs."""

    as_of: datetime
    """The instant that the offline values are of."""
    num_users: int
    """Customers drawn."""
    num_pushed: int
    """Of these, customers whose recent events are newer online."""
    num_compared: Mapping[str, int]
    """By reader, the values that were compared."""
    differing: Mapping[str, Mapping[str, int]]
    """By reader and field, in how many customers offline and online differ."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """By reader and field, one pair of values; no customer is named."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing differs."""
        return not any(self.differing.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "as_of": self.as_of.isoformat(),
            "is_clean": self.is_clean,
            "num_users": self.num_users,
            "num_pushed": self.num_pushed,
            "num_compared": dict(self.num_compared),
            "differing": {reader: dict(fields) for reader, fields in self.differing.items()},
            "examples": dict(self.examples),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.num_users} customers as of {self.as_of}, {self.num_pushed} with newer events:"
        ]
        for reader, fields in self.differing.items():
            verdict = "equal" if not fields else f"{sum(fields.values())} values differ"
            lines.append(f"  {reader}: {self.num_compared[reader]} values, {verdict}")
            lines += [
                f"    {name}: {count} customers, such as {self.examples[f'{reader} {name}']}"
                for name, count in sorted(fields.items())
            ]
        return "\n".join(lines)


def check_skew(
    features: Features,
    *,
    sample: int,
    seed: int = 0,
    as_of: datetime | None = None,
    url: str | None = None,
) -> SkewReport:
    """Compare online with offline values of sampled customers.

    Args:
        features: The store to check.
        sample: Customers to draw, at most all.
        seed: Which ones.
        as_of: The instant of the offline values; by default from when the newest rows that were
            brought online count as known.
        url: A running service to ask too.

    Raises:
        ValueError: If ``sample`` is below 1.
        FeatureStoreError: If nothing was ever brought online, or a reader cannot be reached.
    """
    if sample < 1:
        raise ValueError(f"sample is {sample}; give 1 or more")
    synced = features.freshness(datetime.now(UTC)).as_of
    if synced is None:
        raise FeatureStoreError(
            "nothing was ever brought online; bring features online first (`perso features sync`)"
        )
    first_view = RECOMMENDER_V1.views()[0][0].name
    rows = features.rows.read_rows(first_view, synced, columns=[USER, CREATED])
    drawn = np.random.default_rng(seed).permutation(len(rows))[:sample]
    users = rows[USER].take(pa.array(np.sort(drawn))).to_pylist()
    instant = as_of or max(synced, pc.max(rows[CREATED]).as_py())
    pushed = _pushed(features, users, instant)
    tally = _Tally(pushed=pushed)
    for service in CHECKED:
        offline = features.read_historical(users, as_of=instant, service=service.name)
        truth = offline.drop_columns(USER).to_pylist()
        for reader, read in _readers(features, service).items():
            tally.compare(f"{service.name} by {reader}", service, truth, read(users))
        if url is not None and service is USER_SEGMENTS_V1:
            answers = [_ask(url, user_id) for user_id in users]
            tally.compare(f"service at {url}", service, truth, answers, only_given=True)
    return SkewReport(
        as_of=instant,
        num_users=len(users),
        num_pushed=sum(pushed),
        num_compared=dict(tally.num_compared),
        differing={reader: dict(fields) for reader, fields in tally.differing.items()},
        examples=tally.examples,
    )


@dataclass(kw_only=True)
class _Tally:
    pushed: Sequence[bool]
    num_compared: Counter[str] = field(default_factory=Counter)
    differing: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def compare(
        self,
        reader: str,
        service: Service,
        truth: Sequence[Mapping[str, Any]],
        answers: Sequence[Mapping[str, Any] | None],
        *,
        only_given: bool = False,
    ) -> None:
        """Count the fields in which answers differ; fields that an answer lacks are None."""
        found = self.differing.setdefault(reader, Counter())
        for view, names in service.views():
            for name in names:
                for expected, answer, is_newer in zip(truth, answers, self.pushed, strict=True):
                    if is_newer and VIEWS[view.name].source == "push":
                        continue
                    if only_given and (answer is not None and name not in answer):
                        continue
                    self.num_compared[reader] += 1
                    online = _MISSING if answer is None else _plain(answer.get(name))
                    offline = _plain(expected[name])
                    if online != offline and not (answer is None and offline is None):
                        found[name] += 1
                        self.examples.setdefault(
                            f"{reader} {name}", f"{offline!r} offline, {online!r} online"
                        )


def _readers(features: Features, service: Service) -> dict[str, Read]:
    return {
        "perso": lambda users: list(features.read_online(users, service.name)),
        "feast": lambda users: _read_by_feast(features, service, users),
    }


def _read_by_feast(
    features: Features, service: Service, users: Sequence[str]
) -> list[Mapping[str, Any] | None]:
    try:
        columns = features.feast.get_online_features(
            features.feast.get_feature_service(service.name), {USER: list(users)}
        ).to_dict()
    except Exception as error:  # whatever the configured store raises
        raise FeatureStoreError(f"cannot read features online with Feast: {error}") from error
    return [
        {name: columns[name][place] for name in service.feature_names}
        for place in range(len(users))
    ]


def _pushed(features: Features, users: Sequence[str], instant: datetime) -> list[bool]:
    """Whose recent events are newer online than the instant's rows say."""
    reader = features.online_reader(RECOMMENDER_V1.name)
    offline = features.read_historical(users, as_of=instant)
    newer = [False] * len(users)
    for view, rows in reader.read_views(users).items():
        if VIEWS[view].source != "push":
            continue
        for place, (row, known) in enumerate(
            zip(rows, offline["last_event_at"].to_pylist(), strict=True)
        ):
            stored = None if row is None else row[1]["last_event_at"].unix_timestamp_val
            newer[place] = stored is not None and (known is None or stored > int(known.timestamp()))
    return newer


def _ask(url: str, user_id: str) -> Mapping[str, Any] | None:
    address = f"{url.rstrip('/')}/v1/users/{quote(user_id, safe='')}/segments"
    try:
        answer = httpx.get(address, timeout=_TIMEOUT_S, trust_env=False)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        document: Mapping[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise FeatureStoreError(f"the service at {url} does not answer: {error}") from error
    return document


def _plain(value: Any) -> Any:
    """Instants in whole seconds, as online stores keep them; lists, floats and text as they are."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(aware.timestamp())
    return value
