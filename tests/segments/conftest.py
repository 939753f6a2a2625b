"""Events of a few customers, written by hand."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from perso.schema import CATALOG_SCHEMA, EVENT_SCHEMA

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def as_of():
    return AS_OF


@pytest.fixture
def events_of():
    """EVENT_SCHEMA rows from (user_id, days before AS_OF, more columns); purchases by default."""

    def make(rows):
        full = [
            {
                "event_id": f"{i:04d}",
                "event_type": "purchase",
                "user_id": user_id,
                "item_id": "x",
                "timestamp": AS_OF - timedelta(days=days_ago),
                **more,
            }
            for i, (user_id, days_ago, more) in enumerate(rows)
        ]
        return pa.Table.from_pylist(full, schema=EVENT_SCHEMA)

    return make


@pytest.fixture
def catalog():
    """Two mugs, a lamp of another brand, and a thing nobody described."""
    cards = [
        {"item_id": "lamp", "categories": ["lamps"], "brand": "Elm", "tags": ["oak", "modern"]},
        {"item_id": "mug", "categories": ["mugs", "gifts"], "brand": "Alder", "tags": ["modern"]},
        {"item_id": "red-mug", "categories": ["mugs"], "brand": "Alder"},
        {"item_id": "x"},
    ]
    return pa.Table.from_pylist(cards, schema=CATALOG_SCHEMA)
