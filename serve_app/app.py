"""The Ray Serve application: what runs in which process.

``build`` is the import path of ``config.yaml``; :func:`serve_app.deploy.deploy` and
``serve deploy`` both go through it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from perso.online.live import LiveRecommender
from perso.online.strategies import StrategySpec
from perso.spec import load_spec
from perso.stream.event_log import EventLog
from perso.workspace import Workspace
from serve_app.api import Service, make_api
from serve_app.champion import ChampionFollower, ChampionWatcher
from serve_app.feature_reader import FeatureReader, FeatureReaderSpec, OnlineFeatures
from serve_app.recent_pusher import RecentEvents
from serve_app.telemetry import Telemetry

APP_NAME = "perso"


class BuildArgs(BaseModel):
    """``args`` of the application in the Serve config file."""

    model_config = ConfigDict(extra="forbid")

    root: str | None = None
    """Workspace root, the same on every node; default as for every command."""
    strategies: str | None = None
    """YAML file of segment -> strategy rules; none: lists are the model's own."""
    feature_budget_ms: float = Field(default=FeatureReaderSpec().budget_ms, gt=0)
    """Milliseconds after which an answer does without the feature store."""
    feature_max_age_days: float = Field(default=FeatureReaderSpec().max_age_days, gt=0)
    """Days after which answers call a stored segment stale; they use it all the same."""


@serve.deployment
@serve.ingress()
class Recommender:
    """One replica: the HTTP application, its model and its open event log."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self,
        root: str,
        watcher: DeploymentHandle,
        recent_events: DeploymentHandle,
        strategies: StrategySpec,
        reading: FeatureReaderSpec,
    ) -> None:
        workspace = Workspace.open(root)
        log = EventLog(workspace.event_log)
        self._service = Service(
            live=LiveRecommender(log, strategies=strategies),
            log=log,
            features=FeatureReader(lambda: _open_features(workspace), spec=reading),
            telemetry=Telemetry(),
        )
        self._recent_events = recent_events  # Serve starts what the application holds
        follower = ChampionFollower(
            self._service.live, watcher.champion.remote, self._service.telemetry
        )
        # Ray sends requests here only after this returns: a replica that joins has its model.
        await asyncio.gather(follower.catch_up(), self._service.features.warm())
        self._following = asyncio.create_task(follower.follow())

    def __serve_build_asgi_app__(self) -> Any:
        return make_api(self._service)


def build(args: BuildArgs, options: Mapping[str, Mapping[str, Any]] | None = None) -> Application:
    """The application for one workspace.

    Args:
        args: Where the workspace is, and what lists do with features.
        options: Deployment options by deployment name. ``serve deploy`` applies those of its
            config file by itself and passes none.

    Raises:
        InputError: If the file of strategies cannot be read or a rule is wrong.
    """
    options = options or {}
    strategies = load_spec(StrategySpec, args.strategies) if args.strategies else StrategySpec()
    reading = FeatureReaderSpec(
        budget_ms=args.feature_budget_ms, max_age_days=args.feature_max_age_days
    )
    root = str(Workspace.open(args.root).root)
    watcher = _with_options(ChampionWatcher, options).bind(root)
    recent_events = _with_options(RecentEvents, options).bind(root)
    application: Application = _with_options(Recommender, options).bind(
        root, watcher, recent_events, strategies, reading
    )
    return application


def _with_options(deployment: Any, options: Mapping[str, Mapping[str, Any]]) -> Any:
    return deployment.options(**options.get(deployment.name, {}))


def _open_features(workspace: Workspace) -> OnlineFeatures:
    from perso.features.store import open_features

    return open_features(workspace)
