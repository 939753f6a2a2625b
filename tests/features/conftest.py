from datetime import UTC, datetime

import pyarrow as pa
import pytest

from perso.features.store import open_features
from perso.schema import USER_RFM_SCHEMA


@pytest.fixture
def features(workspace):
    """An applied feature store with no rows."""
    store = open_features(workspace)
    store.apply()
    return store


@pytest.fixture
def rfm_rows():
    """USER_RFM_SCHEMA rows from user_id=segment, as of one instant."""

    def make(as_of, *, created=None, **segments):
        rows = [
            {
                "user_id": user_id,
                "event_timestamp": as_of,
                "created": created or as_of,
                "recency_days": None if segment == "browsers" else 1.5,
                "frequency": 2,
                "monetary": 9.75,
                "recency_score": 5,
                "frequency_score": 4,
                "monetary_score": 3,
                "segment": segment,
            }
            for user_id, segment in sorted(segments.items())
        ]
        return pa.Table.from_pylist(rows, schema=USER_RFM_SCHEMA)

    return make


@pytest.fixture
def day():
    """The days of one month as aware instants."""
    return lambda number: datetime(2026, 3, number, tzinfo=UTC)
