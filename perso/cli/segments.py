"""``perso segments``: compute, explain and show customer segments."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from perso.cli.options import Address, Json, Root, Spec, in_utc, weeks
from perso.errors import InputError
from perso.workspace import Workspace

app = typer.Typer(help="Customer segments.", no_args_is_help=True)


@app.command("run")
def run(
    as_of: Annotated[
        datetime | None,
        typer.Option(help="Count events before this instant (UTC). [the end of the dataset]"),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Weeks that habits are counted over, such as 26w.")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(help="Backfill: one instant every so many weeks, such as 1w, up to --as-of."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="First instant of a backfill (UTC). [one step into the dataset]"),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="A nightly run: rows count as known from now on. "
            "[a replay: from their own instant, as a run at that instant would have had it]",
        ),
    ] = False,
    sync: Annotated[bool, typer.Option(help="Bring the newest rows online.")] = True,
    spec: Spec = None,
    root: Root = None,
    address: Address = None,
) -> None:
    """Compute every customer's scores, segment and cluster, and load them into the feature store.

    A later run follows on from the instants before it, so that clusters keep their names.
    """
    from datetime import UTC, timedelta

    from perso.distributed.cluster import connect
    from perso.distributed.interactions import latest
    from perso.segments.history import as_of_steps
    from tune_jobs.segment import run as run_job
    from tune_jobs.spec import load_job

    segments = load_job(spec).segments
    if window is not None:
        measures = replace(segments.measures, window_weeks=weeks(window))
        segments = replace(segments, measures=measures)
    if since is not None and step is None:
        raise InputError("--since is the beginning of a backfill; give --step too, such as 1w")
    workspace = Workspace.open(root)
    data = latest(workspace)
    last = in_utc(as_of) if as_of else data.split_end("test")
    as_ofs = [last]
    if step is not None:
        segments = replace(segments, step_weeks=weeks(step))
        first_hour = datetime.fromisoformat(data.manifest["time_range"]["first_hour"])
        first = in_utc(since) if since else first_hour + timedelta(weeks=segments.step_weeks)
        if first > last:
            raise InputError(f"a backfill from {first} to {last} has no instant; move one of them")
        as_ofs = as_of_steps(first, last, step_weeks=segments.step_weeks)
    created = datetime.now(UTC) if live else None
    if created is not None and created < last:
        raise InputError(f"a live run as of {last}, which is not over; give an earlier --as-of")
    connect(address)
    newest = run_job(segments, data, workspace, as_ofs=as_ofs, created=created, sync=sync)[-1]
    for group in newest.segments:
        print(f"{group.num_users:>9}  {group.label}")


@app.command("describe")
def describe(
    view: Annotated[str | None, typer.Option(help="One feature view. [all]")] = None,
    json_output: Json = False,
) -> None:
    """The dictionary of features: name, type, unit, window, what a null means, who owns it."""
    from rich.console import Console
    from rich.table import Table

    from perso.dictionary import VIEWS
    from perso.dictionary import describe as rows_of

    if view is not None and view not in VIEWS:
        raise InputError(f"no feature view {view!r}; there are: {', '.join(VIEWS)}")
    views = list(VIEWS.values()) if view is None else [VIEWS[view]]
    if json_output:
        print(json.dumps(rows_of(views), indent=1))
        return
    console = Console()
    for one in views:
        title = f"{one.name} ({one.entity}): {one.description}"
        table = Table(title=title, title_justify="left")
        table.add_column("name", no_wrap=True)
        for heading in ("unit", "window", "null means", "owner", "what"):
            table.add_column(heading)
        for row in rows_of([one]):
            table.add_row(
                *(row[c] for c in ("name", "unit", "window", "null", "owner", "description"))
            )
        console.print(table)


@app.command("report")
def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("segments.html"),
    root: Root = None,
) -> None:
    """Write one self-contained HTML page: sizes, RFM map, clusters, who moved, what changed."""
    from tune_jobs.segment_report import write_report

    write_report(Workspace.open(root), out)
    print(out)
