"""The two-taste shop of tests/online behind HTTP."""

import importlib.util
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from perso.errors import FeatureStoreError
from perso.models.bundle import save_bundle
from perso.online.live import LiveRecommender
from perso.stream.event_log import EventLog
from serve_app.api import Service, make_api
from serve_app.segment_reader import SegmentReader
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
    """A feature store that knows Ann, Zoe and how to be dead."""

    is_dead = False

    def read_online(self, user_ids: Sequence[str]):
        if self.is_dead:
            raise FeatureStoreError("dead")
        row = {
            "segment": "loyal",
            "event_timestamp": datetime.now(UTC) - timedelta(hours=1),
            "recency_days": 3.0,
            "frequency": 4,
            "monetary": 99.5,
            "recency_score": 5,
            "frequency_score": 4,
            "monetary_score": 3,
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
        segments=SegmentReader(lambda: features),
        telemetry=Telemetry(),
    )


@pytest.fixture
def served(service, world):
    """A service with the two-taste shop as version 7."""
    service.live.serve("7", world)
    return service


@pytest.fixture
def ask(service):
    """One request to the API, no network between."""

    async def send(method, path, **options):
        transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://perso") as client:
            return await client.request(method, path, **options)

    def ask(method, path, **options):
        import asyncio

        return asyncio.run(send(method, path, **options))

    return ask
