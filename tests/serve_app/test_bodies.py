"""Events that enter by HTTP obey the rules of events that enter by file."""

from dataclasses import asdict
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from perso.data.events import check_event
from perso.schema import EVENT_TYPES
from serve_app.bodies import EventBody

NOW = datetime(2026, 3, 1, tzinfo=UTC)
texts = st.text(max_size=4)
maybe = st.none()

bodies = st.fixed_dictionaries(
    {
        "event_id": texts,
        "event_type": st.sampled_from([*EVENT_TYPES, "custom", ""]),
        "item_id": texts,
    },
    optional={
        "user_id": maybe | texts,
        "session_id": maybe | texts,
        "timestamp": maybe | st.datetimes(timezones=st.just(UTC)),
        "value": maybe | st.floats(),
        "quantity": maybe | st.integers(-1, 3) | st.integers(2**31, 2**70),
        "currency": maybe | st.sampled_from(["EUR", "eur", ""]),
        "price": maybe | st.floats(),
        "consent": maybe | st.booleans(),
        "item_name": maybe | texts,
    },
)


@settings(max_examples=300, deadline=None)
@given(body=bodies)
def test_an_event_that_http_accepts_is_one_that_files_may_hold(body):
    try:
        event = EventBody.model_validate(body).to_event(received_at=NOW)
    except ValidationError:
        return
    assert check_event(asdict(event)) is None
