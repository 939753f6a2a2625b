"""The command line. Heavy libraries are imported inside commands, so that ``--help`` is instant."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from perso import __version__
from perso.cli import features, models, recommend, segments, tune
from perso.cli.options import (
    Address,
    Catalog,
    InputPath,
    Json,
    Root,
    Source,
    Spec,
)
from perso.errors import InputError, PersoError
from perso.workspace import Workspace

app = typer.Typer(
    help="A shop's events in, personal recommendations out: prepare, segment, tune, serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
events_app = typer.Typer(help="The event log of the service.", no_args_is_help=True)
app.command()(recommend.recommend)
app.add_typer(segments.app, name="segments")
app.add_typer(features.app, name="features")
app.add_typer(models.app, name="models")
app.add_typer(events_app, name="events")


def main() -> None:
    """Entry point: a user's mistake is one sentence on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "ray", "alembic", "mlflow", "feast", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except PersoError as error:
        print(f"perso: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def prepare(
    source: Source = None,
    path: InputPath = None,
    catalog: Catalog = None,
    spec: Spec = None,
    root: Root = None,
    address: Address = None,
) -> None:
    """Turn events into interactions: read, check, clean, weight, split by time."""
    from tune_jobs.spec import load_job

    job = load_job(spec, source=source, path=path, catalog=catalog)
    from perso.distributed.cluster import connect
    from perso.distributed.interactions import prepare as run

    connect(address)
    print(run(job.prepare, Workspace.open(root)).folder)


app.command()(tune.tune)


@app.command()
def evaluate(
    fixed_split: Annotated[
        Path,
        typer.Option(
            help="Parquet or CSV table: user, item, split (train or test), and optionally rating, "
            "timestamp, context_*, user_*, item_*."
        ),
    ],
    spec: Annotated[Path, typer.Option(help="YAML job file; its model section is trained.")],
    json_output: Json = False,
) -> None:
    """Train one model on a table's train rows and test it on its test rows; needs no cluster."""
    from tune_jobs.spec import load_job

    job = load_job(spec)
    from tune_jobs.evaluate import run
    from tune_jobs.report import print_evaluation

    try:
        result = run(job.model, job.evaluate, fixed_split)
    except ValueError as error:  # the family cannot learn from this table
        raise InputError(f"{fixed_split}: {error}") from error
    if json_output:
        print(json.dumps(result, indent=1))
    else:
        print_evaluation(result)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    strategies: Annotated[
        Path | None,
        typer.Option(help="YAML file of segment rules, such as serve_app/strategies.yaml. [none]"),
    ] = None,
    root: Root = None,
    address: Address = None,
) -> None:
    """Serve the champion over HTTP until interrupted."""
    from perso.distributed.cluster import connect
    from serve_app.deploy import deploy, wait_until_interrupted

    connect(address)
    url = deploy(Workspace.open(root), host=host, port=port, strategies=strategies)
    print(f"serving on {url} (interactive documentation: {url}/docs)")
    wait_until_interrupted()


@app.command()
def demo(
    source: Source = None,
    path: InputPath = None,
    spec: Spec = None,
    once: Annotated[bool, typer.Option("--once", help="End after the clicks.")] = False,
    port: Annotated[int, typer.Option(help="Port of the service.")] = 8000,
    root: Root = None,
) -> None:
    """The whole loop: events, segments, tuned model, service, and a list that follows clicks."""
    from perso.demo import run_demo
    from tune_jobs.spec import load_job

    job = load_job(spec or _packaged_spec("quick.yaml"), source=source, path=path)
    run_demo(job, Workspace.open(root), port=port, keep_serving=not once)


@events_app.command("export")
def events_export(
    out: Annotated[Path, typer.Argument(help="JSON Lines file to write.")],
    root: Root = None,
) -> None:
    """Write every acknowledged event as JSON Lines that `perso prepare --source events` reads."""
    from perso.stream.event_log import EventLog
    from perso.stream.export import export_events

    workspace = Workspace.open(root)
    if not workspace.event_log.exists():
        raise InputError(f"no event log in {workspace.root}; run `perso serve` and post events")
    print(f"{export_events(EventLog(workspace.event_log), out)} events in {out}")


def _packaged_spec(name: str) -> Path:
    """A spec that comes with ``tune_jobs``."""
    from importlib.resources import files

    return Path(os.fspath(files("tune_jobs") / "specs" / name))  # type: ignore[call-overload]
