"""``perso recommend``: every user's list into files, for e-mail and cold caches."""

from pathlib import Path
from typing import Annotated

import typer

from perso.cli.options import Address, Root
from perso.errors import InputError
from perso.workspace import Workspace


def recommend(
    out: Annotated[
        str, typer.Option(help="Folder or URI (s3://, gs://) that the Parquet files go into.")
    ],
    all_users: Annotated[
        bool, typer.Option("--all-users", help="Everybody the model was trained on.")
    ] = False,
    users: Annotated[
        str | None, typer.Option(help="Text file of user ids, one a line, instead of all users.")
    ] = None,
    k: Annotated[int, typer.Option(help="Places of a list.")] = 50,
    part_size: Annotated[
        int, typer.Option(help="Users of one file, whatever the number of workers.")
    ] = 50_000,
    strategies: Annotated[
        Path | None,
        typer.Option(help="YAML file of segment rules, as for `perso serve`. [none]"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace lists of another version or k.")
    ] = False,
    root: Root = None,
    address: Address = None,
) -> None:
    """Write the champion's lists: what the service would answer to each user, segment included.

    A run that was killed is finished by the same command; _SUCCESS says that all files are there.
    """
    if all_users == (users is not None):
        raise InputError("say whom the lists are for: either --all-users or --users FILE")
    from perso.distributed.cluster import connect
    from perso.online.strategies import StrategySpec
    from perso.spec import load_spec
    from tune_jobs.recommend import run

    rules = load_spec(StrategySpec, strategies) if strategies else None
    connect(address)
    print(
        run(
            Workspace.open(root),
            out=out,
            users=users,
            k=k,
            part_size=part_size,
            strategies=rules,
            overwrite=overwrite,
        )
    )
