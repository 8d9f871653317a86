"""The real Kubernetes of the cluster tests: one API server, and one cluster, a test run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ApiServer

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """A kube-apiserver with our CustomResourceDefinitions. It is shared: a test removes the objects that it makes."""
    with ApiServer.running() as api:
        if CRDS.is_dir():
            api.kubectl("apply", "--server-side", "-k", str(CRDS), check=True)
            api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s", check=True)
        yield api
