"""A registry in which versions cost nothing to make."""

import json

import pytest


@pytest.fixture
def register(registry, tmp_path):
    """Registers one more version of a bundle that is a manifest and an array."""

    def register(*, metrics=None, tags=None):
        bundle = tmp_path / "bundle"
        (bundle / "factors").mkdir(parents=True, exist_ok=True)
        (bundle / "manifest.json").write_text(json.dumps({"format": "perso-bundle"}))
        (bundle / "factors" / "items.npy").write_bytes(b"\x00\x01")
        run_id = registry.open_run("search")
        registry.log_metrics(run_id, metrics or {})
        registry.close_run(run_id)
        return registry.register(bundle, run_id=run_id, tags=tags)

    return register
