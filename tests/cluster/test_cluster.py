"""The test cluster is a real one: what Kubernetes promises of nodes, pods, Services and names holds on it, in both
families; nodes stand power cuts, pods the end of their runtime, and a crash leaves nothing on this host."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from calipy.lab.executions import readable
from calipy.lab.machines import Machine
from calipy.lab.waiting import eventually
from tests.cluster import configuration, lifecycle
from tests.cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
MANIFESTS = Path(__file__).parent / "manifests"
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
FAMILIES = pytest.mark.parametrize("family", [4, 6])


class Web(msgspec.Struct, frozen=True):
    """The pods of web.yaml."""

    pods: dict[str, dict[int, str]]
    """Name -> address by family."""
    nodes: dict[str, str]
    """Name -> node."""
    client: str
    """The node of the pod that asks."""
    service: dict[int, str]


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[Web]:
    """web.yaml, all pods ready."""
    yield asyncio.run(_web(cluster))
    asyncio.run(cluster.kubectl("delete", "namespace", "web", "--wait=false"))


async def _web(cluster: Cluster) -> Web:
    await cluster.kubectl("apply", "-f", str(MANIFESTS / "web.yaml"))
    await cluster.wait("deployment/web", "condition=Available", "--namespace=web")
    await cluster.wait("pod --all", "condition=Ready", "--namespace=web")
    columns = "{range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIPs[*].ip}{'\\n'}{end}"
    found = await _get(cluster, "pods", "-l", "app=web", "-o", f"jsonpath={columns}")
    rows = [line.split() for line in found.splitlines()]
    service = await _get(cluster, "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}")
    client = await _get(cluster, "pod", "client", "-o", "jsonpath={.spec.nodeName}")
    pods = {name: _by_family(addresses) for name, _, *addresses in rows}
    return Web(pods, {name: node for name, node, *_ in rows}, client, _by_family(service.split()))


async def _get(cluster: Cluster, *what: str) -> str:
    return (await cluster.kubectl("-n", "web", "get", *what)).text


def _by_family(addresses: list[str]) -> dict[int, str]:
    return {ipaddress.ip_address(address).version: address for address in addresses}


def _routers(cluster: Cluster, node: str, other: str) -> int:
    """Between their pods: the nodes, and the switch if they stand in different racks, unless it sees no more than
    VXLAN."""
    if node == other:
        return 1
    beside = cluster.nodes[node].segment == cluster.nodes[other].segment
    return 2 if beside or cluster.plan.network == "calipy" else 3


def _url(address: str, port: int, path: str = "hostname") -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/{path}"


def _curl(url: str) -> tuple[str, ...]:
    return ("curl", "-s", "-S", "-m", "5", url)


async def _from_client(cluster: Cluster, *argv: str) -> str:
    return (await cluster.exec("client", *argv, namespace="web")).text


async def test_nodes_are_ready_with_an_address_of_each_family(cluster: Cluster) -> None:
    await cluster.ready()
    columns = (
        "{range .items[*]}{.metadata.name}{range .status.addresses[?(@.type=='InternalIP')]} {.address}{end};{end}"
    )
    found = (await cluster.kubectl("get", "nodes", "-o", f"jsonpath={columns}")).text
    assert found == "n1 10.9.1.11 fd00:9:0:1::11;n2 10.9.1.12 fd00:9:0:1::12;n3 10.9.2.13 fd00:9:0:2::13;"


@FAMILIES
async def test_every_pod_answers_on_one_lan_and_across_the_router(cluster: Cluster, web: Web, family: int) -> None:
    assert set(web.nodes.values()) == {"n1", "n2", "n3"}
    for name, addresses in web.pods.items():
        assert await _from_client(cluster, *_curl(_url(addresses[family], 8080))) == name
        said = await _from_client(cluster, "ping", "-c", "1", "-W", "2", addresses[family])
        assert f"ttl={64 - _routers(cluster, web.client, web.nodes[name])} " in said


@FAMILIES
async def test_a_cluster_ip_leads_to_all_pods_behind_it(cluster: Cluster, web: Web, family: int) -> None:
    url = _url(web.service[family], 80)
    script = f"for i in $(seq 60); do curl -s -S -m 5 {url}; echo; done"
    assert set((await _from_client(cluster, "sh", "-c", script)).split()) == set(web.pods)
    for node in cluster.nodes:
        assert (await cluster.machines[node].run(*_curl(url))).text in web.pods


@FAMILIES
async def test_a_node_port_is_open_on_each_node(cluster: Cluster, web: Web, family: int) -> None:
    for node in cluster.nodes.values():
        done = await cluster.machines["outside"].run(*_curl(_url(node.address(family), 30080)))
        assert done.text in web.pods


async def test_names_are_resolved(cluster: Cluster, web: Web) -> None:
    assert await _from_client(cluster, *_curl("http://web.web.svc.cluster.local/hostname")) in web.pods
    assert (await _from_client(cluster, "dig", "+short", "+search", "web")).strip() == web.service[4]
    assert (await _from_client(cluster, "dig", "+short", "+search", "web", "AAAA")).strip() == web.service[6]
    for address in web.service.values():
        assert (await _from_client(cluster, "dig", "+short", "-x", address)).strip() == "web.web.svc.cluster.local."


async def test_exec_logs_and_the_way_through_the_api_server(cluster: Cluster, web: Web) -> None:
    done = await cluster.exec("client", "sh", "-c", "echo out; echo err >&2; exit 3", namespace="web", check=False)
    assert (done.text, done.status) == ("out\n", 3)
    logs = await cluster.kubectl("-n", "web", "logs", "deployment/web")
    assert "HTTP server on port" in logs.text
    if cluster.plan.network == "ptp":  # elsewhere the control plane's machine, which is no node, has no way to pods
        proxied = "/api/v1/namespaces/web/services/web:80/proxy/hostname"
        assert (await cluster.kubectl("get", "--raw", proxied)).text in web.pods
    for node in cluster.nodes:
        assert "podRef" in (await cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")).text


async def test_a_pod_reaches_the_api_server_as_its_service_account(cluster: Cluster, web: Web) -> None:
    ask = (
        f'curl -s -S -m 5 --cacert {SECRETS}/ca.crt -H "Authorization: Bearer $(cat {SECRETS}/token)"'
        " https://kubernetes.default.svc"
    )
    assert '"gitVersion": "v1.34.4"' in await _from_client(cluster, "sh", "-c", f"{ask}/version")
    refused = await _from_client(cluster, "sh", "-c", f"{ask}/api/v1/nodes")
    assert 'User \\"system:serviceaccount:web:default\\" cannot list resource' in refused


async def test_pods_go_on_while_their_runtime_is_killed(cluster: Cluster, web: Web) -> None:
    pod, node = next(iter(web.nodes.items()))
    runtime = cluster.machines[node].process("containerd")
    before = (await runtime.status()).pid
    started = await _get(cluster, "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    await runtime.kill()
    other = next(name for name in cluster.nodes if name != node)
    assert (await cluster.machines[other].run(*_curl(_url(web.pods[pod][4], 8080)))).text == pod

    async def back() -> bool:
        return (await runtime.status()).pid not in (0, before)

    await eventually(back, "containerd is started again")

    async def answers() -> bool | str:
        done = await cluster.exec(pod, "hostname", namespace="web", check=False)
        return done.text == f"{pod}\n" or done.complaint

    await eventually(answers, "kubelet has its runtime again")
    again = await _get(cluster, "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    assert again == started


async def test_a_node_comes_back_after_a_power_cut(cluster: Cluster, web: Web) -> None:
    await cluster.power_off("n2")
    assert _cgroups(cluster.cgroup("n2")) == []
    await cluster.power_on("n2")
    await cluster.ready("n2")
    names = [name for name, node in web.nodes.items() if node == "n2"]
    assert names

    async def again() -> bool | str:
        counts = "jsonpath={.items[?(@.spec.nodeName=='n2')].status.containerStatuses[*].restartCount}"
        found = await _get(cluster, "pods", "-l", "app=web", "-o", counts)
        return "0" not in found.split() or f"restart counts of n2's pods: {found}"

    await eventually(again, "the pods of n2 start again", 60)
    await cluster.wait("pod --all", "condition=Ready", "--namespace=web")
    url = _url(web.service[4], 80)
    assert (await cluster.machines["n2"].run(*_curl(url))).text in web.pods


@pytest.mark.parametrize("proxy", ["nftables"])
async def test_services_work_with_another_proxy(cluster_with: Callable[..., Cluster], proxy: str) -> None:
    cluster = await asyncio.to_thread(cluster_with, nodes=1, proxy=proxy)
    web = await _web(cluster)
    for family in (4, 6):
        assert await _from_client(cluster, *_curl(_url(web.service[family], 80))) in web.pods
    tables = (await cluster.machines["n1"].run("nft", "list", "tables")).text
    assert "table ip kube-proxy" in tables
    assert "table ip6 kube-proxy" in tables
    await asyncio.to_thread(lambda: asyncio.run(lifecycle.down(cluster.folder)))


async def test_a_network_comes_as_a_daemon_set(cluster_with: Callable[..., Cluster]) -> None:
    cluster = await asyncio.to_thread(cluster_with, nodes=1, proxy="none", network="none")
    said = "jsonpath={.status.conditions[?(@.type=='Ready')].message}"
    message = (await cluster.kubectl("get", "node", "n1", "-o", said)).text
    assert "cni plugin not initialized" in message
    await cluster.kubectl("apply", "-f", str(MANIFESTS / "plugger.yaml"))
    await cluster.kubectl("-n", "kube-system", "rollout", "status", "daemonset/plugger", "--timeout=60s")
    logs = await cluster.kubectl("-n", "kube-system", "logs", "daemonset/plugger")
    assert "links ok" in logs.text
    conflist = msgspec.json.encode({"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}).decode()
    script = f"echo '{conflist}' >/host/etc/cni/net.d/x && mv /host/etc/cni/net.d/x /host/etc/cni/net.d/10-x.conflist"
    pod = (await cluster.kubectl("-n", "kube-system", "get", "pods", "-l", "app=plugger", "-o", "name")).text.strip()
    await cluster.exec(pod, "sh", "-ec", script, namespace="kube-system")
    await cluster.ready(timeout_s=30)
    await cluster.exec(pod, "ip", "netns", "add", "from-a-pod", namespace="kube-system")
    assert "from-a-pod" in (await cluster.machines["n1"].run("ip", "netns")).text
    assert not _there("/run/netns/from-a-pod")
    await asyncio.to_thread(lambda: asyncio.run(lifecycle.down(cluster.folder)))


async def test_a_crash_leaves_nothing_that_the_next_command_does_not_remove(cluster_folder: Callable[[], Path]) -> None:
    folder, sysctls = cluster_folder(), _sysctls()
    argv = (sys.executable, "-m", "tests.cluster", "up", "--nodes", "1", "--network", "none", "--folder", str(folder))
    maker = await asyncio.create_subprocess_exec(
        *argv, cwd=ROOT, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert maker.stderr is not None
    while b"nodes registered" not in (line := await maker.stderr.readline()):
        assert line, "it ended before its time"
    maker.send_signal(signal.SIGKILL)
    await maker.wait()
    spaces = {_pid_namespace(str(Machine(place.name, place).pid)) for place in _places(folder)}
    assert len(spaces) == 4
    gate = _gates(Machine("control", folder / "control").pid)
    assert len(gate) == 1
    assert len(_inside(spaces)) > 10
    assert _cgroups(f"/{folder.name}-n1")
    with os.fdopen(os.pidfd_open(gate[0])) as ended:
        assert await lifecycle.down(folder)
        async with asyncio.timeout(10):
            await readable(ended.fileno())
    assert _inside(spaces) == []
    assert _cgroups(folder.name) == []
    assert not _mounted(folder.name)
    assert not _there(str(folder))
    assert _sysctls() == sysctls


def _there(path: str) -> bool:
    """True if this host has it."""
    return Path(path).exists()


def _mounted(name: str) -> bool:
    """True if a mount of this host has to do with it."""
    return name in Path("/proc/self/mountinfo").read_text()


def _places(folder: Path) -> list[Path]:
    """The folders of a cluster's machines."""
    return [path.parent for path in folder.glob("*/machine.json")]


def _pid_namespace(pid: str) -> int:
    """The inode of a process's; 0 for one that has just ended, or that may not be seen."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return 0


def _inside(spaces: set[int]) -> list[str]:
    """The processes in some PID namespaces, as this host numbers them."""
    return [entry for entry in os.listdir("/proc") if entry.isdecimal() and _pid_namespace(entry) in spaces]


def _gates(pid: int) -> list[int]:
    """The processes of this host that are the gate to process `pid`."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"tests.cluster.gate" in words and str(pid).encode() in words:
            found.append(int(entry))
    return found


def _cgroups(prefix: str) -> list[str]:
    """The cgroups of this host, in any hierarchy, whose names begin so."""
    top = Path("/sys/fs/cgroup")
    return [str(path) for depth in ("", "*/") for path in top.glob(f"{depth}{prefix.strip('/')}*")]


def _sysctls() -> dict[str, str]:
    """What of this host a cluster could change."""
    names = (*configuration.FIXED_SYSCTLS, "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    return {name: Path("/proc/sys", name).read_text() for name in names if Path("/proc/sys", name).exists()}
