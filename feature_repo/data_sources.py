"""Where feature rows lie: Parquet that perso writes, one folder per as-of instant."""

import os
from pathlib import Path

from entities import OWNER
from feast import FileSource, PushSource

# Feast resolves relative paths in some places and not in others; an absolute one works in all.
_ROOT = Path(os.environ.get("PERSO_ROOT") or Path(__file__).resolve().parents[1] / ".perso")

user_rfm_source = FileSource(
    name="user_rfm_source",
    path=f"{_ROOT.expanduser().absolute()}/features/user_rfm/*/*.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    description="RFM rows as of an instant; an event at or after it is never counted.",
    owner=OWNER,
    tags={"writer": "perso"},
)

user_rfm_push = PushSource(
    name="user_rfm_push",
    batch_source=user_rfm_source,
    description="RFM rows that go online at once; write them to the files as well.",
    owner=OWNER,
    tags={"writer": "perso"},
)
