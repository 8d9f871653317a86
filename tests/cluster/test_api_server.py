"""The API server that tests get is a real one: it stores, refuses, forgets nothing in a restart, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ApiServer, ControlPlaneError, sweep

ROOT = Path(__file__).parents[2]
HOLDER = """
import time
from tests.cluster.control_plane import ApiServer
with ApiServer.running() as api:
    print(api.folder, *(process.pid for process in api._processes.values()), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def name(api_server: ApiServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-")[:60]
    api_server.kubectl("create", "namespace", name, check=True)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false", check=True)


def test_it_stores_in_both_families(api_server: ApiServer, name: str) -> None:
    api_server.kubectl("-n", name, "create", "service", "clusterip", "web", "--tcp=80", check=True)
    patch = '{"spec": {"ipFamilyPolicy": "PreferDualStack"}}'
    api_server.kubectl("-n", name, "patch", "service", "web", "-p", patch, check=True)
    found = api_server.kubectl("-n", name, "get", "service", "web", "-o", "jsonpath={.spec.clusterIPs}", check=True)
    assert '"10.96.' in found.stdout
    assert '"fd00:10:96::' in found.stdout


def test_a_user_may_what_rbac_gives_him(api_server: ApiServer, name: str) -> None:
    reader = api_server.user_kubeconfig("reader", ["readers"])
    assert reader.stat().st_mode & 0o777 == 0o600
    refused = api_server.kubectl("-n", name, "get", "configmaps", kubeconfig=reader)
    assert refused.returncode
    assert 'User "reader" cannot list resource "configmaps"' in refused.stderr
    create = ("-n", name, "create")
    api_server.kubectl(*create, "role", "readers", "--verb=list", "--resource=configmaps", check=True)
    api_server.kubectl(*create, "rolebinding", "readers", "--role=readers", "--group=readers", check=True)
    end_s = time.monotonic() + 10
    while (allowed := api_server.kubectl("-n", name, "get", "configmaps", kubeconfig=reader)).returncode:
        assert time.monotonic() < end_s, allowed.stderr  # the server learns of the binding by a watch of its own
    assert allowed.stderr.strip() == f"No resources found in {name} namespace."


def test_service_accounts_get_tokens(api_server: ApiServer, name: str) -> None:
    api_server.kubectl("-n", name, "create", "serviceaccount", "robot", check=True)
    token = api_server.kubectl("-n", name, "create", "token", "robot", check=True).stdout.strip()
    said = api_server.kubectl("auth", "whoami", "--token", token, kubeconfig=_nobody(api_server)).stdout
    assert f"system:serviceaccount:{name}:robot" in said


def _nobody(api: ApiServer) -> Path:
    """A kubeconfig without a user: a client certificate would win over a token."""
    path = api.folder / "nobody.kubeconfig"
    argv = ("config", "set-cluster", "calipy", "--server", api.url, "--certificate-authority", str(api.ca))
    api.kubectl(*argv, kubeconfig=path, check=True)
    api.kubectl("config", "set-context", "calipy", "--cluster=calipy", kubeconfig=path, check=True)
    api.kubectl("config", "use-context", "calipy", kubeconfig=path, check=True)
    return path


def test_a_restart_keeps_what_was_stored(api_server: ApiServer, name: str) -> None:
    api_server.kubectl("-n", name, "create", "configmap", "kept", "--from-literal=a=b", check=True)
    api_server.stop_api()
    refused = api_server.kubectl("-n", name, "get", "configmap", "kept")
    assert "refused" in refused.stderr
    api_server.start_api()
    found = api_server.kubectl("-n", name, "get", "configmap", "kept", "-o", "jsonpath={.data.a}", check=True)
    assert found.stdout == "b"


def test_old_revisions_can_be_made_to_go(api_server: ApiServer, name: str) -> None:
    for number in range(3):
        api_server.kubectl("-n", name, "create", "configmap", f"c{number}", check=True)
    page = api_server.kubectl("get", "--raw", f"/api/v1/namespaces/{name}/configmaps?limit=1", check=True).stdout
    token = page.partition('"continue":"')[2].partition('"')[0]
    assert token
    api_server.kubectl("-n", name, "create", "configmap", "later", check=True)
    api_server.compact()
    api_server.stop_api()
    api_server.start_api()
    path = f"/api/v1/namespaces/{name}/configmaps?limit=1&continue={token}"
    assert "The provided continue parameter is too old" in api_server.kubectl("get", "--raw", path).stderr


async def test_it_is_started_by_the_thread_that_stays(api_server: ApiServer) -> None:
    with pytest.raises(ControlPlaneError, match="start it from the main thread"):
        await asyncio.to_thread(api_server.start_api)


def test_a_failed_start_says_why() -> None:
    with (
        pytest.raises(
            ControlPlaneError, match="(?s)kube-apiserver ended with status 1; .*unknown flag: --no-such-flag"
        ),
        ApiServer.running("--no-such-flag"),
    ):
        pytest.fail("it can't run")


def test_a_crash_leaves_nothing() -> None:
    argv = (sys.executable, "-c", HOLDER)
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as holder:
        assert holder.stdout is not None
        folder, *pids = holder.stdout.readline().split()
        descriptors = [os.pidfd_open(int(pid)) for pid in pids]
        assert len(descriptors) == 2
        holder.send_signal(signal.SIGKILL)
    for descriptor in descriptors:
        assert _ended(descriptor)
        os.close(descriptor)
    assert Path(folder).exists()
    sweep()
    assert not Path(folder).exists()


def _ended(descriptor: int) -> bool:
    """Waits for the end of a process; False if it doesn't come."""
    return bool(select.select([descriptor], [], [], 10)[0])
