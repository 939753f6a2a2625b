"""``perso models``: what is registered, how versions differ, which one serves and since when."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from perso.cli.options import Json, Root
from perso.errors import InputError
from perso.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from perso.registry import Registry

app = typer.Typer(help="Model versions in the registry.", no_args_is_help=True)

Version = Annotated[str, typer.Argument(help="A version of `perso models list`.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for `perso models history`.")]


@app.command("list")
def list_versions(json_output: Json = False, root: Root = None) -> None:
    """Every registered version with its aliases, what the gate said and its test metrics."""
    from dataclasses import asdict

    versions = _registry(root).versions()
    if json_output:
        documents = [asdict(v) | {"folder": str(v.folder)} for v in versions]
        print(json.dumps(documents, indent=1))
        return
    from rich.console import Console

    from perso.cli.model_tables import versions_table

    Console().print(versions_table(versions))


@app.command("show")
def show(version: Version, json_output: Json = False, root: Root = None) -> None:
    """One version: metrics overall and per segment, settings, lineage, gate, report."""
    from perso.cli.model_card import card_of
    from perso.cli.model_tables import card_tables

    card = card_of(_registry(root), version)
    if json_output:
        print(json.dumps(card.to_dict(), indent=1))
        return
    from rich.console import Console

    Console().print(card_tables(card))


@app.command("compare")
def compare(
    first: Version,
    second: Version,
    metric: Annotated[
        str | None,
        typer.Option(help="What to compare per segment. [ndcg of the longest list]"),
    ] = None,
    json_output: Json = False,
    root: Root = None,
) -> None:
    """Two versions side by side, each on its own test period."""
    from perso.cli.model_card import card_of, compare_cards
    from perso.cli.model_tables import comparison_tables

    registry = _registry(root)
    comparison = compare_cards(card_of(registry, first), card_of(registry, second), metric=metric)
    if json_output:
        print(json.dumps(comparison.to_dict(), indent=1))
        return
    from rich.console import Console

    Console().print(comparison_tables(comparison))


@app.command("promote")
def promote(
    version: Version,
    why: Why,
    force: Annotated[
        bool, typer.Option("--force", help="Promote although the gate says no.")
    ] = False,
    json_output: Json = False,
    root: Root = None,
) -> None:
    """Make a version the champion; the service follows within seconds.

    A version that the gate refused takes --force, and the history keeps that it did.
    """
    from perso.cli.model_card import verdict_of

    registry = _registry(root)
    verdict = verdict_of(registry.version(version))
    is_refused = verdict is not None and not verdict.promoted
    if is_refused and not force:
        assert verdict is not None
        raise InputError(
            f"the gate refused version {version} ({verdict.reason}); "
            "give --force to promote it all the same"
        )
    before = registry.champion()
    registry.promote(version, why=_reason(why), is_forced=is_refused)
    if before is not None and before.version == version and not json_output:
        print(f"version {version} is the champion already")
        return
    _print_move(registry, json_output)


@app.command("rollback")
def rollback(why: Why, json_output: Json = False, root: Root = None) -> None:
    """Make the previous champion the champion again."""
    registry = _registry(root)
    registry.rollback(why=_reason(why))
    _print_move(registry, json_output)


@app.command("history")
def history(json_output: Json = False, root: Root = None) -> None:
    """Who promoted and rolled back what, when and why, newest first."""
    moves = _registry(root).history()
    if json_output:
        print(json.dumps([move.to_dict() for move in moves], indent=1))
        return
    from rich.console import Console

    from perso.cli.model_tables import history_table

    Console().print(history_table(moves))


def _registry(root: "Path | None") -> "Registry":
    from perso.registry import Registry

    return Registry(Workspace.open(root))


def _reason(why: str) -> str:
    if not why.strip():
        raise InputError("--why is empty; say in a few words why the champion changes")
    return why.strip()


def _print_move(registry: "Registry", json_output: bool) -> None:
    move = registry.history()[0]
    if json_output:
        print(json.dumps(move.to_dict(), indent=1))
    else:
        was = f", after version {move.from_version}" if move.from_version else ""
        print(f"version {move.to_version} is the champion{was}")
