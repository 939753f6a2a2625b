"""`perso tune`: a search from its plan to its report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from perso.cli.options import (
    Address,
    Catalog,
    FixedSplitFile,
    InputPath,
    Json,
    Root,
    Source,
)
from perso.errors import InputError
from perso.workspace import Workspace


def tune(
    spec: Annotated[Path, typer.Option(help="YAML job file; its search section is tried.")],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the trials and about what they take; nothing runs."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the newest unfinished search of this spec and these data: no finished "
            "trial runs again, running ones go on from their checkpoints.",
        ),
    ] = False,
    source: Source = None,
    path: InputPath = None,
    catalog: Catalog = None,
    fixed_split: FixedSplitFile = None,
    json_output: Json = False,
    root: Root = None,
    address: Address = None,
) -> None:
    """Search models by a job file, test the winner, promote it if it passes the gate.

    Trials run on Ray, runs and versions go to MLflow; the report is an HTML page, and Markdown
    for a pull request. Ctrl-C keeps what is done, and --resume goes on.

    With --fixed-split the table replaces the prepared data: validation is cut from its train rows,
    the winner is tested once on its test rows, and nothing is registered or promoted.
    """
    from tune_jobs.spec import load_job

    job = load_job(spec, source=source, path=path, catalog=catalog)
    workspace = Workspace.open(root)
    if dry_run:
        if fixed_split is not None or json_output or resume:
            raise InputError(
                "--dry-run prints a plan: leave --fixed-split, --json and --resume out"
            )
        from tune_jobs.plan import plan
        from tune_jobs.report import print_plan

        print_plan(job.search, *plan(job, workspace))
        return
    from perso.distributed.cluster import connect
    from tune_jobs.report import print_fixed_report, print_report

    if fixed_split is None:
        if json_output:
            raise InputError("--json tells a search on --fixed-split; without one, see MLflow")
        from tune_jobs.grid_search import run

        connect(address)
        print_report(run(job, workspace, resume=resume))
        return
    from perso.data.fixed_split import read_fixed_split
    from perso.distributed.fixed_search import search_fixed_split

    split = read_fixed_split(fixed_split)
    connect(address)
    result = search_fixed_split(job.search, split, workspace, resume=resume)
    if json_output:
        print(json.dumps(result.to_dict(), indent=1))
    else:
        print_fixed_report(result)
