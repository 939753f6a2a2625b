"""``perso models``: what an engineer reads before and after a champion changes."""

import json
import sys

import pytest

from perso.cli import main
from perso.evaluation.report import EvaluationReport
from perso.models.bundle import FORMAT, FORMAT_VERSION
from perso.tuning.gate import VERDICT_TAG, Check, Verdict

PASSED = Verdict(
    promoted=True,
    reason="promoted, as all 2 checks hold",
    checks=(
        Check(name="beats global popularity", passed=True, reason="ndcg@20 0.3 against 0.1"),
        Check(name="no segment loses", passed=True, reason="the worst of 2 is loyal"),
    ),
)
REFUSED = Verdict(
    promoted=False,
    reason="not promoted, version 1 goes on serving: the check 'beats version 1' fails",
    checks=(Check(name="beats version 1", passed=False, reason="ndcg@20 0.2 against 0.3"),),
)


@pytest.fixture
def register(registry, tmp_path):
    """Registers a version of which only the manifest exists."""

    def register(ndcg, verdict, *, data_key="monday"):
        report = EvaluationReport(
            overall={"ndcg@10": ndcg - 0.1, "ndcg@20": ndcg, "rmse": float("nan")},
            per_segment={"loyal": {"ndcg@20": 2 * ndcg}, "(newcomers)": {"ndcg@20": float("nan")}},
            num_users=321,
            num_users_by_segment={"loyal": 123, "(newcomers)": 0},
            num_ratings=0,
        ).to_dict()
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "created_at": "2026-03-02T00:00:00+00:00",
            "trained_until": "2026-03-01T00:00:00+00:00",
            "data_key": data_key,
            "spec": {"model": {"family": "als", "num_factors": 32}},
            "metrics": {"model": report, "popularity": {"kind": "global", **report}},
            "files": {},
        }
        bundle = tmp_path / "bundle"
        bundle.mkdir(exist_ok=True)
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "report").mkdir(exist_ok=True)
        (tmp_path / "report" / "report.html").write_text("<p>better</p>")
        run_id = registry.open_run("search")
        registry.log_metrics(run_id, {"ndcg@20": ndcg})
        registry.log_artifacts(run_id, tmp_path / "report")
        tags = {"data_key": data_key, "git_commit": "c0ffee"}
        if verdict is not None:
            tags[VERDICT_TAG] = verdict.to_json()
        return registry.register(bundle, run_id=run_id, tags=tags).version

    return register


@pytest.fixture
def perso(workspace, monkeypatch, capsys):
    """Runs a command; its exit code and what it printed, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PERSO_USER", "ada")

    def perso(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["perso", "models", *arguments, "--root", str(workspace.root)]
        )
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return end.value.code, told.out if not end.value.code else told.err

    return perso


def test_a_list_shows_aliases_gate_and_metrics(perso, registry, register):
    register(0.3, PASSED)
    register(0.2, REFUSED)
    register(0.25, None)
    registry.promote("1")
    code, text = perso("list")
    assert code == 0
    rows = [line.split("│")[1:-1] for line in text.splitlines() if "monday" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [
        ["3", "challenger", "-", "monday", "0.2500"],
        ["2", "", "refused", "monday", "0.2000"],
        ["1", "champion", "passed", "monday", "0.3000"],
    ]
    documents = json.loads(perso("list", "--json")[1])
    assert [d["version"] for d in documents] == ["3", "2", "1"]
    assert documents[2]["metrics"] == {"ndcg@20": 0.3}


def test_a_version_shows_what_it_is_how_it_did_and_why_it_may_serve(perso, register):
    register(0.3, PASSED)
    code, text = perso("show", "1")
    assert code == 0
    for told in (
        "version 1 (challenger)",
        "2026-03-01",
        "c0ffee",
        "num_factors",
        "321 users",
        "beats global popularity",
        "ndcg@20 0.3 against 0.1",
        "report.html",
    ):
        assert told in text
    (loyal,) = (line for line in text.splitlines() if "loyal" in line and "123" in line)
    assert "0.6000" in loyal
    card = json.loads(perso("show", "1", "--json")[1])
    assert card["metrics"] == pytest.approx({"ndcg@10": 0.2, "ndcg@20": 0.3})  # no rmse: no number
    assert card["verdict"]["checks"][0]["passed"] is True
    assert card["settings"] == {"family": "als", "num_factors": 32}


def test_a_comparison_shows_differences_overall_and_per_segment(perso, register):
    register(0.2, None)
    register(0.3, None)
    code, text = perso("compare", "1", "2")
    assert code == 0
    (overall,) = (line for line in text.splitlines() if "ndcg@20 " in line and "of" not in line)
    assert [cell.strip() for cell in overall.split("│")[1:-1]] == [
        "ndcg@20",
        "0.2000",
        "0.3000",
        "+0.1000",
        "+50.0%",
    ]
    (loyal,) = (line for line in text.splitlines() if "loyal" in line)
    assert "+0.2000" in loyal
    assert "different data" not in text
    document = json.loads(perso("compare", "1", "2", "--json")[1])
    assert document["same_data"] is True
    assert document["per_segment"]["loyal"]["ndcg@20"]["difference"] == pytest.approx(0.2)
    code, text = perso("compare", "1", "2", "--metric", "recall@7")
    assert code == 2
    assert "'recall@7'; both have: ndcg@10, ndcg@20" in text


def test_versions_of_different_data_are_compared_with_a_warning(perso, register):
    register(0.2, None)
    register(0.3, None, data_key="tuesday")
    assert "measured on different data (monday and tuesday)" in perso("compare", "1", "2")[1]
    assert json.loads(perso("compare", "1", "2", "--json")[1])["same_data"] is False


def test_promotion_and_rollback_are_told_and_stand_in_the_history(perso, register):
    register(0.3, PASSED)
    register(0.4, PASSED)
    assert perso("promote", "1", "--why", "the first") == (0, "version 1 is the champion\n")
    told = "version 2 is the champion, after version 1\n"
    assert perso("promote", "2", "--why", "better") == (0, told)
    assert perso("promote", "2", "--why", "again")[1] == "version 2 is the champion already\n"
    back = json.loads(perso("rollback", "--why", "slow", "--json")[1])
    assert (back["kind"], back["to_version"], back["who"]) == ("rollback", "1", "ada")
    code, text = perso("history")
    assert code == 0
    rows = [line for line in text.splitlines() if "ada" in line]
    assert [why in row for why, row in zip(("slow", "better", "the first"), rows, strict=True)] == (
        [True] * 3
    )
    assert len(json.loads(perso("history", "--json")[1])) == 3


def test_what_the_gate_refused_takes_force_and_the_history_keeps_it(perso, registry, register):
    register(0.2, REFUSED)
    code, text = perso("promote", "1", "--why", "I know better")
    assert code == 2
    assert text.count("\n") == 1
    assert "'beats version 1' fails" in text
    assert "--force" in text
    assert registry.champion() is None
    assert perso("promote", "1", "--why", "I know better", "--force")[0] == 0
    assert "promote, forced" in perso("history")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "7"], "no model version '7'; there are: none yet"),
        (["promote", "7", "--why", "x"], "no model version '7'"),
        (["promote", "7", "--why", " "], "no model version '7'"),
        (["rollback", "--why", " "], "--why is empty"),
        (["rollback", "--why", "x"], "there is no previous champion"),
    ],
)
def test_a_mistake_is_one_sentence(perso, arguments, says):
    code, text = perso(*arguments)
    assert code == 2
    assert text.count("\n") == 1
    assert says in text
