"""Runs: what was tried, with which settings, and how it did."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

from perso.registry.store import Store, load_mlflow
from perso.workspace import Workspace

RunStatus = Literal["RUNNING", "FINISHED", "FAILED"]

_PARAMS_PER_BATCH: Final = 100  # MLflow refuses longer batches
_METRICS_PER_BATCH: Final = 1000  # MLflow refuses longer batches
_RUNS_PER_PAGE: Final = 1000
_PARENT: Final = "mlflow.parentRunId"


class Runs:
    """Runs of one workspace. Opening this starts and creates nothing.

    The first write creates the embedded database, which takes seconds; processes that do so at
    once wait for each other.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._store = Store(workspace)

    @property
    def tracking_uri(self) -> str:
        """The MLflow server or database that holds the records."""
        return self._store.uri

    def open_run(
        self,
        name: str,
        *,
        parent_run_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """The id of a new running run, shown under its parent if one is given."""
        parent = {} if parent_run_id is None else {_PARENT: parent_run_id}
        run = self._client.create_run(
            self._experiment_id, run_name=name, tags={**(tags or {}), **parent}
        )
        run_id: str = run.info.run_id
        if params:
            param = load_mlflow().entities.Param
            written = [param(_run_key(key), str(value)) for key, value in params.items()]
            for start in range(0, len(written), _PARAMS_PER_BATCH):
                batch = written[start : start + _PARAMS_PER_BATCH]
                self._client.log_batch(run_id, params=batch)
        return run_id

    def reopen_run(self, run_id: str) -> None:
        """Let a run that has ended, or whose process was killed, go on."""
        self._client.update_run(run_id, status="RUNNING")

    def child_runs(self, parent_run_id: str, *, status: RunStatus | None = None) -> dict[str, str]:
        """Run ids of a run's children by their tag ``trial``; of equal values the newest.

        Args:
            parent_run_id: The run above them; children without the tag are left out.
            status: Only those; None: whatever became of them.
        """
        asked = f"tags.`{_PARENT}` = '{parent_run_id}'"
        if status is not None:
            asked += f" and attributes.status = '{status}'"
        found: dict[str, str] = {}
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string=asked,
                max_results=_RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            tagged = [(run.data.tags.get("trial"), run.info.run_id) for run in page]
            found |= {value: run_id for value, run_id in tagged if value is not None}
            token = page.token
            if not token:
                return found

    def log_metrics(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        *,
        curves: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Add metrics to a run; a metric that is ``nan`` was not measured and is left out.

        Args:
            run_id: An open run.
            metrics: Values by names such as ``ndcg@20`` or ``segment/loyal/ndcg@20``; a slash
                groups, and only ungrouped names become a version's metrics.
            curves: Per name, one value for each step from 1.
        """
        metric = load_mlflow().entities.Metric
        now_ms = int(time.time() * 1000)  # MLflow's record time; no result depends on it
        points = [(name, value, 0) for name, value in metrics.items()]
        for name, values in (curves or {}).items():
            points += [(name, value, step) for step, value in enumerate(values, 1)]
        written = [
            metric(_run_key(name), float(value), now_ms, step)
            for name, value, step in points
            if not math.isnan(value)
        ]
        for start in range(0, len(written), _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=written[start : start + _METRICS_PER_BATCH])

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Keep a copy of a folder's files, such as a report, beside a run."""
        self._client.log_artifacts(run_id, str(folder))

    def artifacts(self, run_id: str) -> list[str]:
        """Where the files beside a run lie: paths on this machine, or the store's addresses."""
        root: str = self._client.get_run(run_id).info.artifact_uri
        address = urlparse(root)
        if address.scheme in ("", "file"):
            root = url2pathname(address.path)
        listed = self._client.list_artifacts(run_id)
        return [f"{root.rstrip('/')}/{file.path}" for file in listed if not file.is_dir]

    def close_run(
        self,
        run_id: str,
        *,
        status: Literal["FINISHED", "FAILED"] = "FINISHED",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """End a run; ``tags`` say what came of it."""
        if tags:
            tag = load_mlflow().entities.RunTag
            written = [tag(key, value) for key, value in tags.items()]
            self._client.log_batch(run_id, tags=written)
        self._client.set_terminated(run_id, status=status)

    @property
    def _client(self) -> Any:
        return self._store.client

    @property
    def _experiment_id(self) -> str:
        return self._store.experiment_id

    def _overall_metrics(self, run_id: str) -> dict[str, float]:
        recorded: Mapping[str, float] = self._client.get_run(run_id).data.metrics
        return {k.replace("_at_", "@"): v for k, v in sorted(recorded.items()) if "/" not in k}


def _run_key(name: str) -> str:
    """MLflow allows neither ``@`` nor brackets in a name."""
    return re.sub(r"[^\w./ -]", "", name.replace("@", "_at_"))
