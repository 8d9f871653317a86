"""The real Kubernetes of the cluster tests: one API server, and one cluster, a test run."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from calipy.console.progress import Steps
from tests.cluster import binaries, lifecycle, ours
from tests.cluster.cluster import Cluster, Plan
from tests.cluster.control_plane import ApiServer

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
_PREFIX = "calipy-cluster-t"
_PLACE = Path("/var/tmp")


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """A kube-apiserver with our CustomResourceDefinitions. It is shared: a test removes the objects that it makes."""
    with ApiServer.running() as api:
        if CRDS.is_dir():
            api.kubectl("apply", "--server-side", "-k", str(CRDS), check=True)
            api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s", check=True)
        yield api


@pytest.fixture(scope="session")
def calipy_image() -> Path:
    """The archive of this checkout's image, for `cluster_with(images=(calipy_image,))`; its name: `image.NAME`."""
    return asyncio.run(ours.archive(Steps(io.StringIO())))


@pytest.fixture(scope="session")
def cluster_folder() -> Callable[[], Path]:
    """A factory of folders for clusters of this run, free after those of runs that were killed are removed."""
    for folder in _PLACE.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            asyncio.run(lifecycle.down(folder))
    return lambda: _PLACE / f"{_PREFIX}{os.getpid()}-{os.urandom(2).hex()}"


@pytest.fixture(scope="session")
def cluster_with(cluster_folder: Callable[[], Path]) -> Iterator[Callable[..., Cluster]]:
    """A factory: `cluster_with(nodes=2, network="none")` makes a cluster (`cluster.Plan`) that lives as long as the
    run."""
    made: list[Path] = []

    def make(**plan: object) -> Cluster:
        programs = binaries.ensure(*binaries.CLUSTER)
        made.append(cluster_folder())
        wanted = Plan(programs=programs, **plan)  # type: ignore[arg-type]
        return asyncio.run(lifecycle.up(made[-1], wanted, Steps(io.StringIO())))

    yield make
    for folder in made:
        asyncio.run(lifecycle.down(folder))


@pytest.fixture(scope="session")
def calipy_cluster(cluster_with: Callable[..., Cluster], calipy_image: Path) -> Cluster:
    """Three nodes on our network, as manifests/ bring it. It is shared: a test removes what it makes."""
    return cluster_with(network="calipy", images=(calipy_image,))


@pytest.fixture(scope="session", params=["ptp", "calipy"])
def cluster(request: pytest.FixtureRequest, cluster_with: Callable[..., Cluster]) -> Cluster:
    """Three nodes, kube-proxy with iptables, on the stand-in network and on ours: what Kubernetes promises holds on
    both. It is shared: a test removes what it makes."""
    shared: Cluster = request.getfixturevalue("calipy_cluster") if request.param == "calipy" else cluster_with()
    return shared


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what our agents said."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("calipy_cluster")
    if report.failed and cluster is not None:
        report.sections += [(f"{name} said last", text) for name, text in ours.logs(cluster).items()]
    return report
