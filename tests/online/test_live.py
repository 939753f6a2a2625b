"""Events of a minute ago and the trained model, asked together."""

import dataclasses
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from perso.errors import ArtifactError, EventLogError, NoChampionError, UnknownIdError
from perso.models.request_features import RequestFeatures
from perso.online.live import KNOWN_SEGMENTS, Conditions, LiveRecommender, Question
from perso.online.strategies import StrategyRule, StrategySpec
from perso.stream.event import Event
from perso.stream.event_log import EventLog

NOW = datetime(2026, 3, 1, 20, tzinfo=UTC)


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "log.sqlite")


@pytest.fixture
def live(world, log):
    live = LiveRecommender(log)
    live.serve("1", world)
    return live


def click(item_id, *, minutes_ago=1.0, event_type="view_item", **who):
    timestamp = NOW - timedelta(minutes=minutes_ago)
    event_id = f"{event_type}-{item_id}-{minutes_ago}-{who}"
    return Event(
        event_id=event_id, event_type=event_type, item_id=item_id, timestamp=timestamp, **who
    )


def ids(answer):
    return [item.item_id for item in answer.items]


def test_an_event_changes_the_next_answer_of_an_anonymous_session(live, log):
    question = Question(session_id="s", k=4)
    before = live.recommend(question, now=NOW)
    assert (before.rung, before.num_recent_events) == ("global_popular", 0)
    assert ids(before) == ["l0", "l1", "l2", "l3"]
    log.append([click("m0", session_id="s")])
    after = live.recommend(question, now=NOW)
    assert (after.rung, after.num_recent_events) == ("personal", 1)
    assert sorted(ids(after)) == ["m1", "m2", "m3", "m4"]
    assert live.recommend(Question(session_id="other", k=4), now=NOW).items == before.items


def test_an_event_changes_the_next_answer_of_a_known_user(live, log):
    question = Question(user_id="ann", k=3)
    assert ids(live.recommend(question, now=NOW))[0].startswith("m")
    log.append([click("l0", user_id="ann", event_type="purchase")])
    log.append([click("l1", user_id="ann", event_type="purchase")])
    assert all(item_id.startswith("l") for item_id in ids(live.recommend(question, now=NOW)))


def test_a_session_begun_anonymously_follows_its_user(live, log):
    log.append([click("l0", session_id="s"), click("l1", session_id="s")])
    answer = live.recommend(Question(user_id="ann", session_id="s"), now=NOW)
    assert answer.num_recent_events == 2
    assert not {"l0", "l1", "m0"} & set(ids(answer))


def test_who_shares_a_device_learns_nothing_of_the_others(live, log):
    bobs_list = live.recommend(Question(user_id="bob", session_id="kiosk"), now=NOW)
    log.append([click("m1", user_id="ann", session_id="kiosk", event_type="purchase")])
    assert live.recommend(Question(user_id="bob", session_id="kiosk"), now=NOW) == bobs_list
    assert live.recommend(Question(session_id="kiosk"), now=NOW).num_recent_events == 0
    assert live.recommend(Question(user_id="ann"), now=NOW).num_recent_events == 1


def test_an_event_without_consent_is_logged_and_changes_nothing(live, log):
    question = Question(session_id="s", k=11)
    before = live.recommend(question, now=NOW)
    log.append([click("m0", session_id="s", consent=False)])
    assert live.recommend(question, now=NOW) == before
    assert len(log.read_from()) == 1
    log.append([click("m1", session_id="s", consent=True)])
    assert live.recommend(question, now=NOW).num_recent_events == 1


