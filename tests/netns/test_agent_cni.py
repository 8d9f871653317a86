"""CNI whole: a real agent process on a lab machine, asked by a runtime through the real forwarder. All paths are the
product's defaults, but those of a second agent on the same node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from calipy.cni import wiring
from calipy.cni.protocol import PodReference
from calipy.datastore.sqlite import SQLiteStore
from calipy.explain import query
from calipy.explain.report import EndpointReport, NodeReport
from calipy.lab.cni_failures import CniFailure
from calipy.lab.cni_results import Added
from calipy.lab.executions import execute
from calipy.lab.machines import Machine, Process
from calipy.lab.mounts import mount
from calipy.lab.runner import Runtime
from calipy.resources import ip_pools, ipam_blocks, ipam_handles, pods
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta, decode

PREFIX = "calipy-t"
POOL4, POOL6 = "10.123.0.0/24", "fd00:7b::/116"
CALIPY = (sys.executable, "-P", "-m", "calipy")
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "CALICO_IPV4POOL_CIDR": POOL4,
    "CALICO_IPV6POOL_CIDR": POOL6,
    "CALIPY_LOG_LEVEL": "debug",
}


class Node:
    """A machine with an agent, and its container runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.state, self.net = folder / "store", folder / "state", folder / "net.d"
        binds = {
            "/var/lib/calipy": self.store, "/var/lib/calico": self.state,
            "/etc/cni/net.d": self.net, "/opt/cni/bin": folder / "bin",
        }  # fmt: skip
        self.machine = Machine("n1", folder / "n1", binds)
        self.runtime = Runtime(self.machine.execute, self.net, folder / "cache")
        self._other = 0

    async def start(self, **environment: str) -> None:
        """Machine, its uplink, forwarder, agent."""
        await self.boot()
        await self.start_agent(**environment)
        await self.ready()

    async def boot(self) -> None:
        """All but the agent."""
        await self.machine.start()
        for command in (
            "link add eth0 type veth peer name eth0p", "link set eth0p up", "link set eth0 up",
            "address add 10.99.0.1/24 dev eth0", "address add fd00:99::1/64 dev eth0 nodad",
            "route add default dev eth0",
        ):  # fmt: skip
            await self.run("ip", *command.split())
        await self.run(*CALIPY, "install-cni")

    async def start_agent(self, *, restart: bool = True, **environment: str) -> None:
        """The agent; `ready` waits for it."""
        await self.machine.spawn("agent", (*CALIPY, "agent"), {**ENVIRONMENT, **environment}, restart=restart)

    @property
    def agent(self) -> Process:
        return self.machine.process("agent")

    async def ready(self) -> None:
        """Waits until ADD can be served."""
        await until(lambda: self.status_or_none(), "the agent is ready")

    async def status_or_none(self) -> NodeReport | None:
        try:
            found = await self.ask("status", NodeReport)
        except query.Unanswered:
            return None
        return found if not found.obstacle else None

    async def ask(self, question: str, kind: Any) -> Any:
        return await query.ask(self.inside("/run/calipy/query.sock"), question, kind)

    def inside(self, path: str) -> Path:
        """A file of the machine as the host sees it."""
        return Path(f"/proc/{self.machine.pid}/root{path}")

    async def run(self, *argv: str, **more: Any) -> str:
        return (await self.machine.run(*argv, **more)).text

    async def netns(self, name: str) -> str:
        """A container's namespace; made where it is missing."""
        if not self.inside(f"/run/netns/{name}").exists():
            await self.machine.make_netns(name)
        return f"/run/netns/{name}"

    def other(self, version: str = "1.1.0", **plugin: object) -> Runtime:
        """A runtime with a configuration of its own."""
        self._other += 1
        folder = self.folder / f"net{self._other}"
        folder.mkdir()
        capabilities = {"io.kubernetes.cri.pod-annotations": True}
        plugins = [{"type": "calipy-cni", "capabilities": capabilities, **plugin}]
        document = {"name": "k8s-pod-network", "cniVersion": version, "plugins": plugins}
        (folder / "10.conflist").write_text(json.dumps(document))
        return Runtime(self.machine.execute, folder, self.folder / "cache")

    async def add(self, name: str, runtime: Runtime | None = None, pod: str = "", **notes: str) -> Added:
        """ADD for a pod of the container's name, as containerd asks; `notes`: Calico's annotations."""
        asked = {"io.kubernetes.cri.pod-annotations": annotations(**notes)}
        return await (runtime or self.runtime).add(
            name, await self.netns(name), args=arguments(pod or name), capabilities=asked
        )

    async def delete(self, name: str, runtime: Runtime | None = None, pod: str = "", netns: str | None = None) -> None:
        """DEL."""
        where = f"/run/netns/{name}" if netns is None else netns
        await (runtime or self.runtime).delete(name, where, args=arguments(pod or name))

    async def check(self, name: str) -> None:
        """CHECK."""
        await self.runtime.check(name, f"/run/netns/{name}", args=arguments(name))

    async def pings(self, source: str, target: str) -> bool:
        """One echo from a container (empty: from the node)."""
        where = ("ip", "netns", "exec", source) if source else ()
        done = await self.machine.run(*where, "ping", "-c1", "-W2", target, check=False)
        return done.status == 0

    def rows(self, kind: Any) -> list[Any]:
        """The store's objects of a kind, read beside the agent."""
        with contextlib.closing(sqlite3.connect(self.store / "datastore.sqlite3")) as connection:
            found = connection.execute("SELECT text FROM objects WHERE kind = ?", (kind.name,)).fetchall()
        return [decode(kind, text) for (text,) in found]

    async def left(self) -> dict[str, object]:
        """What is there of any container, anywhere."""
        links = json.loads(await self.run("ip", "-j", "link"))
        routes = await self.run("ip", "-o", "route", "show", "proto", "80", "type", "unicast")
        routes6 = await self.run("ip", "-o", "-6", "route", "show", "proto", "80", "type", "unicast")
        table = await self.run("nft", "list", "table", "inet", "calipy")
        blocks = [block for block in self.rows(ipam_blocks.KIND) if any(e is not None for e in block.spec.allocations)]
        found = {
            "links": [link["ifname"] for link in links if link["ifname"].startswith("cali")],
            "routes": routes + routes6,
            "rules": [line for line in table.splitlines() if '"cali' in line and "cali*" not in line],
            "endpoints": await self.ask("endpoints", tuple[EndpointReport, ...]),
            "blocks": [block.spec.cidr for block in blocks],
            "handles": [handle.spec.handle_id for handle in self.rows(ipam_handles.KIND)],
            "pods": [pod.metadata.name for pod in self.rows(pods.KIND)],
            "records": [path.name for path in (self.state / "attachments").iterdir()],
        }
        return {name: value for name, value in found.items() if value}

    async def stop(self) -> None:
        """Off, and nothing on the host."""
        await self.machine.power_cut()
        if self.store.is_mount():
            await execute(["umount", str(self.store)])


