"""The HTTP surface without a cluster: answers, problems, documents."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from perso.errors import PersoError
from perso.online.live import LiveRecommender
from perso.online.ranking import LADDER
from perso.online.strategies import StrategyRule, StrategySpec
from serve_app.api import make_api
from serve_app.bodies import RecommendationsBody
from serve_app.feature_reader import FeatureReader, FeatureReaderSpec
from serve_app.problems import MEDIA_TYPE, STATUS

pytestmark = pytest.mark.service


def click(event_id="e1", **changes):
    body = {"event_type": "view_item", "session_id": "s", "item_id": "m0"}
    return {"event_id": event_id, **body, **changes}


def ids(answer):
    return [item["item_id"] for item in answer.json()["items"]]


def problem(answer, status):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)
    body = answer.json()
    assert body["status"] == status
    return body


def test_a_click_changes_the_next_list_of_an_anonymous_session(ask, served):
    question = {"session_id": "s", "k": 4}
    before = ask("POST", "/v1/recommendations", json=question)
    assert before.json()["rung"] == "global_popular"
    receipt = ask("POST", "/v1/events", json=click())
    assert (receipt.status_code, receipt.json()["accepted"]) == (202, 1)
    after = ask("POST", "/v1/recommendations", json=question)
    assert after.json()["rung"] == "personal"
    assert after.json()["num_recent_events"] == 1
    assert sorted(ids(after)) == ["m1", "m2", "m3", "m4"] != sorted(ids(before))


def test_an_answer_says_where_it_came_from(ask, served):
    answer = ask("POST", "/v1/recommendations", json={"user_id": "ann", "k": 11}).json()
    assert answer["model_version"] == "7"
    assert answer["segment"] == "loyal"
    assert 3600 <= answer["feature_age_s"] < 3700
    assert answer["rung"] == "personal"
    assert answer["degraded"] == []
    assert {item["source"] for item in answer["items"]} <= set(LADDER)
    assert answer["items"][-1]["source"] != "personal"  # the item without a factor
    other = ask("POST", "/v1/recommendations", json={"user_id": "ann"}).json()
    assert other["request_id"] != answer["request_id"]


def test_the_segment_is_the_first_rung_of_a_user_without_history(ask, served):
    answer = ask("POST", "/v1/recommendations", json={"user_id": "zoe", "k": 3}).json()
    assert answer["rung"] == "segment_popular"
    assert [item["item_id"] for item in answer["items"][:2]] == ["m3", "m1"]


def test_both_ways_of_asking_give_the_same_list(ask, served):
    posted = ask(
        "POST",
        "/v1/recommendations",
        json={
            "user_id": "bob",
            "session_id": "s",
            "k": 4,
            "context": {"device": "mobile", "region": "DE", "daypart": "night"},
            "exclude_seen": False,
            "filter": {
                "categories": ["mugs", "lamps"],
                "price": {"min": 20, "max": 90},
                "in_stock": True,
            },
            "exclude_item_ids": ["l0", "unheard of"],
        },
    )
    got = ask(
        "GET",
        "/v1/users/bob/recommendations?session_id=s&k=4&device=mobile&region=DE&daypart=night"
        "&exclude_seen=false&category=mugs&category=lamps&price_min=20&price_max=90&in_stock=true"
        "&exclude_item_id=l0&exclude_item_id=unheard%20of",
    )
    assert posted.status_code == got.status_code == 200
    without_id = [
        {key: value for key, value in answer.json().items() if key != "request_id"}
        for answer in (posted, got)
    ]
    assert without_id[0] == without_id[1]
    assert ids(got)[:3] == ["l1", "l2", "l3"]


def test_similar_items(ask, served):
    answer = ask("GET", "/v1/items/m0/similar?k=2&exclude_item_id=m1")
    assert ids(answer) == ["m2", "m3"]
    assert answer.json()["model_version"] == "7"
    assert "unheard of" in problem(ask("GET", "/v1/items/unheard of/similar"), 404)["detail"]


def test_items_bought_together(ask, served):
    answer = ask("GET", "/v1/items/m0/bought-together?k=2&exclude_item_id=m2")
    assert ids(answer) == ["l3", "m1"]
    assert [item["source"] for item in answer.json()["items"]] == ["bought_together", "similar"]
    assert (answer.json()["item_id"], answer.json()["model_version"]) == ("m0", "7")
    lost = problem(ask("GET", "/v1/items/unheard of/bought-together"), 404)
    assert "unheard of" in lost["detail"]


def test_events_are_counted_deduplicated_and_echo_their_answer(ask, served, service):
    batch = [
        click("e1"),
        click("e2", event_type="impression", request_id="r1"),
        click("e2", event_type="impression", request_id="r1"),
        click("e3", item_id="brand new", request_id="r2"),
    ]
    assert ask("POST", "/v1/events", json=batch).json() == {
        "accepted": 3,
        "duplicates": 1,
        "unknown_items": 1,
        "request_ids": ["r1", "r2"],
    }
    again = ask("POST", "/v1/events", json=batch[0])
    assert (again.status_code, again.json()["duplicates"]) == (202, 1)
    stored = {logged.event.event_id: logged.event for logged in service.log.read_from()}
    assert {e: event.request_id for e, event in stored.items()} == {
        "e1": None,
        "e2": "r1",
        "e3": "r2",
    }


def test_every_field_of_an_event_is_stored(ask, served, service):
    sent = click(
        user_id="ann",
        timestamp="2026-01-02T03:04:05.678901+02:00",
        value=9.5,
        quantity=2,
        currency="EUR",
        request_id="r",
        context={"device": "mobile", "region": "DE", "campaign": "spring"},
        consent=True,
        price=4.75,
        item_name="Mug",
        item_category="mugs",
    )
    assert ask("POST", "/v1/events", json=sent).status_code == 202
    (logged,) = service.log.read_from()
    event = logged.event
    assert event.timestamp == datetime(2026, 1, 2, 1, 4, 5, 678901, tzinfo=UTC)
    assert (event.device, event.region, event.campaign) == ("mobile", "DE", "spring")
    for name in sent.keys() - {"timestamp", "context"}:
        assert getattr(event, name) == sent[name]


def test_an_event_without_a_time_happened_when_it_was_received(ask, served, service):
    ask("POST", "/v1/events", json=click())
    (logged,) = service.log.read_from()
    assert abs(logged.event.timestamp - logged.received_at) < timedelta(seconds=5)


SOON = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


RECOMMENDATIONS, EVENTS = "/v1/recommendations", "/v1/events"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (RECOMMENDATIONS, {"user_id": "u", "k": 0}, "k"),
        (RECOMMENDATIONS, {"user_id": "u", "k": 201}, "k"),
        (RECOMMENDATIONS, {"user_id": ""}, "user_id"),
        (RECOMMENDATIONS, {}, "user_id"),
        (RECOMMENDATIONS, {"user_id": "u", "usr": 1}, "usr"),
        (RECOMMENDATIONS, {"user_id": "u", "context": {"daypart": "noon"}}, "context.daypart"),
        (RECOMMENDATIONS, {"user_id": "u", "context": {"os": "x"}}, "context.os"),
        (RECOMMENDATIONS, {"user_id": "u", "filter": {"price": {"min": -1}}}, "filter.price.min"),
        (
            RECOMMENDATIONS,
            {"user_id": "u", "filter": {"price": {"min": 2, "max": 1}}},
            "filter.price.min",
        ),
        (RECOMMENDATIONS, {"user_id": "u", "exclude_item_ids": ["a", 3]}, "exclude_item_ids[1]"),
        (RECOMMENDATIONS, [], "body"),
        (EVENTS, click(event_id=None), "event_id"),
        (EVENTS, click(session_id=None), "user_id"),
        (EVENTS, click(timestamp="yesterday"), "timestamp"),
        (EVENTS, click(timestamp="2026-01-01T00:00:00"), "timestamp"),
        (EVENTS, click(timestamp=SOON), "timestamp"),
        (EVENTS, click(timestamp="1900-01-01T00:00:00Z"), "timestamp"),
        (EVENTS, click(timestamp="0001-01-01T00:00:00+14:00"), "timestamp"),
        (EVENTS, click(event_type="rate_item"), "value"),
        (EVENTS, click(quantity=0), "quantity"),
        (EVENTS, click(currency="euro"), "currency"),
        (EVENTS, click(context={"browser": "x"}), "context.browser"),
        (EVENTS, [click(), {"event_id": "e2"}], "[1].item_id"),
        (EVENTS, [], "body"),
        (EVENTS, "click", "body"),
    ],
)
def test_bad_input_is_a_problem_that_names_the_field(ask, served, service, path, body, field):
    found = problem(ask("POST", path, json=body), 422)
    assert field in [error["field"] for error in found["errors"]]
    assert field in found["detail"]
    assert service.log.read_from() == []  # of a batch with one bad event, nothing is taken


def test_bad_queries_are_problems_too(ask, served):
    for query, field in [
        ("k=many", "k"),
        ("price_min=2&price_max=1", "price_min"),
        ("colour=red", "colour"),
    ]:
        for path in (
            "/v1/users/ann/recommendations",
            "/v1/items/m0/similar",
            "/v1/items/m0/bought-together",
        ):
            (error,) = problem(ask("GET", f"{path}?{query}"), 422)["errors"]
            assert error["field"] == field


def test_text_that_is_no_json_is_a_problem(ask, served):
    headers = {"content-type": "application/json"}
    answer = ask("POST", "/v1/recommendations", content="{user", headers=headers)
    assert problem(answer, 422)["errors"][0]["field"] == "body"


def test_more_events_than_a_batch_may_hold_are_refused(ask, served):
    batch = [click(f"e{n}") for n in range(1001)]
    problem(ask("POST", "/v1/events", json=batch), 422)


def test_unknown_paths_and_methods_are_problems(ask, served):
    problem(ask("GET", "/v2"), 404)
    answer = ask("DELETE", "/healthz")
    problem(answer, 405)
    assert answer.headers["allow"] == "GET"


def test_segments_of_a_customer(ask, served):
    found = ask("GET", "/v1/users/ann/segments").json()
    assert (found["user_id"], found["segment"], found["frequency"]) == ("ann", "loyal", 4)
    assert (found["cluster"], found["top_categories"]) == ("c01", ["lamps"])
    assert sum(found["score_contributions"]) == pytest.approx(found["composite_score"])
    assert (3600 <= found["age_s"] < 3700) and found["features"] == "fresh"
    assert "stranger" in problem(ask("GET", "/v1/users/stranger/segments"), 404)["detail"]


def test_a_dead_feature_store_costs_the_segment_not_the_answer(ask, served, features):
    features.is_dead = True
    for _ in range(2):
        answer = ask("POST", "/v1/recommendations", json={"user_id": "zoe"}).json()
        assert (answer["rung"], answer["segment"]) == ("global_popular", None)
        assert (answer["features"], answer["degraded"]) == ("down", ["feature_store"])
    problem(ask("GET", "/v1/users/zoe/segments"), 503)


def test_a_slow_feature_store_costs_the_segment_not_the_answer(ask_service, served, features):
    hasty = FeatureReader(lambda: features, spec=FeatureReaderSpec(budget_ms=20))
    features.seconds = 0.5
    question = {"user_id": "zoe"}
    app = replace(served, features=hasty)
    answer = ask_service(app, "POST", "/v1/recommendations", json=question).json()
    assert (answer["rung"], answer["segment"]) == ("global_popular", None)
    assert (answer["features"], answer["degraded"]) == ("slow", ["feature_store"])


def test_an_empty_feature_store_is_told_and_no_failure(ask, served, features):
    features.is_empty = True
    answer = ask("POST", "/v1/recommendations", json={"user_id": "zoe"}).json()
    assert (answer["rung"], answer["segment"]) == ("global_popular", None)
    assert (answer["features"], answer["degraded"]) == ("unknown", [])
    problem(ask("GET", "/v1/users/zoe/segments"), 404)


def test_an_old_segment_is_used_and_called_stale(ask, served, features):
    features.age = timedelta(days=40)
    answer = ask("POST", "/v1/recommendations", json={"user_id": "zoe"}).json()
    assert (answer["segment"], answer["rung"]) == ("loyal", "segment_popular")
    assert (answer["features"], answer["degraded"]) == ("stale", [])
    assert answer["feature_age_s"] > 39 * 24 * 3600
    assert ask("GET", "/v1/users/zoe/segments").json()["features"] == "stale"


def test_an_answer_says_how_the_feature_store_was_read(ask, served):
    def told(**question):
        answer = ask("POST", "/v1/recommendations", json=question).json()
        return answer["features"], answer["segment"], answer["segment_source"], answer["degraded"]

    assert told(user_id="zoe") == ("fresh", "loyal", "feature_store", [])
    assert told(user_id="zoe") == ("cached", "loyal", "feature_store", [])
    assert told(user_id="nobody") == ("unknown", None, None, [])
    assert told(session_id="s") == ("not_asked", None, None, [])


def test_reads_are_counted_by_how_they_went(ask, served, service, features, monkeypatch):
    counted = []
    monkeypatch.setattr(service.telemetry, "count_feature_read", counted.append)
    for user_id in ("zoe", "zoe", "nobody"):
        ask("POST", "/v1/recommendations", json={"user_id": user_id})
    features.is_dead = True
    ask("POST", "/v1/recommendations", json={"user_id": "new"})
    ask("POST", "/v1/recommendations", json={"session_id": "s"})
    assert counted == ["fresh", "cached", "unknown", "down"]


def test_a_segment_in_the_request_stands_for_the_stored_one(ask, served):
    asked = {"user_id": "nobody", "k": 2, "segment": "loyal"}
    answer = ask("POST", "/v1/recommendations", json=asked).json()
    assert answer["rung"] == "segment_popular"
    assert (answer["segment"], answer["segment_source"]) == ("loyal", "request")
    by_get = ask("GET", "/v1/users/nobody/recommendations?k=2&segment=loyal").json()
    assert [i["item_id"] for i in by_get["items"]] == [i["item_id"] for i in answer["items"]]
    anonymous = ask("POST", "/v1/recommendations", json={"session_id": "s", "segment": "loyal"})
    assert anonymous.json()["rung"] == "segment_popular"
    # A label that every shop may have, but this model has not seen: a lower rung, no error.
    champion = ask("POST", "/v1/recommendations", json={"user_id": "zoe", "segment": "champions"})
    assert (champion.json()["segment"], champion.json()["rung"]) == ("champions", "global_popular")


def test_an_unknown_segment_is_refused_with_those_that_are_known(ask, served):
    for answer in (
        ask("POST", "/v1/recommendations", json={"user_id": "zoe", "segment": "champoins"}),
        ask("GET", "/v1/users/zoe/recommendations?segment=champoins"),
    ):
        found = problem(answer, 422)
        assert found["errors"][0]["field"] == "segment"
        for word in ("'champoins'", "champions", "loyal", "other"):
            assert word in found["detail"]


def test_rules_move_the_list_and_are_named(ask_service, service, world):
    plain = LiveRecommender(service.log)
    rule = StrategyRule(name="lamps_first", segments=("loyal",), categories=("lamps",), boost=3.0)
    ruled = LiveRecommender(service.log, strategies=StrategySpec(rules=(rule,)))
    answers = {}
    for name, live in {"plain": plain, "ruled": ruled}.items():
        live.serve("7", world)
        app = replace(service, live=live)
        question = {"user_id": "ann", "k": 11, "exclude_seen": False}
        answers[name] = ask_service(app, "POST", "/v1/recommendations", json=question).json()
    before, after = (
        [item["item_id"] for item in answers[name]["items"]] for name in ("plain", "ruled")
    )
    assert before != after
    assert sorted(before) == sorted(after)
    lamps = [item for item in answers["ruled"]["items"] if "lamps" in item["categories"]]
    assert lamps
    assert all(item["boosted_by"] == ["lamps_first"] for item in lamps)
    others = [item for item in answers["ruled"]["items"] if "lamps" not in item["categories"]]
    assert all(item["boosted_by"] == [] for item in others)
    assert answers["ruled"]["strategies"] == ["lamps_first"]
    assert answers["plain"]["strategies"] == []
    stranger = ask_service(app, "POST", "/v1/recommendations", json={"user_id": "nobody"})
    assert stranger.json()["strategies"] == []


def test_a_segment_in_the_request_meets_the_affinities_of_the_store(
    ask_service, service, world, features
):
    rule = StrategyRule(name="own", segments=("at_risk",), top_categories=True, boost=3.0)
    ruled = LiveRecommender(service.log, strategies=StrategySpec(rules=(rule,)))
    ruled.serve("7", world)
    ask = partial(ask_service, replace(service, live=ruled))
    question = {"user_id": "ann", "k": 5, "segment": "at_risk"}
    answer = ask("POST", "/v1/recommendations", json=question).json()
    assert (answer["segment_source"], answer["features"]) == ("request", "fresh")
    assert answer["strategies"] == ["own"]
    assert [item["categories"] for item in answer["items"][:3]] == [["lamps"]] * 3
    features.is_dead = True  # the rule has nothing to go by; the segment of the request stays
    unread = ask("POST", "/v1/recommendations", json=question | {"user_id": "bob"}).json()
    assert (unread["features"], unread["segment"], unread["strategies"]) == ("down", "at_risk", [])


def test_a_rule_for_a_cluster_reads_it_from_the_store(ask_service, service, world):
    rules = tuple(
        StrategyRule(name=f"of {cluster}", clusters=(cluster,), price="lower", boost=1.0)
        for cluster in ("c01", "c02")
    )
    ruled = LiveRecommender(service.log, strategies=StrategySpec(rules=rules))
    ruled.serve("7", world)
    ask = partial(ask_service, replace(service, live=ruled), "POST", "/v1/recommendations")
    assert ask(json={"user_id": "ann"}).json()["strategies"] == ["of c01"]
    assert ask(json={"user_id": "nobody"}).json()["strategies"] == []


def test_a_dead_event_log_refuses_events_and_costs_lists_only_their_news(ask, served, service):
    service.log.path.write_bytes(b"no database" * 1000)
    found = problem(ask("POST", "/v1/events", json=click()), 503)
    assert found["type"] == "urn:perso:problem:event-log"
    answer = ask("POST", "/v1/recommendations", json={"user_id": "ann"}).json()
    assert (answer["rung"], answer["degraded"]) == ("personal", ["event_log"])


def test_without_a_champion_the_service_lives_but_is_not_ready(ask):
    assert ask("GET", "/healthz").json() == {"status": "ok", "model_version": None}
    for method, path in [
        ("GET", "/readyz"),
        ("GET", "/v1/model"),
        ("GET", "/v1/users/ann/recommendations"),
        ("GET", "/v1/items/m0/similar"),
        ("GET", "/v1/items/m0/bought-together"),
    ]:
        assert "perso tune" in problem(ask(method, path), 503)["detail"]
    assert ask("POST", "/v1/events", json=click()).status_code == 202


def test_the_model_says_what_it_is(ask, served):
    assert ask("GET", "/readyz").json()["model_version"] == "7"
    model = ask("GET", "/v1/model").json()
    assert (model["version"], model["num_items"], model["data_key"]) == ("7", 11, "world")
    assert model["metrics"] == {"ndcg@20": 0.5}


def test_a_bug_is_a_problem_without_its_secrets(ask, served, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served.live, "recommend", fail)
    answer = ask("POST", "/v1/recommendations", json={"user_id": "ann"})
    assert "secret" not in json.dumps(problem(answer, 500))


def test_every_error_of_the_library_is_a_problem(ask, served, monkeypatch):
    for error_type, status in STATUS.items():

        def fail(*_, error_type=error_type, **__):
            raise error_type("what to do")

        monkeypatch.setattr(served.live, "recommend", fail)
        found = problem(ask("POST", "/v1/recommendations", json={"user_id": "ann"}), status)
        assert found["detail"] == "what to do"
    assert PersoError in STATUS  # so a new error has a status before it is given its own


def test_requests_are_counted_by_route_template(ask, served, monkeypatch):
    counted = []
    monkeypatch.setattr(
        served.telemetry, "count_request", lambda route, status, _: counted.append((route, status))
    )
    ask("GET", "/v1/items/m0/similar")
    ask("GET", "/v1/items/unheard of/similar")
    ask("GET", "/v2/" + "x" * 50)
    ask("POST", "/v1/recommendations", json={})
    assert counted == [
        ("/v1/items/{item_id}/similar", 200),
        ("/v1/items/{item_id}/similar", 404),
        ("(no such route)", 404),
        ("/v1/recommendations", 422),
    ]


class TestOpenApi:
    @pytest.fixture
    def document(self, service):
        return make_api(service).openapi()

    def test_every_route_is_documented(self, document):
        assert {path: sorted(routes) for path, routes in document["paths"].items()} == {
            "/v1/recommendations": ["post"],
            "/v1/users/{user_id}/recommendations": ["get"],
            "/v1/items/{item_id}/similar": ["get"],
            "/v1/items/{item_id}/bought-together": ["get"],
            "/v1/events": ["post"],
            "/v1/users/{user_id}/segments": ["get"],
            "/healthz": ["get"],
            "/readyz": ["get"],
            "/v1/model": ["get"],
            "/metrics": ["get"],
        }

    def test_every_error_is_documented_as_a_problem(self, document):
        problems = {
            (path, status): response["content"]
            for path, routes in document["paths"].items()
            for route in routes.values()
            for status, response in route["responses"].items()
            if int(status) >= 400
        }
        schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
        assert all(content == {MEDIA_TYPE: schema} for content in problems.values())
        assert ("/v1/recommendations", "422") in problems
        assert "HTTPValidationError" not in document["components"]["schemas"]

    def test_every_reference_leads_somewhere(self, document):
        names = set(document["components"]["schemas"])
        text = json.dumps(document)
        referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
        assert referred == names

    def test_the_examples_are_valid(self, document, ask, served):
        schemas = document["components"]["schemas"]
        examples = schemas["RecommendationsBody"]["examples"]
        assert len(examples) >= 2
        for example in examples:
            RecommendationsBody.model_validate(example)
            assert ask("POST", "/v1/recommendations", json=example).status_code == 200
        for example in schemas["EventBody"]["examples"]:
            assert ask("POST", "/v1/events", json=example).status_code == 202
