"""Deploying the application from its config file onto the connected Ray cluster."""

import logging
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from perso.errors import ClusterError, InputError
from perso.workspace import Workspace
from serve_app.app import APP_NAME, BuildArgs, build

CONFIG_FILE: Final = Path(__file__).with_name("config.yaml")

logger = logging.getLogger(__name__)

_started_serve = threading.Event()
"""Set while this process runs a Serve instance of its own."""


def load_config(path: Path = CONFIG_FILE) -> ServeDeploySchema:
    """The checked Serve config file.

    Raises:
        InputError: If it cannot be read or is no Serve config.
    """
    try:
        return ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is no Serve config: {error}") from error


def deploy(
    workspace: Workspace,
    *,
    host: str | None = None,
    port: int | None = None,
    strategies: Path | None = None,
    timeout_s: float = 120,
) -> str:
    """Start the service, or replace the running one, and wait until it answers.

    A process must be connected to Ray before. The service goes on in the background until
    ``stop`` or the end of the cluster.

    Args:
        workspace: Whose champion and event log are served.
        host: Address to listen on; default: the config file's.
        port: Port to listen on; default: the config file's.
        strategies: File of segment -> strategy rules; default: the config file's, which names none.
        timeout_s: How long to wait for the first answer over HTTP.

    Returns:
        The base URL.

    Raises:
        InputError: If the port is taken by another process, or a rule is wrong.
        ClusterError: If the service does not come up.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    config = load_config()
    application = config.applications[0]
    host, port = host or config.http_options.host, port or config.http_options.port
    http_options = config.http_options.model_dump() | {"host": host, "port": port}
    given = {"root": str(workspace.root)}
    if strategies is not None:
        given["strategies"] = str(strategies)
    # Before anything starts: a wrong rule is told at once.
    target = build(
        BuildArgs(**{**application.args, **given}),
        options={d.name: _options(d) for d in application.deployments},
    )
    _start_proxy(HTTPOptions(**http_options))
    try:
        serve.run(
            target,
            name=APP_NAME,
            route_prefix=application.route_prefix,
            logging_config=application.logging_config,
        )
    except (RuntimeError, RayServeException) as error:
        raise ClusterError(f"the service did not start: {error}") from error
    url = f"http://{host}:{port}"
    _wait_for(f"{url}/healthz", timeout_s)
    logger.info("service: %s", url)
    return url


def require_free_port(host: str, port: int) -> None:
    """Return if this machine could listen there now.

    Raises:
        InputError: If another process does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port}: {error.strerror}; give another --host or --port"
            ) from error


def stop() -> None:
    """End the service; the cluster stays, and so does a Serve instance that others started."""
    if _started_serve.is_set():
        serve.shutdown()
        _started_serve.clear()
    elif APP_NAME in serve.status().applications:
        serve.delete(APP_NAME)


def wait_until_interrupted() -> None:
    """Return after Ctrl-C or SIGTERM, once requests in flight are answered."""
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    while not interrupted.wait(1.0):  # a bare wait would keep Python from running the handler
        pass
    stop()


def _options(deployment: DeploymentSchema) -> dict[str, Any]:
    options: dict[str, Any] = deployment.model_dump(exclude_unset=True, exclude={"name"})
    return options


def _start_proxy(options: HTTPOptions) -> None:
    """Listen as told; a Serve instance that already runs keeps its address."""
    if _is_serving():
        return
    # Serve would retry a taken port for a long while; this says so at once.
    require_free_port(options.host, options.port)
    serve.start(http_options=options)
    _started_serve.set()


def _is_serving() -> bool:
    return bool(serve.status().proxies)


def _wait_for(url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if httpx.get(url, timeout=5.0, trust_env=False).status_code == httpx.codes.OK:
                return
            reason = "it answers, but not that it is well"
        except httpx.HTTPError as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"the service does not answer at {url}: {reason}; a Serve instance that already "
                "runs on this cluster keeps its own address: use that or stop it first"
            )
        time.sleep(0.1)