def arguments(pod: str) -> dict[str, str]:
    """CNI_ARGS as containerd gives them."""
    return {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": pod, "K8S_POD_UID": "u"}


def annotations(**notes: str) -> dict[str, str]:
    """Calico's."""
    return {f"cni.projectcalico.org/{key}": value for key, value in notes.items()}


async def until(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
    """Waits for what no event tells of here: another process's doing."""
    async with asyncio.timeout(seconds):
        for _ in range(100_000):
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


def sweep() -> None:
    """Ends what a test run left whose process is gone."""
    for folder in Path("/tmp").glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            asyncio.run(Node(folder).stop())
            shutil.rmtree(folder)


@contextlib.contextmanager
def folder_of_a_test() -> Iterator[Path]:
    """Short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    """One node for all tests that leave it as it was."""
    sweep()
    with folder_of_a_test() as folder:
        node = Node(folder)
        try:
            asyncio.run(node.start())
            yield node
        finally:
            print((folder / "n1/agent.log").read_text()[-20000:])
            asyncio.run(node.stop())


@pytest.fixture
async def node(shared: Node) -> AsyncIterator[Node]:
    """The shared node; the test takes back all that it has added."""
    yield shared
    assert await shared.left() == {}


@pytest.fixture
async def own() -> AsyncIterator[Node]:
    """A node of the test's own, off yet."""
    with folder_of_a_test() as folder:
        node = Node(folder)
        try:
            yield node
        finally:
            if (folder / "n1/agent.log").exists():
                print((folder / "n1/agent.log").read_text()[-20000:])
            await node.stop()


# --- what ADD makes ---


async def test_two_pods(node: Node) -> None:
    one, two = await node.add("one"), await node.add("two")
    try:
        for source, target in (("one", two), ("two", one), ("", one)):
            for address in target.addresses:
                assert await node.pings(source, address), (source, address)
        await node.check("one")
    finally:
        await node.delete("one")
        await node.delete("two")
    assert "eth0" not in await node.run("ip", "-n", "one", "-br", "link")


async def test_calicos_result_and_wiring(node: Node) -> None:
    added = await node.add("one")
    host = wiring.host_interface("cali", PodReference("shop", "one"), "one")
    four, six = added.addresses
    link = json.loads(await node.run("ip", "-d", "-j", "link", "show", host))[0]
    pod = json.loads(await node.run("ip", "-n", "one", "-j", "link", "show", "eth0"))[0]
    assert json.loads(added.raw) == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": host},
            {"name": "eth0", "mac": pod["address"], "mtu": 1500, "sandbox": "/run/netns/one"},
        ],
        "ips": [{"address": f"{four}/32", "interface": 1}, {"address": f"{six}/128", "interface": 1}],
        "routes": [{"dst": block} for block in (f"{four.rpartition('.')[0]}.{int(four.split('.')[3]) & 192}/26",
                                                json.loads(added.raw)["routes"][1]["dst"])],
        "dns": {},
    }  # fmt: skip
    assert json.loads(added.raw)["routes"][1]["dst"].endswith("/122")
    assert (link["address"], link["ifalias"], link["mtu"]) == ("ee:ee:ee:ee:ee:ee", "one", 1500)
    assert (await node.run("ip", "-n", "one", "route")).split() == (
        ["default", "via", "169.254.1.1", "dev", "eth0", "169.254.1.1", "dev", "eth0", "scope", "link"]
    )
    assert "default via fe80::ecee:eeff:feee:eeee dev eth0" in await node.run("ip", "-n", "one", "-6", "route")
    assert f"inet {four}/32 scope global eth0" in await node.run("ip", "-n", "one", "address")
    assert f"inet6 {six}/128 scope global" in await node.run("ip", "-n", "one", "address")
    assert f"{four} proto 80 scope link metric 1024" in await node.run("ip", "route", "show", "dev", host)
    assert f"{six} proto 80 metric 1024" in await node.run("ip", "-6", "route", "show", "dev", host)
    for name, value in {
        f"ipv4.conf.{host}.route_localnet": 1, f"ipv4.neigh.{host}.proxy_delay": 0, f"ipv4.conf.{host}.proxy_arp": 1,
        f"ipv4.conf.{host}.forwarding": 1, f"ipv6.conf.{host}.accept_dad": 0, f"ipv6.conf.{host}.disable_ipv6": 0,
        f"ipv6.conf.{host}.proxy_ndp": 1, f"ipv6.conf.{host}.forwarding": 1, f"ipv6.conf.{host}.accept_ra": 0,
    }.items():  # fmt: skip
        path = "net." + name
        assert (await node.run("sysctl", "-n", path)).strip() == str(value), name
    keys = ("all.forwarding", "all.disable_ipv6", "eth0.accept_dad")
    for name in ("ipv4.ip_forward", *(f"ipv6.conf.{key}" for key in keys)):
        assert (await node.run("ip", "netns", "exec", "one", "sysctl", "-n", f"net.{name}")).strip() == "0", name
    (stored,) = node.rows(pods.KIND)
    notes = stored.metadata.annotations
    assert (notes[pods.POD_IP], notes[pods.POD_IPS]) == (f"{four}/32", f"{four}/32,{six}/128")
    assert notes[pods.CONTAINER_ID] == "one"
    await node.delete("one")


