"""What the service counts, and the page that shows it.

Counters live in Ray's metrics: every process of a node reports to the node's agent, so the page
adds up all replicas there, whichever of them answers. The agent shows new values after a report
interval (10 s by default; ``RAY_metrics_report_interval_ms`` shortens it).
"""

from collections.abc import Iterator
from functools import cache
from typing import Final

import httpx
from ray.util.metrics import Counter, Gauge, Histogram

from perso.errors import ClusterError

SHOWN_PREFIXES: Final = ("ray_perso_", "ray_serve_")
_LATENCY_BOUNDARIES_MS: Final = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]


class Telemetry:
    """The metrics of one replica; Ray puts ``ray_`` before their names."""

    def __init__(self) -> None:
        """Declare the metrics; values go nowhere where no Ray cluster is connected."""
        self._requests = Counter(
            "perso_requests_total", "HTTP requests answered.", tag_keys=("route", "status")
        )
        self._latency = Histogram(
            "perso_request_latency_ms",
            "Time in the replica, in milliseconds.",
            boundaries=_LATENCY_BOUNDARIES_MS,
            tag_keys=("route",),
        )
        self._answers = Counter(
            "perso_answers_total", "Lists made, by the best rung that gave an item.", ("rung",)
        )
        self._degraded = Counter(
            "perso_degraded_total", "Answers that did without a part of the service.", ("part",)
        )
        self._feature_reads = Counter(
            "perso_feature_reads_total",
            "Reads of a customer's features, by how they went.",
            ("outcome",),
        )
        self._events = Counter(
            "perso_events_total", "Events received: accepted or duplicate.", ("outcome",)
        )
        self._pushed = Counter(
            "perso_recent_rows_pushed_total", "Customers' recent events sent to the feature store."
        )
        self._failed_pushes = Counter(
            "perso_recent_push_failures_total", "Pushes of recent events that failed."
        )
        self._unknown_items = Counter(
            "perso_events_unknown_item_total", "Events on items that the model does not know."
        )
        self._model_version = Gauge("perso_model_version", "Version number that answers now.")
        self._failed_loads = Counter(
            "perso_model_load_failures_total", "New champions that could not be served."
        )

    def count_request(self, route: str, status: int, latency_ms: float) -> None:
        """One request answered on a route template such as ``/v1/items/{item_id}/similar``."""
        self._requests.inc(1, {"route": route, "status": str(status)})
        self._latency.observe(latency_ms, {"route": route})

    def count_answer(self, rung: str | None) -> None:
        """One list made."""
        self._answers.inc(1, {"rung": rung or "empty"})

    def count_degraded(self, part: str) -> None:
        """One answer that did without the event log or the feature store."""
        self._degraded.inc(1, {"part": part})

    def count_feature_read(self, outcome: str) -> None:
        """One read of a customer's features."""
        self._feature_reads.inc(1, {"outcome": outcome})

    def count_events(self, *, accepted: int, duplicates: int, unknown_items: int) -> None:
        """One append to the event log."""
        for outcome, number in (("accepted", accepted), ("duplicate", duplicates)):
            if number:
                self._events.inc(number, {"outcome": outcome})
        if unknown_items:
            self._unknown_items.inc(unknown_items)

    def count_pushed(self, rows: int) -> None:
        """Recent events of some customers are in the feature store."""
        if rows:
            self._pushed.inc(rows)

    def count_push_failure(self) -> None:
        """Recent events did not reach the feature store; they are tried again."""
        self._failed_pushes.inc(1)

    def set_model_version(self, version: str) -> None:
        """A version begins to answer."""
        self._model_version.set(float(version))

    def count_failed_load(self) -> None:
        """A new champion could not be served; the old one goes on."""
        self._failed_loads.inc(1)


async def read_node_metrics() -> str:
    """The service's series on this node, in Prometheus' text format.

    Raises:
        ClusterError: If the node's agent does not answer.
    """
    try:
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            answer = await client.get(_agent_url())
            answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ClusterError(f"this node's metrics agent does not answer: {error!r}") from error
    return "\n".join([*_shown(answer.text), ""])


def _shown(page: str) -> Iterator[str]:
    for line in page.splitlines():
        name = line.split(" ", 3)[2] if line.startswith("# ") else line
        if name.startswith(SHOWN_PREFIXES):
            yield line


@cache
def _agent_url() -> str:
    import ray

    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    host = node["NodeManagerAddress"]
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{node['MetricsExportPort']}/metrics"
