"""The whole loop in one command, told step by step on a terminal.

It calls what the other commands call; it decides only which shopper to show and what to print.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from perso.data.prepared import PreparedData
from perso.workspace import Workspace

if TYPE_CHECKING:
    from tune_jobs.spec import JobSpec

HOST = "127.0.0.1"
K = 10
"""Length of the shown lists."""


@dataclass(frozen=True, kw_only=True)
class Click:
    """One thing the shown shopper does."""

    event_type: str
    item_id: str
    title: str


def run_demo(job: "JobSpec", workspace: Workspace, *, port: int, keep_serving: bool) -> None:
    """Run every stage, show a list move, and leave the service running if asked."""
    from perso.distributed.cluster import connect
    from perso.distributed.interactions import latest
    from serve_app.deploy import deploy, require_free_port, wait_until_interrupted
    from tune_jobs.grid_search import run
    from tune_jobs.report import print_report

    console = Console()
    require_free_port(HOST, port)  # now, not after minutes of work
    with _step(console, "starting Ray"):
        connect()
    with _step(console, "events, segments, features, model search"):
        result = run(job, workspace)
    print_report(result, console=console)
    if not result.verdict.promoted:
        console.print("There is nothing new to serve; a larger grid or more data may help.")
        return
    with _step(console, "starting the service"):
        url = deploy(workspace, host=HOST, port=port)
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        user_id = _typical_shopper(latest(workspace))
        _show_clicks(client, console, user_id)
    _print_places(console, url, user_id, workspace.root)
    if keep_serving:
        console.print("The service is running; Ctrl-C ends it.")
        wait_until_interrupted()


def _show_clicks(client: httpx.Client, console: Console, user_id: str) -> None:
    """One shopper's list, three clicks on something else, and the list again."""
    before = _ask(client, user_id)
    clicks = _clicks_beside(client, before["items"])
    for click in clicks:
        event = {
            "event_id": uuid.uuid4().hex,
            "event_type": click.event_type,
            "user_id": user_id,
            "item_id": click.item_id,
            "request_id": before["request_id"],
        }
        client.post("/v1/events", json=event).raise_for_status()
    after = _ask(client, user_id)
    console.print(
        f"\nShopper [bold]{user_id}[/] (segment {before['segment'] or 'unknown'}), "
        f"model version {before['model_version']}, answered by rung '{before['rung']}'"
    )
    for click in clicks:
        console.print(f"  {click.event_type:<12} {click.title}")
    console.print(_side_by_side(before["items"], after["items"]))


def _typical_shopper(data: PreparedData) -> str:
    """A shopper with a middling history: the median of those with at least ten items."""
    pairs = data.interactions("train", "validation")
    items_per_user = np.bincount(pairs.user_indices, minlength=len(data.users))
    active = np.flatnonzero(items_per_user >= min(10, items_per_user.max()))
    by_history = active[np.argsort(items_per_user[active], kind="stable")]
    return data.users.id_of(int(by_history[len(by_history) // 2]))


def _clicks_beside(client: httpx.Client, shown: list[dict[str, Any]]) -> list[Click]:
    """Three clicks on one theme that the list shows little of: its last item and two like it."""
    first = shown[-1]
    similar = client.get(f"/v1/items/{first['item_id']}/similar", params={"k": 2})
    similar.raise_for_status()
    items = [first, *similar.json()["items"]]
    types = ["view_item", "view_item", "add_to_cart"]
    return [
        Click(event_type=event_type, item_id=item["item_id"], title=_title(item))
        for event_type, item in zip(types, items, strict=False)
    ]


def _ask(client: httpx.Client, user_id: str) -> dict[str, Any]:
    answer = client.post("/v1/recommendations", json={"user_id": user_id, "k": K})
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def _side_by_side(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Table:
    """Both lists, with what each item of the second one did."""
    old_rank = {item["item_id"]: rank for rank, item in enumerate(before)}
    table = Table("", "before the clicks", "after the clicks", "moved", "source", box=SIMPLE_HEAD)
    for rank, (old, new) in enumerate(zip_longest(before, after)):
        after_cells = ("", "", "")
        if new is not None:
            after_cells = (_title(new), _move(old_rank.get(new["item_id"]), rank), new["source"])
        table.add_row(str(rank + 1), _title(old) if old else "", *after_cells)
    return table


def _move(old_rank: int | None, rank: int) -> str:
    if old_rank is None:
        return "[green]new[/]"
    if old_rank == rank:
        return "="
    return f"[cyan]up {old_rank - rank}[/]" if old_rank > rank else f"down {rank - old_rank}"


def _title(item: dict[str, Any]) -> str:
    title = str(item["title"] or item["item_id"])
    return f"{title} ({', '.join(item['categories'])})" if item["categories"] else title


def _print_places(console: Console, url: str, user_id: str, root: Path) -> None:
    console.print(
        f"""
Try it:
  curl -s {url}/v1/model
  curl -s '{url}/v1/users/{quote(user_id, safe="")}/recommendations?k=5'
  curl -s {url}/v1/users/{quote(user_id, safe="")}/segments
  documentation   {url}/docs
  metrics         {url}/metrics
Everything is in {root}: datasets, features, models, events. `perso serve` serves it again.""",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    """Announce a stage and say how long it took."""
    started = perf_counter()
    console.print(f"[bold]>[/] {title} …")
    yield
    console.print(f"[bold]>[/] {title}: {perf_counter() - started:.1f} s")