async def test_a_pod_that_comes_and_goes_costs_no_read_of_the_kernel_and_no_other_pods_rules(node: Node) -> None:
    for name in ("one", "two"):
        await node.add(name)
    before = await node.ask("status", NodeReport)
    await node.add("three")
    between = await node.ask("status", NodeReport)
    await node.delete("three")
    after = await node.ask("status", NodeReport)
    reads = [{driver.driver: driver.reads for driver in report.drivers} for report in (before, between, after)]
    assert reads[0] == reads[1] == reads[2]
    assert before.repairs == after.repairs
    assert (between.compiled - before.compiled, after.compiled - between.compiled) == (1, 1)
    await node.delete("one")
    await node.delete("two")


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
async def test_every_version_of_the_specification(node: Node, version: str) -> None:
    runtime = node.other(version)
    document = json.loads((await node.add("one", runtime)).raw)
    assert document["cniVersion"] == version
    assert [entry.get("version") for entry in document["ips"]] == ([None] * 2 if version >= "1.0.0" else ["4", "6"])
    assert ("mtu" in document["interfaces"][1]) == (version >= "1.1.0")
    if version >= "0.4.0":
        await runtime.check("one", "/run/netns/one", args=arguments("one"))
    await node.delete("one", runtime)
    assert set((await runtime.versions())["calipy-cni"]) >= {version}