def test_an_event_weighs_what_it_weighed_in_training(world, log):
    def with_prepare(prepare):
        return dataclasses.replace(
            world, manifest=world.manifest | {"spec": {"prepare": prepare, "model": {}}}
        )

    log.append([click("m0", session_id="s", event_type="wishlist")])
    live = LiveRecommender(log)
    rungs = {}
    for version, bundle in {
        "no word": world,
        "wishlist": with_prepare({"event_weights": {"wishlist": 4.0}, "value_weights": {}}),
        "others": with_prepare({"event_weights": {"view_item": 1.0}, "value_weights": {}}),
        "by value": with_prepare({"event_weights": {}, "value_weights": {"wishlist": 1.0}}),
        "no tables": with_prepare({}),
    }.items():
        live.serve(version, bundle)
        rungs[version] = live.recommend(Question(session_id="s", k=4), now=NOW).rung
    assert rungs.pop("wishlist") == "personal"
    assert set(rungs.values()) == {"global_popular"}  # "by value": the event has none
    with pytest.raises(ArtifactError, match="view_item"):
        live.serve("bad", with_prepare({"event_weights": {"view_item": -1.0}}))
    assert live.version == "no tables"


def rule(**changes):
    fields = {"name": "r", "segments": ("loyal",), "categories": ("lamps",), "boost": 0.5}
    return StrategyRule(**{**fields, **changes})


def test_a_question_may_name_segments_of_training_of_the_rules_and_of_every_shop(world, log):
    spec = StrategySpec(rules=(rule(segments=("vip",)),))
    live = LiveRecommender(log, strategies=spec)
    with pytest.raises(NoChampionError):
        live.known_segments()
    live.serve("1", world)
    assert {"loyal", "vip", "champions", "browsers", "other"} <= live.known_segments()
    assert "lost cause" not in live.known_segments()
    assert "vip" not in KNOWN_SEGMENTS


def test_rules_that_can_move_nothing_are_told_when_a_version_is_served(world, log, caplog):
    useful = rule(name="useful")
    live = LiveRecommender(log, strategies=StrategySpec(rules=(useful,)))
    live.serve("1", world)
    assert caplog.messages == []
    nothing, misspelt = rule(name="nothing", categories=("gone",)), rule(segments=("champoins",))
    live = LiveRecommender(log, strategies=StrategySpec(rules=(useful, nothing, misspelt)))
    live.serve("1", world)
    assert [("nothing" in m, "champoins" in m, "useful" in m) for m in caplog.messages] == [
        (True, False, False),
        (False, True, False),
    ]


def test_what_was_just_acted_on_is_hidden_unless_asked_for(live, log):
    log.append([click("m1", session_id="s"), click("m2", session_id="s", event_type="purchase")])
    assert not {"m1", "m2"} & set(ids(live.recommend(Question(session_id="s", k=11), now=NOW)))
    every = Question(session_id="s", k=11, exclude_seen=False)
    assert {"m1", "m2"} <= set(ids(live.recommend(every, now=NOW)))


def test_an_event_on_an_unknown_item_is_no_error(live, log):
    log.append([click("not yet in the catalogue", session_id="s")])
    answer = live.recommend(Question(session_id="s", k=1), now=NOW)
    assert (answer.rung, answer.num_recent_events) == ("global_popular", 1)
    assert live.count_unknown_items([click("x"), click("m0"), click("y")]) == 2


def test_the_card_of_an_item_comes_with_it(live):
    (item,) = live.recommend(Question(session_id="s", k=1), now=NOW).items
    assert (item.item_id, item.title, item.price) == ("l0", "The l0", 60.0)
    assert item.categories == ["lamps"]


def test_conditions_are_in_the_callers_ids(live):
    conditions = Conditions(categories=("mugs",), exclude_item_ids=("m0", "m1", "unheard of"))
    answer = live.recommend(Question(user_id="bob", k=11, conditions=conditions), now=NOW)
    assert set(ids(answer)) == {"m2", "m3", "m4", "new"}
    nothing = Conditions(categories=("unheard of",))
    answer = live.recommend(Question(user_id="bob", conditions=nothing), now=NOW)
    assert (answer.items, answer.rung) == ([], None)


