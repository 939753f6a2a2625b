"""The Serve config file is what Ray and the code expect."""

import pytest
from ray.serve.config import AutoscalingConfig

from perso.errors import InputError
from serve_app import app
from serve_app.deploy import load_config

CONFIG = load_config()
(APPLICATION,) = CONFIG.applications
DEPLOYMENTS = {deployment.name: deployment for deployment in APPLICATION.deployments}


def test_the_service_listens_on_loopback_unless_told_otherwise():
    assert (CONFIG.http_options.host, CONFIG.http_options.port) == ("127.0.0.1", 8000)


def test_the_import_path_is_the_builder():
    assert APPLICATION.import_path == f"{app.build.__module__}:{app.build.__name__}"
    app.BuildArgs(**APPLICATION.args)
    assert APPLICATION.name == app.APP_NAME


def test_every_deployment_of_the_file_exists_in_the_code():
    assert set(DEPLOYMENTS) == {
        app.Recommender.name,
        app.ChampionWatcher.name,
        app.RecentEvents.name,
    }


def test_the_autoscaling_block_is_one_that_ray_accepts():
    # The file's schema lets nonsense such as max_replicas -1 through; this class does not.
    autoscaling = AutoscalingConfig(**DEPLOYMENTS["Recommender"].autoscaling_config)
    assert 1 <= autoscaling.min_replicas < autoscaling.max_replicas
    # Replicas must be able to hold more than the autoscaler aims at, or it never sees a reason.
    assert autoscaling.target_ongoing_requests < DEPLOYMENTS["Recommender"].max_ongoing_requests


def test_options_of_the_file_reach_the_deployments(tmp_path):
    built = app.build(
        app.BuildArgs(root=str(tmp_path)), options={"Recommender": {"max_ongoing_requests": 7}}
    )
    assert built._bound_deployment.max_ongoing_requests == 7
    assert not list(tmp_path.iterdir())  # building starts and creates nothing


@pytest.mark.parametrize("limit", ["feature_budget_ms", "feature_max_age_days"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_is_none_is_refused(limit, value):
    with pytest.raises(ValueError, match=limit):
        app.BuildArgs(**{limit: value})


def test_a_wrong_file_of_rules_is_told_before_anything_starts(tmp_path):
    rules = tmp_path / "strategies.yaml"
    rules.write_text("rules: [{name: a, segments: [new], boost: 9, price: lower}]")
    with pytest.raises(InputError, match="boost of rule 'a' is 9"):
        app.build(app.BuildArgs(root=str(tmp_path / "root"), strategies=str(rules)))


def test_a_misspelt_argument_of_the_application_is_refused():
    with pytest.raises(ValueError, match="rot"):
        app.BuildArgs(rot="/somewhere")


def test_a_file_that_is_no_config_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("applications: 3")
    with pytest.raises(InputError, match="no Serve config"):
        load_config(path)
