"""``perso features``: bring features online, join them to the past, prove that both agree."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from perso.cli.options import Json, Root
from perso.errors import InputError
from perso.workspace import Workspace

app = typer.Typer(help="The feature store that other teams read.", no_args_is_help=True)


@app.command("sync")
def sync(json_output: Json = False, root: Root = None) -> None:
    """Bring the newest rows online; run it nightly, a repeat changes nothing.

    A sync that fails or is killed leaves the values of the last one.
    """
    from perso.features.store import open_features

    features = open_features(Workspace.open(root))
    features.apply()
    report = features.sync()
    if json_output:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(report)


@app.command("historical")
def historical(
    rows: Annotated[
        Path, typer.Option(help="Parquet file with user_id (or item_id) and event_timestamp.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    service: Annotated[str, typer.Option(help="Feature service to join.")] = "recommender_v1",
    root: Root = None,
) -> None:
    """Join rows with the features that were known at each row's own time; nothing leaks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from perso.features.store import open_features

    try:
        asked = pq.read_table(rows, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {rows}: {error}") from error
    joined = open_features(Workspace.open(root)).join_historical(asked, service=service)
    pq.write_table(joined, out)
    print(f"{len(joined)} rows with {joined.num_columns - asked.num_columns} features in {out}")


@app.command("check")
def check(
    sample: Annotated[int, typer.Option(help="Customers to compare.")] = 200,
    seed: Annotated[int, typer.Option(help="Which ones are drawn.")] = 0,
    url: Annotated[
        str | None, typer.Option(help="Also compare what a running service answers.")
    ] = None,
    json_output: Json = False,
    root: Root = None,
) -> None:
    """Compare online with offline values field by field; exit code 1 where they differ."""
    from perso.features.skew import check_skew
    from perso.features.store import open_features

    features = open_features(Workspace.open(root))
    report = check_skew(features, sample=sample, seed=seed, url=url)
    if json_output:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(report)
    if not report.is_clean:
        raise typer.Exit(1)


@app.command("freshness")
def freshness(root: Root = None) -> None:
    """How old the online values are."""
    from perso.features.store import open_features

    print(open_features(Workspace.open(root)).freshness(datetime.now(UTC)))