def test_the_daypart_is_the_time_of_asking_unless_given(world, log):
    evening_I = world.popularity.slices["segment"][1][0]
    popularity = dataclasses.replace(
        world.popularity, slices={"daypart": (("evening",), evening_I[None])}
    )
    live = LiveRecommender(log)
    live.serve("1", dataclasses.replace(world, popularity=popularity))
    rung_at = {
        hour: live.recommend(Question(session_id="s"), now=NOW.replace(hour=hour)).rung
        for hour in (2, 11, 17, 18, 23)
    }
    assert rung_at == {
        2: "global_popular",
        11: "global_popular",
        17: "global_popular",
        18: "context_popular",
        23: "context_popular",
    }
    morning = Question(session_id="s", context={"daypart": "morning"})
    assert live.recommend(morning, now=NOW).rung == "global_popular"


def test_a_model_that_knows_the_hour_makes_a_strangers_list(world, log):
    evening = RequestFeatures(
        num_factors=2, columns={"daypart": (("evening",), np.array([[3, 0]], np.float32))}
    )
    model = dataclasses.replace(world.model, request_features=evening)
    live = LiveRecommender(log)
    live.serve("1", dataclasses.replace(world, model=model))
    stranger = Question(session_id="s", k=4)
    at_night = live.recommend(stranger, now=NOW.replace(hour=2))
    assert (at_night.rung, ids(at_night)) == ("global_popular", ["l0", "l1", "l2", "l3"])
    in_the_evening = live.recommend(stranger, now=NOW)
    assert in_the_evening.rung == "personal"
    assert all(item_id.startswith("m") for item_id in ids(in_the_evening))


def test_similar_items_know_no_strangers(live):
    assert ids(live.similar("m0", k=4)) == ["m1", "m2", "m3", "m4"]
    with pytest.raises(UnknownIdError, match="unheard of"):
        live.similar("unheard of", k=4)


def test_what_goes_with_an_item_is_the_same_for_everybody(live):
    answer = live.bought_together("m0", k=3, conditions=Conditions(exclude_item_ids=("m2",)))
    assert (ids(answer), answer.rung) == (["l3", "m1", "m3"], "bought_together")
    with pytest.raises(UnknownIdError, match="unheard of"):
        live.bought_together("unheard of", k=4)


def test_without_a_model_the_error_says_what_to_do(log):
    live = LiveRecommender(log)
    assert live.version is None
    with pytest.raises(NoChampionError, match="perso tune"):
        live.recommend(Question(session_id="s"), now=NOW)


class DeadLog:
    def recent(self, **_):
        raise EventLogError("gone")


def test_a_dead_log_costs_the_newest_events_not_the_answer(world, caplog):
    live = LiveRecommender(DeadLog())
    live.serve("1", world)
    for _ in range(3):
        answer = live.recommend(Question(user_id="ann", session_id="s", k=2), now=NOW)
        assert (answer.is_degraded, answer.rung) == (True, "personal")
        assert ids(answer) == ["m1", "m2"]
    assert len(caplog.records) == 1  # logged once, counted always


def test_a_damaged_bundle_leaves_the_old_model_answering(live, tmp_path):
    with pytest.raises(ArtifactError):
        live.load("2", tmp_path)
    assert live.version == "1"


def test_models_are_swapped_between_answers_never_inside_one(world, log):
    """Two models that share no item: a mixed answer would show."""
    versions = {}
    for version, kind in (("1", "m"), ("2", "l")):
        scores_I = [float(i.startswith(kind)) for i in world.items.ids.to_pylist()]
        popularity = dataclasses.replace(
            world.popularity,
            global_scores_I=world.popularity.global_scores_I * 0 + scores_I,
            slices={},
        )
        versions[version] = (kind, dataclasses.replace(world, popularity=popularity))
    live = LiveRecommender(log)
    live.serve("1", versions["1"][1])
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for version, (_, bundle) in versions.items():
                live.serve(version, bundle)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = set()
        for _ in range(400):
            answer = live.recommend(Question(session_id="s", k=5), now=NOW)
            assert {i[0] for i in ids(answer)} == {versions[answer.model_version][0]}
            seen.add(answer.model_version)
    finally:
        stop.set()
        swapper.join()
    assert seen == {"1", "2"}
