"""Where feature rows come from: Parquet that perso writes, and events that the service pushes."""

import os
from pathlib import Path

from feast import Field, FileSource, PushSource, RequestSource
from feast.types import UnixTimestamp

from perso.dictionary import CREATED, EVENT_TIMESTAMP, OWNER, USER_RECENT_EVENTS, View

# Feast resolves relative paths in some places and not in others; an absolute one works in all.
_ROOT = Path(os.environ.get("PERSO_ROOT") or Path(__file__).resolve().parents[1] / ".perso")


def rows_of(view: View) -> FileSource:
    """The rows that perso writes for a view."""
    return FileSource(
        name=f"{view.name}_rows",
        path=f"{_ROOT.expanduser().absolute()}/features/rows/as_of=*/{view.name}/*.parquet",
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED,
        description=f"Rows of {view.name}, one folder per as-of instant.",
        owner=OWNER,
        tags={"writer": "perso"},
    )


user_recent_events_push = PushSource(
    name="user_recent_events_push",
    batch_source=rows_of(USER_RECENT_EVENTS),
    description="Events as they come in, online at once, between two nightly runs.",
    owner=OWNER,
    tags={"writer": "perso"},
)

request_time = RequestSource(
    name="request_time",
    schema=[Field(name="asked_at", dtype=UnixTimestamp, description="The moment of the request.")],
    description="What only the request knows.",
    owner=OWNER,
    tags={"writer": "reader"},
)
