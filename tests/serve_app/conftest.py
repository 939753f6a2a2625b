"""The two-taste shop of tests/online behind HTTP."""

import asyncio
import importlib.util
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from perso.dictionary import RECOMMENDER_V1
from perso.errors import FeatureStoreError
from perso.models.bundle import save_bundle
from perso.online.live import LiveRecommender
from perso.stream.event_log import EventLog
from serve_app.api import Service, make_api
from serve_app.feature_reader import FeatureReader, FeatureReaderSpec
from serve_app.telemetry import Telemetry


@pytest.fixture(scope="session")
def world():
    # pytest's importlib mode has no import path between test folders.
    path = Path(__file__).parents[1] / "online" / "conftest.py"
    spec = importlib.util.spec_from_file_location("two_taste_shop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_world()


class Features:
    """A feature store that knows Ann, Zoe and how to be dead, slow, empty and out of date."""

    is_dead = False
    is_empty = False
    seconds = 0.0
    age = timedelta(hours=1)

    def read_online(self, user_ids: Sequence[str]):
        time.sleep(self.seconds)
        if self.is_dead:
            raise FeatureStoreError("dead")
        if self.is_empty:
            return [None] * len(user_ids)
        row = dict.fromkeys(RECOMMENDER_V1.feature_names) | {
            "event_timestamp": datetime.now(UTC) - self.age,
            "segment": "loyal",
            "recency_days": 3.0,
            "recency_score": 98,
            "frequency": 4,
            "frequency_quartile": 4,
            "monetary": 99.5,
            "monetary_tier": 3,
            "rfm_score": 90.0,
            "composite_score": 0.7,
            "score_dimensions": ["recency", "purchase_volume"],
            "score_contributions": [0.4, 0.3],
            "cluster": "c01",
            "cluster_label": "Frequent evening buyers",
            "top_categories": ["lamps"],
        }
        return [row if user_id in {"ann", "zoe"} else None for user_id in user_ids]


@pytest.fixture(scope="session")
def promote_world(world, tmp_path_factory):
    """Registers the two-taste shop as one more version of a workspace; makes it champion."""

    def promote_world(workspace):
        from perso.registry import Registry

        registry = Registry(workspace)
        folder = tmp_path_factory.mktemp("bundle") / "bundle"
        save_bundle(
            folder,
            users=world.users,
            items=world.items,
            model=world.model,
            popularity=world.popularity,
            catalog=world.catalog,
            seen=world.seen,
            bought_together=world.bought_together,
            data_key="world",
            spec={},
            metrics={},
            trained_until=datetime(2026, 1, 1, tzinfo=UTC),
            created_at=datetime(2026, 1, 2, tzinfo=UTC),
        )
        run_id = registry.open_run("test")
        registry.close_run(run_id)
        return registry.promote(registry.register(folder, run_id=run_id).version).version

    return promote_world


@pytest.fixture
def features():
    return Features()


@pytest.fixture
def service(tmp_path, features):
    """A service without a model."""
    log = EventLog(tmp_path / "log.sqlite")
    return Service(
        live=LiveRecommender(log),
        log=log,
        # Patient: how busy the machine is must not decide a test.
        features=FeatureReader(lambda: features, spec=FeatureReaderSpec(budget_ms=1e4)),
        telemetry=Telemetry(),
    )


@pytest.fixture
def served(service, world):
    """A service with the two-taste shop as version 7."""
    service.live.serve("7", world)
    return service


@pytest.fixture(scope="session")
def ask_service():
    """One request to the API of any service, no network between."""

    async def send(service, method, path, options):
        transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://perso") as client:
            return await client.request(method, path, **options)

    def ask(service, method, path, **options):
        return asyncio.run(send(service, method, path, options))

    return ask


@pytest.fixture
def ask(service, ask_service):
    """One request to the API of the test's service."""
    return partial(ask_service, service)
