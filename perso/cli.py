"""The command line. Heavy libraries are imported inside commands, so that ``--help`` is instant."""

import json
import logging
import os
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perso import __version__
from perso.errors import InputError, PersoError
from perso.workspace import Workspace

if TYPE_CHECKING:
    from tune_jobs.spec import JobSpec

app = typer.Typer(
    help="A shop's events in, personal recommendations out: prepare, segment, tune, serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
segments_app = typer.Typer(help="Customer segments.", no_args_is_help=True)
models_app = typer.Typer(help="Model versions in the registry.", no_args_is_help=True)
events_app = typer.Typer(help="The event log of the service.", no_args_is_help=True)
app.add_typer(segments_app, name="segments")
app.add_typer(models_app, name="models")
app.add_typer(events_app, name="events")

Root = Annotated[
    Path | None,
    typer.Option(help="Folder of datasets, features, models and events. [$PERSO_ROOT, or .perso]"),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to use. [$RAY_ADDRESS, or a private one on this machine]"),
]
Spec = Annotated[
    Path | None,
    typer.Option(help="YAML job file: prepare, segments, search, model, evaluate."),
]
FixedSplitFile = Annotated[
    Path | None,
    typer.Option(help="Table that says which rows are train and test, as in `perso evaluate`."),
]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Source = Annotated[
    str | None,
    typer.Option(help="Layout of the input: synthetic, events, online-retail or movielens."),
]
InputPath = Annotated[str | None, typer.Option(help="Input file, folder or URI.")]
Catalog = Annotated[str | None, typer.Option(help="Catalogue file, where the source brings none.")]


def main() -> None:
    """Entry point: a user's mistake is one sentence on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "ray", "alembic", "mlflow", "feast"):
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
    job = _job(spec, source=source, path=path, catalog=catalog)
    from perso.distributed.cluster import connect
    from perso.distributed.interactions import prepare as run

    connect(address)
    print(run(job.prepare, Workspace.open(root)).folder)


@segments_app.command("run")
def segments_run(
    as_of: Annotated[
        datetime | None,
        typer.Option(help="Count events before this instant (UTC). [the end of the dataset]"),
    ] = None,
    spec: Spec = None,
    root: Root = None,
    address: Address = None,
) -> None:
    """Compute every customer's segment and load it into the feature store."""
    from datetime import UTC

    from perso.distributed.cluster import connect
    from perso.distributed.interactions import latest
    from tune_jobs.segment import run

    job = _job(spec)
    workspace = Workspace.open(root)
    data = latest(workspace)
    connect(address)
    instant = as_of.replace(tzinfo=UTC) if as_of else data.split_end("test")
    run(job.segments, data, workspace, as_ofs=[instant])


@app.command()
def tune(
    spec: Annotated[Path, typer.Option(help="YAML job file; its search section is tried.")],
    fixed_split: FixedSplitFile = None,
    json_output: Json = False,
    root: Root = None,
    address: Address = None,
) -> None:
    """Search the grids of a job file, test the winner, promote it if it beats popularity.

    With --fixed-split the table replaces the prepared data: validation is cut from its train rows,
    the winner is tested once on its test rows, and nothing is registered or promoted.
    """
    job = _job(spec)
    from perso.distributed.cluster import connect
    from tune_jobs.report import print_fixed_report, print_report

    if fixed_split is None:
        if json_output:
            raise InputError("--json tells a search on --fixed-split; without one, see MLflow")
        from tune_jobs.grid_search import run

        connect(address)
        print_report(run(job, Workspace.open(root)))
        return
    from perso.data.fixed_split import read_fixed_split
    from perso.distributed.fixed_search import search_fixed_split

    split = read_fixed_split(fixed_split)
    connect(address)
    result = search_fixed_split(job.search, split, Workspace.open(root))
    if json_output:
        print(json.dumps(result.to_dict(), indent=1))
    else:
        print_fixed_report(result)


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
    job = _job(spec)
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
    root: Root = None,
    address: Address = None,
) -> None:
    """Serve the champion over HTTP until interrupted."""
    from perso.distributed.cluster import connect
    from serve_app.deploy import deploy, wait_until_interrupted

    connect(address)
    url = deploy(Workspace.open(root), host=host, port=port)
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

    job = _job(spec or _packaged_spec("quick.yaml"), source=source, path=path)
    run_demo(job, Workspace.open(root), port=port, keep_serving=not once)


@models_app.command("list")
def models_list(root: Root = None) -> None:
    """Every registered version with its aliases and its test metrics."""
    from rich.console import Console
    from rich.table import Table

    from perso.registry import Registry

    table = Table("version", "aliases", "metrics")
    for version in Registry(Workspace.open(root)).versions():
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in version.metrics.items())
        table.add_row(version.version, ", ".join(version.aliases), metrics)
    Console().print(table)


@models_app.command("promote")
def models_promote(version: str, root: Root = None) -> None:
    """Make a version the champion; the service follows within seconds."""
    from perso.registry import Registry

    Registry(Workspace.open(root)).promote(version)
    print(f"version {version} is the champion")


@models_app.command("rollback")
def models_rollback(root: Root = None) -> None:
    """Make the previous champion the champion again."""
    from perso.registry import Registry

    print(f"version {Registry(Workspace.open(root)).rollback().version} is the champion")


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


def _job(
    spec: Path | None,
    *,
    source: str | None = None,
    path: str | None = None,
    catalog: str | None = None,
) -> "JobSpec":
    """The job of a file (or the defaults) with the input that the flags name."""
    from perso.spec import load_spec, parse_spec, spec_to_dict
    from tune_jobs.spec import JobSpec

    job = load_spec(JobSpec, spec) if spec else JobSpec()
    given = {"source": source, "path": path, "catalog": catalog}
    changes = {name: value for name, value in given.items() if value is not None}
    if path and source is None and job.prepare.source == "synthetic":
        changes["source"] = "events"
    if not changes:
        return job
    merged = spec_to_dict(job.prepare) | changes
    return replace(job, prepare=parse_spec(type(job.prepare), merged, origin="command line"))


def _packaged_spec(name: str) -> Path:
    """A spec that comes with ``tune_jobs``."""
    from importlib.resources import files

    return Path(os.fspath(files("tune_jobs") / "specs" / name))  # type: ignore[call-overload]
