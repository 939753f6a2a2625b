"""Clusters of several nodes; :mod:`nodes` has the handling."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def nodes():
    # pytest's importlib mode has no import path between test files.
    path = Path(__file__).with_name("nodes.py")
    spec = importlib.util.spec_from_file_location("nodes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cluster(nodes):
    """Nothing of it runs before ``start_head``; all of it has ended after the test."""
    with nodes.Cluster() as cluster:
        yield cluster