ASKED = {
    "ipAddrs": ({"ipAddrs": '["10.123.0.77"]'}, ("10.123.0.77",), ""),
    "ipAddrs of both families": (
        {"ipAddrs": '["fd00:7b::a5", "10.123.0.78"]'}, ("10.123.0.78", "fd00:7b::a5"), "",
    ),
    "ipv4pools": ({"ipv4pools": '["default-ipv4-ippool"]', "ipFamilies": '["IPv4"]'}, ("10.123.0.",), ""),
    "ipv6pools": ({"ipv6pools": f'["{POOL6}"]', "ipFamilies": '["IPv6"]'}, ("fd00:7b::",), ""),
    "ipFamilies": ({"ipFamilies": '["IPv6"]'}, ("fd00:7b::",), ""),
    "hwAddr": ({"hwAddr": "02:00:00:00:00:77"}, ("10.123.0.", "fd00:7b::"), "02:00:00:00:00:77"),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
async def test_annotations(node: Node, case: str) -> None:
    notes, addresses, mac = ASKED[case]
    added = await node.add("one", **notes)
    assert all(given.startswith(asked) for given, asked in zip(added.addresses, addresses, strict=True))
    assert added.interfaces[1].mac == mac or not mac
    assert await node.pings("", added.addresses[0])
    await node.check("one")
    await node.delete("one")


@pytest.mark.parametrize(
    ("arguments_", "container"),
    [({"IgnoreUnknown": "1", "K8S_POD_NAME": "web"}, "a1b2c3d4e5f60718"), ({}, "k8s.io-x1")],
    ids=["podman", "ctr"],
)
async def test_no_kubernetes_at_all(node: Node, arguments_: Mapping[str, str], container: str) -> None:
    added = await node.runtime.add(container, await node.netns("plain"), args=arguments_)
    assert added.interfaces[0].name == f"cali{container[:11]}"
    assert all([await node.pings("", address) for address in added.addresses])
    await node.runtime.check(container, "/run/netns/plain", args=arguments_)
    await node.runtime.delete(container, "", args=arguments_)


# --- DEL, CHECK, GC ---


async def test_del_any_number_of_times_in_any_order(node: Node) -> None:
    await node.delete("never")
    for name in ("one", "two", "three"):
        await node.add(name)
    fresh = Runtime(node.machine.execute, node.net, node.folder / "empty-cache")
    await node.delete("two", fresh, netns="")  # no prevResult
    await node.delete("two")
    await node.machine.delete_netns("three")
    await node.delete("three")
    await node.delete("one", netns="")
    for name in ("one", "two", "three"):
        await node.delete(name, netns="")


async def test_a_late_del_of_an_old_sandbox(node: Node) -> None:
    old = await node.add("old", pod="web")
    new = await node.add("new", pod="web")
    assert old.interfaces[0] == new.interfaces[0]
    assert not set(old.addresses) & set(new.addresses)
    await node.delete("old", pod="web", netns="")
    await node.runtime.check("new", "/run/netns/new", args=arguments("web"))
    assert await node.pings("", new.addresses[0])
    (stored,) = node.rows(pods.KIND)
    assert stored.metadata.annotations[pods.POD_IP] == f"{new.addresses[0]}/32"
    await node.delete("new", pod="web")


CHANGES = {
    "link of the node": ("ip link delete {host}", "link {host} is gone from the node"),
    "link of the container": ("ip -n one link set eth0 name eth7", "link eth0 is gone from the container"),
    "MTU": ("ip link set {host} mtu 1300", "link {host}: MTU is 1300, it should be 1500"),
    "MAC": ("ip -n one link set eth0 address 02:00:00:00:00:99", "link eth0: MAC address is '02:00:00:00:00:99'"),
    "address": ("ip -n one address delete {four}/32 dev eth0", "address {four}/32 is missing on eth0"),
    "route": ("ip -n one route delete default", "route 0.0.0.0/0 via 169.254.1.1 dev eth0 is missing"),
    "neighbour": ("ip -n one neigh delete 169.254.1.1 dev eth0", "neighbour 169.254.1.1 is unknown"),
    "sysctl": ("sysctl -q -w net.ipv4.conf.{host}.proxy_arp=0", "setting net.ipv4.conf.{host}.proxy_arp is 0"),
    "sysctl of the container": (
        "ip netns exec one sysctl -q -w net.ipv4.ip_forward=1", "setting net.ipv4.ip_forward is 1, it should be 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
async def test_check_names_the_first_difference(node: Node, case: str) -> None:
    command, words = CHANGES[case]
    added = await node.add("one")
    names = {"host": added.interfaces[0].name, "four": added.addresses[0]}
    await node.check("one")
    await node.run(*command.format(**names).split())
    with pytest.raises(CniFailure) as caught:
        await node.check("one")
    assert caught.value.code == 101
    assert words.format(**names) in caught.value.msg
    await node.delete("one")
    if case == "link of the container":
        assert "eth7" not in await node.run("ip", "-n", "one", "link")


async def test_check_sees_a_lost_allocation_and_what_prev_result_says(node: Node) -> None:
    added = await node.add("one")
    kept = node.folder / "cache/results/k8s-pod-network-one-eth0"
    before = kept.read_text()
    kept.write_text(before.replace(added.addresses[0], "10.123.0.250"))
    with pytest.raises(CniFailure, match=r"prevResult: addresses is .*10\.123\.0\.250"):
        await node.check("one")
    kept.write_text(before)
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    handle = await store.get(ipam_handles.KIND, "k8s-pod-network.one")
    await store.delete(ipam_handles.KIND, handle)
    with pytest.raises(CniFailure, match="is not allocated to handle k8s-pod-network.one"):
        await node.check("one")
    await store.create(ipam_handles.KIND, handle.value)
    await store.close()
    await node.check("one")
    await node.delete("one")


async def test_add_again_gives_the_same_or_mends(node: Node) -> None:
    first = await node.add("one")
    assert await node.add("one") == first
    await node.run("ip", "link", "delete", first.interfaces[0].name)
    again = await node.add("one")
    assert await node.pings("", again.addresses[0])
    await node.check("one")
    await node.delete("one")


async def test_gc(node: Node) -> None:
    for name in ("one", "two", "three"):
        await node.add(name)
    asked = {"CNI_COMMAND": "GC", "CNI_PATH": "/opt/cni/bin"}
    plan = await dry_run(node, asked, [{"containerID": "one", "ifname": "eth0"}])
    assert [(entry["containerID"], entry["ifname"]) for entry in plan] == [("three", "eth0"), ("two", "eth0")]
    assert all(len(entry["addresses"]) == 2 for entry in plan)
    await node.check("two")
    with locked(node.store):  # the ADD of the fourth waits in its course
        async with asyncio.TaskGroup() as group:
            adding = group.create_task(node.add("four"))
            await until(lambda: (node.state / "attachments/k8s-pod-network@four@eth0").exists(), "ADD is at work")
            assert [entry["containerID"] for entry in await dry_run(node, asked, [])] == ["one", "three", "two"]
            release_lock(node)
    assert adding.result().addresses
    plan = await dry_run(node, asked, [{"containerID": name, "ifname": "net1"} for name in ("one", "two")])
    assert len(plan) == 4, "the interface counts"
    blind = Runtime(node.machine.execute, node.net, node.folder / "empty-cache")
    await blind.gc([("one", "eth0")])
    await node.check("one")
    assert [report.container_id for report in await node.ask("endpoints", tuple[EndpointReport, ...])] == ["one"]
    await node.runtime.gc([])


async def dry_run(node: Node, env: Mapping[str, str], valid: list[Mapping[str, str]]) -> list[dict[str, Any]]:
    """GC through the agent's socket that only shows."""
    stdin = {"cniVersion": "1.1.0", "name": "k8s-pod-network", "cni.dev/valid-attachments": valid}
    reader, writer = await asyncio.open_unix_connection(node.inside("/run/calipy/cni.sock"))
    writer.write(json.dumps({"env": env, "stdin": json.dumps(stdin), "dryRun": True}).encode() + b"\n")
    answer = await reader.read()
    writer.close()
    assert answer[:1] == b"0", answer
    found = json.loads(answer[1:])["wouldRelease"]
    return sorted(found, key=lambda entry: str(entry["containerID"]))


LOCKS: dict[Path, sqlite3.Connection] = {}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The store locked by another process; `release_lock` ends it sooner."""
    connection = LOCKS[folder] = sqlite3.connect(folder / "datastore.sqlite3", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("ROLLBACK")
        connection.close()


def release_lock(node: Node) -> None:
    """Ends `locked`."""
    LOCKS[node.store].execute("ROLLBACK")


# --- half-way ---


async def test_a_runtime_killed_in_the_middle_of_add(node: Node) -> None:
    with locked(node.store):
        process = await forwarder(node, "one")
        await until(lambda: (node.state / "attachments/k8s-pod-network@one@eth0").exists(), "ADD is at work")
        process.kill()
        await process.wait()
    await until(lambda: not list((node.state / "attachments").iterdir()), "it is rolled back")


@pytest.mark.parametrize("milliseconds", [1, 3, 5, 7, 9])
async def test_a_runtime_killed_anywhere_in_add(node: Node, milliseconds: int) -> None:
    process = await forwarder(node, "one")
    await asyncio.sleep(milliseconds / 1000)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    await node.delete("one", netns="")  # as runtimes do then


async def forwarder(node: Node, name: str) -> asyncio.subprocess.Process:
    """An ADD that the test can kill."""
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0", "CNI_NETNS": await node.netns(name),
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments(name).items()),
    }  # fmt: skip
    # In the machine's namespaces, but no child of a nsenter that would outlive it.
    argv = ("nsenter", "-t", str(node.machine.pid), "--net", "--mount", "--", "/opt/cni/bin/calipy-cni")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, env=env, stdin=pipe, stdout=asyncio.subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"cniVersion": "1.1.0", "name": "k8s-pod-network"}).encode())
    process.stdin.close()
    return process


async def test_thirty_at_once(node: Node) -> None:
    names = [f"p{n}" for n in range(30)]
    for name in names:
        await node.netns(name)
    added = await asyncio.gather(*map(node.add, names))
    assert len({address for result in added for address in result.addresses}) == 60
    await asyncio.gather(*map(node.delete, names))


# --- what is refused ---

REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], int, tuple[str, ...]]] = {
    "unknown version": ({"version": "2.0.0"}, {}, 1, ("cniVersion is '2.0.0'", "0.3.1")),
    "bad conf: MTU": ({"mtu": "many"}, {}, 7, ("mtu is 'many'", "68 to 65535")),
    "bad conf: node": ({"nodename": "n9"}, {}, 7, ("nodename is 'n9'", "'n1'", "leave nodename out")),
    "bad conf: IPAM": ({"ipam": {"type": "host-local"}}, {}, 7, ("ipam.type is 'host-local'", "calico-ipam")),
    "bad conf: no such feature": ({"device_type": "netkit"}, {}, 2, ("device_type is 'netkit'", "veth")),
    "unknown pool": ({"ipam": {"ipv4_pools": ["gold"]}}, {}, 100, ("gold",)),
    "unmasked CIDR": ({"ipam": {"ipv4_pools": ["10.123.0.1/24"]}}, {}, 100, ("10.123.0.1/24",)),
    "annotation: no JSON": ({}, {"ipAddrs": "10.123.0.5"}, 104, ("is '10.123.0.5'", "JSON list", "write it as")),
    "annotation: no address": ({}, {"ipAddrs": '["x"]'}, 104, ("ipAddrs", "'x' is no IP address", "without prefix")),
    "annotation: family": ({}, {"ipFamilies": '["IPv5"]'}, 104, ("ipFamilies", "IPv5", '"IPv4" and "IPv6"')),
    "annotation: MAC": ({}, {"hwAddr": "01:00:00:00:00:01"}, 104, ("hwAddr is '01:", "not the address of one host")),
    "annotation: pool": ({}, {"ipv4pools": '["gold"]'}, 100, ("gold",)),
    "address outside": ({}, {"ipAddrs": '["192.0.2.1"]'}, 100, ("192.0.2.1", "lies in no", "choose another")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_bad_input_is_refused_and_changes_nothing(node: Node, case: str) -> None:
    conf, notes, code, words = REFUSED[case]
    with pytest.raises(CniFailure) as caught:
        await node.add("one", node.other(**conf), **notes)
    assert caught.value.code == code, str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert await node.left() == {}
    assert "eth0" not in await node.run("ip", "-n", "one", "link")


@pytest.mark.parametrize(
    ("netns", "words"),
    [("/run/netns/absent", "nothing can be opened there"), ("/proc/1/ns/net", "the node's own"),
     ("/etc/hostname", "no network namespace")],
)  # fmt: skip
async def test_a_wrong_namespace(node: Node, netns: str, words: str) -> None:
    with pytest.raises(CniFailure, match=words) as caught:
        await node.runtime.add("one", netns, args=arguments("one"))
    assert caught.value.code == 4
    assert netns in caught.value.msg


async def test_an_address_that_another_holds(node: Node) -> None:
    held = await node.add("one")
    with pytest.raises(CniFailure, match=held.addresses[0]) as caught:
        await node.add("two", ipAddrs=f'["{held.addresses[0]}"]')
    assert caught.value.code == 100
    await node.check("one")
    await node.delete("one")


async def test_an_interface_that_is_there_already(node: Node) -> None:
    await node.netns("taken")
    await node.run("ip", "-n", "taken", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
    with pytest.raises(CniFailure, match="eth0 in the container: can't be made: the kernel says File exists") as caught:
        await node.add("taken")
    assert caught.value.code == 102
    await node.run("ip", "-n", "taken", "link", "delete", "eth0")


async def test_a_full_pool(node: Node) -> None:
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    tiny = IPPool(metadata=ObjectMeta(name="tiny"), spec=IPPoolSpec(cidr="10.124.0.0/31", block_size=31))
    made = await store.create(ip_pools.KIND, tiny)
    runtime = node.other(ipam={"ipv4_pools": ["tiny"], "assign_ipv6": "false"})
    try:
        await until(lambda: adds(node, runtime), "the pool is known")
        await node.add("two", runtime)
        with pytest.raises(CniFailure, match=r"no IPv4 address is free in pools? tiny.*; add a pool") as caught:
            await node.add("three", runtime)
        assert caught.value.code == 100
        await node.delete("one")
        assert (await node.add("three", runtime)).addresses
    finally:
        for name in ("one", "two", "three"):
            await node.delete(name)
        await store.delete(ip_pools.KIND, made)
        await store.close()


async def adds(node: Node, runtime: Runtime) -> bool:
    """Whether a pool that was just made can be drawn from."""
    with contextlib.suppress(CniFailure):
        await node.add("one", runtime)
        return True
    return False


async def test_overlapping_pools(node: Node) -> None:
    """Written past every check: an address must not be given out from both."""
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    pool = IPPool(metadata=ObjectMeta(name="twin"), spec=IPPoolSpec(cidr="10.123.0.128/25", block_size=27))
    made = await store.create(ip_pools.KIND, pool)
    try:
        await until(lambda: "overlaps 10.123.0.0/24 of IPPool/" in node.agent.log.read_text(), "the pool is judged")
        failure = await failing(node.add("one", node.other(ipam={"ipv4_pools": ["twin"]})))
        assert failure.code == 100
        assert "pool twin" in str(failure)
    finally:
        await store.delete(ip_pools.KIND, made)
        await store.close()


async def test_a_node_without_a_default_route(node: Node) -> None:
    """Where the kernel answers no ARP for 169.254.1.1."""
    await node.run("ip", "route", "delete", "default")
    one, two = await node.add("one"), await node.add("two")
    assert all([await node.pings("one", address) for address in two.addresses])
    assert all([await node.pings("", address) for address in one.addresses])
    await node.delete("one")
    await node.delete("two")
    await node.run("ip", "route", "add", "default", "dev", "eth0")


# --- the agent comes and goes ---


async def status(node: Node) -> str:
    """What STATUS says; empty = ready."""
    try:
        await node.runtime.status()
    except CniFailure as failure:
        return f"{failure.code} {failure}"
    return ""


async def test_status_stays_well_through_a_restart_while_add_says_try_again(own: Node) -> None:
    await own.start()
    await own.netns("one")
    said: list[str] = []
    answers: set[int] = set()
    over = asyncio.Event()

    async def watch() -> None:
        while not over.is_set():
            said.append(await status(own))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.1)

    async def attach() -> bool:
        try:
            await own.add("one")
        except CniFailure as failure:
            answers.add(failure.code)
            return False
        return True

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await own.agent.restart()
        await until(lambda: not own.inside("/run/calipy/cni.sock").exists() or attach_failed(answers, attach), "gone")
        await until(attach, "ADD is served again")
        over.set()
    assert said
    assert set(said) == {""}
    assert answers == {11}
    await own.delete("one")


async def attach_failed(answers: set[int], attach: Callable[[], Any]) -> bool:
    """True once an ADD was told to try again."""
    await attach()
    return bool(answers)


async def test_status_fails_before_the_first_readiness_and_after_the_grace_period(own: Node) -> None:
    await own.boot()
    conflist = {"name": "k8s-pod-network", "cniVersion": "1.1.0", "plugins": [{"type": "calipy-cni"}]}
    (own.net / "10-calipy.conflist").write_text(json.dumps(conflist))
    assert "50 " in await status(own)
    assert "has not been ready since this node booted" in await status(own)
    await own.start_agent(restart=False, CALIPY_STATUS_GRACE_PERIOD="1")
    await own.ready()
    await until(lambda: says(own, ""), "ready")
    await own.agent.kill()
    await until(lambda: says(own, "the CalIPy agent is absent or can't attach pods"), "not ready")
    with pytest.raises(CniFailure) as caught:
        await own.add("one")
    assert caught.value.code == 11


async def says(node: Node, words: str) -> bool:
    """Whether STATUS says it."""
    said = await status(node)
    return words in said if words else not said


async def test_a_killed_agents_successor_writes_nothing(own: Node) -> None:
    await own.start()
    added = [await own.add(name) for name in ("one", "two")]
    before = (await own.agent.status()).pid
    await own.run("ip", "netns", "exec", "one", "ping", "-c1", "-W2", added[1].addresses[0])
    await own.agent.kill()
    assert await own.pings("one", added[1].addresses[1])
    await until(lambda: successor(own, before), "the next agent is ready")
    report = await own.ask("status", NodeReport)
    assert {driver.driver: driver.writes for driver in report.drivers if driver.writes} == {}
    assert report.repairs == {}
    assert await own.pings("two", added[0].addresses[0])
    await own.check("one")
    await own.delete("one")
    await own.delete("two")
    assert await own.left() == {}


async def successor(node: Node, before: int) -> bool:
    """Whether another agent than that is ready."""
    found = await node.agent.status()
    return found.pid not in (0, before) and await node.status_or_none() is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_an_agent_that_ends_in_the_middle_of_add(own: Node, number: int) -> None:
    await own.start()
    with locked(own.store):
        async with asyncio.TaskGroup() as group:
            adding = group.create_task(failing(own.add("one")))
            await until(lambda: (own.state / "attachments/k8s-pod-network@one@eth0").exists(), "ADD is at work")
            await own.agent.signal(number)
    assert adding.result().code == 11
    await own.ready()
    await until(lambda: nothing(own), "the next agent has taken it back")
    await own.add("one")
    await own.delete("one")
    assert await own.left() == {}


async def nothing(node: Node) -> bool:
    """Whether an agent is there and nothing is left of any container."""
    with contextlib.suppress(query.Unanswered):
        return not await node.left()
    return False


async def failing(work: Any) -> CniFailure:
    """The failure of what must fail."""
    try:
        await work
    except CniFailure as failure:
        return failure
    raise AssertionError("it has succeeded")


async def test_another_agent_on_the_node(own: Node) -> None:
    await own.start()
    environment = {
        **ENVIRONMENT, "CALIPY_RUN_DIR": "/run/second", "CALIPY_STATE_DIR": "/run/second-state",
        "CNI_NET_DIR": "/run/second-net", "FELIX_HEALTHENABLED": "false",
    }  # fmt: skip
    second = await own.machine.spawn("second", (*CALIPY, "agent"), environment)
    await until(lambda: "table inet calipy is owned by " in second.log.read_text(), "it has seen the first")
    await own.add("one")
    await own.check("one")
    assert not own.inside("/run/second-net").exists()
    await second.stop()
    await own.delete("one")
    assert await own.left() == {}


# --- the store is away ---


@contextlib.contextmanager
def away(node: Node, way: str) -> Iterator[str]:
    """The store can't be used, for the reason that is given, and then it can."""
    path, filler = node.store / "datastore.sqlite3", node.store / "filler"
    if way == "locked":
        with locked(node.store):
            yield "another process keeps it locked"
    elif way == "full":
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield "there is no space left on its device"
        filler.unlink()
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.read_bytes()
        path.write_bytes(before[:16] + b"\xa5" * (len(before) - 16))
        yield "it is no SQLite database"
        path.write_bytes(before)


@pytest.mark.parametrize("way", ["locked", "corrupt", "full"])
async def test_the_store_is_away(own: Node, way: str) -> None:
    """DEL detaches, leaves a release on record and succeeds; ADD says why it can't; all is well when it is back."""
    if way == "full":
        own.store.mkdir()
        mount("small", str(own.store), "tmpfs", options="size=16m")
    await own.start()
    added = await own.add("one")
    with away(own, way) as reason:
        await own.delete("one")
        assert added.interfaces[0].name not in await own.run("ip", "-br", "link")
        assert "eth0" not in await own.run("ip", "-n", "one", "-br", "link")
        (record,) = (own.state / "attachments").iterdir()
        assert json.loads(record.read_bytes())["state"] == "leaving"
        if way != "corrupt":
            assert [handle.spec.handle_id for handle in own.rows(ipam_handles.KIND)] == ["k8s-pod-network.one"]
        failure = await failing(own.add("two"))
        assert failure.code == 11
        assert "the store is away: /var/lib/calipy/datastore.sqlite3: " in str(failure)
        assert reason in str(failure)
        assert await status(own) == ""
    if way == "corrupt":
        await own.agent.restart()  # the remedy that is given
    await until(lambda: nothing(own), "the release is replayed")
    await own.add("two")
    await own.check("two")
    await own.delete("two")
    assert await own.left() == {}


# --- old flows ---

TALK = """
import socket, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(("10.96.0.9", 5000))
tcp = socket.create_connection(("10.96.0.9", 5001))
tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print("up", flush=True)
while True:
    for sender in (udp, tcp):
        try:
            sender.send(b"old")
        except OSError as error:
            print(error, flush=True)
    print("sent", flush=True)
    time.sleep(0.005)
"""
LISTEN = """
import select, socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 5000))
tcp = socket.create_server(("", 5001))
print("up", flush=True)
connection, _ = tcp.accept()
while True:
    for one in select.select([udp, connection], [], [])[0]:
        print("udp" if one is udp else "tcp", one.recv(99), flush=True)
"""
SNIFF = """
import socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
print("up", flush=True)
while True:
    packet = packets.recv(2000)
    if packet[30:34] == bytes([10, 123, 0, 200]) and packet[23] in (6, 17):
        print("got", packet[23], flush=True)
"""


async def test_an_open_flow_to_a_deleted_pod_never_reaches_the_next_holder(own: Node) -> None:
    """Through a Service's address: the translation of an open flow outlives the Service's rule."""
    await own.start()

    async def within(name: str, process: str, code: str, word: str) -> Process:
        argv = ("ip", "netns", "exec", name, sys.executable, "-c", code)
        made = await own.machine.spawn(process, argv, ENVIRONMENT, restart=False)
        await until(lambda: word in made.log.read_text(), f"{process}: {word}")
        return made

    await own.run("nft", "add table ip service; add chain ip service c { type nat hook prerouting priority -100; }; "
                         "add rule ip service c ip daddr 10.96.0.9 dnat to 10.123.0.200")  # fmt: skip
    await own.add("client")
    await own.add("old", ipAddrs='["10.123.0.200"]')
    server = await within("old", "server", LISTEN, "up")
    talk = await within("client", "talk", TALK, "up")
    await until(lambda: {"udp b'old'", "tcp b'old'"} <= set(server.log.read_text().splitlines()), "both flows are open")
    await own.run("nft", "delete table ip service")  # as kube-proxy when the endpoint goes
    await own.delete("old")
    await own.netns("new")
    await own.run("ip", "-n", "new", "link", "set", "lo", "up")
    sniffer = await within("new", "sniffer", SNIFF, "up")
    added = await own.add("new", ipAddrs='["10.123.0.200"]')
    assert await own.pings("", added.addresses[0])
    sent = talk.log.read_text().count("sent")
    await until(lambda: talk.log.read_text().count("sent") >= sent + 60, "it goes on talking")
    assert "got" not in sniffer.log.read_text()
