"""The agent's edges on a real node: health, metrics and logs follow FelixConfiguration, bad objects are shown, a node
without an address waits for one, and a setting that can't be followed restarts the agent warm."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from calipy.datastore.sqlite import SQLiteStore
from calipy.explain.report import AddressReport, NodeReport
from calipy.node.check import Finding
from calipy.resources import (
    calipy_configurations,
    config_maps,
    felix_configurations,
    global_network_policies,
    ip_pools,
    nodes,
)
from calipy.resources.config_maps import ConfigMap
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.global_network_policies import GlobalNetworkPolicy
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta
from calipy.resources.nodes import NodeSpec
from tests.netns.test_agent_cni import CALIPY, ENVIRONMENT, Node, folder_of_a_test, until
from tests.unit.resources.objects import made


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with folder_of_a_test() as folder:
        found = Node(folder)
        try:
            yield found
        finally:
            print((folder / "n1/agent.log").read_text()[-8000:] if (folder / "n1/agent.log").exists() else "")
            await found.stop()


async def get(node: Node, path: str, port: int = 9099) -> tuple[int, str]:
    """Status and body of a request on the node; (0, "") where nobody listens."""
    script = (
        "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=5)\n"
        "try: c.request('GET', sys.argv[2]); r = c.getresponse(); print(r.status, r.read().decode())\n"
        "except ConnectionRefusedError: print('0 ')"
    )
    status, _, text = (await node.run(CALIPY[0], "-c", script, str(port), path)).partition(" ")
    return int(status), text


class Felix:
    """FelixConfiguration `default`, as an operator changes it."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store

    async def set(self, **spec: Any) -> None:
        """The whole spec."""
        value = FelixConfiguration(metadata=ObjectMeta(name="default"), spec=spec)
        async for page in self.store.list(felix_configurations.KIND):
            for stored in page.items:
                await self.store.delete(felix_configurations.KIND, stored)
        await self.store.create(felix_configurations.KIND, value)


async def test_health_metrics_and_logs_follow_felix_configuration(node: Node) -> None:
    await node.start(CALIPY_LOG_LEVEL="")
    assert (await get(node, "/readiness"))[0] == (await get(node, "/metrics", 9091))[0] == 0
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    felix = Felix(store)
    await felix.set(healthEnabled=True, logSeverityScreen="Debug")
    await until(lambda: _is(get(node, "/readiness"), 200), "readiness is served")
    status, text = await get(node, "/liveness")
    assert status == 200
    for component in ("CalculationGraph ", "InternalDataplaneMainLoop ", "EventLoop ", "Datastore ", "FelixStartup "):
        assert component in text
    await node.add("zero")
    await node.delete("zero")
    assert " DEBUG   cni.dispatch: ADD of container zero" in node.agent.log.read_text()

    await felix.set(healthEnabled=True, prometheusMetricsEnabled=True, prometheusMetricsPort=9191)
    await until(lambda: _is(get(node, "/metrics", 9191), 200), "metrics are served")
    await node.add("one")
    lines = (await get(node, "/metrics", 9191))[1].splitlines()
    metrics = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    for name, value in {
        "felix_active_local_endpoints": 1, "felix_resync_state": 3, "felix_cluster_num_hosts": 1,
        "felix_cluster_num_workload_endpoints": 1, 'felix_host{host="n1"}': 1,
    }.items():  # fmt: skip
        assert float(metrics[name]) == value, name
    for name in (
        "felix_route_table_num_routes", "felix_int_dataplane_apply_time_seconds_count",
        "felix_calc_graph_update_time_seconds_count", 'calipy_dataplane_writes_total{driver="nftables"}',
    ):  # fmt: skip
        assert float(metrics[name]) > 0, name
    assert float(metrics['felix_int_dataplane_failures_total{driver="nftables"}']) == 0
    await node.delete("one")
    await store.close()


async def _is(answer: Any, status: int) -> bool:
    return (await answer)[0] == status


async def test_a_port_that_is_taken_is_told_and_pods_go_on(node: Node) -> None:
    await node.boot()
    holder = "import socket, time; s = socket.create_server(('127.0.0.1', 9099)); time.sleep(3600)"
    await node.machine.spawn("holder", (CALIPY[0], "-c", holder), {})
    await until(lambda: _is(_code(node), 0), "the port is taken")
    await node.start_agent(FELIX_HEALTHENABLED="true")
    await node.ready()
    log = node.agent.log.read_text()
    assert "health can't be served on localhost:9099: Address already in use; set healthPort or healthHost" in log
    await node.add("one")
    await node.delete("one")
    await node.machine.process("holder").stop()
    await until(lambda: _is(get(node, "/liveness"), 200), "health is served once the port is free")


async def _code(node: Node) -> tuple[int, str]:
    script = "import socket; socket.create_connection(('127.0.0.1', 9099), 1).close()"
    return (await node.machine.run(CALIPY[0], "-c", script, check=False)).status, ""


async def test_a_bad_object_is_shown_and_the_last_good_one_stays(node: Node) -> None:
    await node.start()
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    overlapping = IPPoolSpec(cidr="10.123.0.0/16")
    await store.create(ip_pools.KIND, IPPool(metadata=ObjectMeta(name="wide"), spec=overlapping))
    found: dict[str, str] = {}

    async def refused() -> bool:
        report = await node.ask("status", NodeReport)
        found.update(report.refused)
        return "IPPool/wide" in found

    await until(refused, "the overlapping pool is refused")
    assert "spec.cidr: '10.123.0.0/16': overlaps 10.123.0.0/24 of IPPool/default-ipv4-ippool" in found["IPPool/wide"]
    await node.add("one")
    await node.delete("one")
    await store.close()


async def test_a_node_without_an_address_says_so_and_goes_on_when_it_has_one(node: Node) -> None:
    await node.boot()
    await node.run("ip", "address", "del", "10.99.0.1/24", "dev", "eth0")
    await node.start_agent(FELIX_HEALTHENABLED="true")
    await until(lambda: _is(get(node, "/readiness"), 503), "readiness fails")
    status, text = await get(node, "/readiness")
    assert (status, (await get(node, "/liveness"))[0]) == (503, 200)
    assert "no IPv4 address for this node by first-found" in text
    assert "127.0.0.1/8 on lo: not a global address" in text
    await node.run("ip", "address", "add", "10.99.0.7/24", "dev", "eth0")
    await node.run("ip", "route", "replace", "default", "dev", "eth0")
    await node.ready()
    assert (await get(node, "/readiness"))[0] == 200
    assert (await node.agent.status()).restarts == 0


async def test_a_name_server_that_never_answers_keeps_no_pod_waiting(node: Node) -> None:
    """The first agent finds the address by itself; its successor is to find it by a name that nobody looks up."""
    await node.start()
    await node.agent.stop()
    silence = (
        "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 53)); time.sleep(999)"
    )
    await node.machine.spawn("silence", (CALIPY[0], "-c", silence), {})
    await node.run("sh", "-c", "echo nameserver 127.0.0.1 > /tmp/resolv; mount --bind /tmp/resolv /etc/resolv.conf")
    await node.machine.spawn(
        "next", (*CALIPY, "agent"), {**ENVIRONMENT, "IP_AUTODETECTION_METHOD": "can-reach=archive.example"}
    )
    await node.ready()
    await node.add("one")
    await node.delete("one")
    report = await node.ask("status", NodeReport)
    assert (
        "archive.example can't be reached: no name server has told its address within 2 s"
        in report.problems["NodeAddress"]
    )


async def test_a_node_object_that_is_deleted_is_told_once_and_shown(node: Node) -> None:
    await node.boot()
    await node.start_agent(FELIX_HEALTHENABLED="true")
    await node.ready()
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    pool = IPPool(metadata=ObjectMeta(name="old"), spec=IPPoolSpec(cidr="10.200.0.0/24", ipip_mode="Always"))
    await store.create(ip_pools.KIND, pool)
    await until(lambda: "IPPool/old: ipipMode Always has no effect" in node.agent.log.read_text(), "IPIP is told")
    (stored,) = [item async for page in store.list(nodes.KIND) for item in page.items]
    await store.delete(nodes.KIND, stored)
    await until(lambda: _is(get(node, "/readiness"), 503), "readiness fails")
    assert f"Node/{stored.key.name} does not exist" in (await get(node, "/readiness"))[1]
    await asyncio.sleep(2.5)  # two more attempts
    assert node.agent.log.read_text().count("a restart makes its Node anew") == 1
    await store.close()


async def test_a_prefix_that_changes_restarts_the_agent_warm(node: Node) -> None:
    await node.start()
    before = (await node.agent.status()).pid
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    await Felix(store).set(interfacePrefix="eni,cali")

    async def again() -> bool:
        return (await node.agent.status()).pid not in (before, 0, None)

    await until(again, "the agent has been started again")
    await node.ready()
    said = "interfacePrefix was cali, and FelixConfiguration/default says eni,cali: a restart"
    assert said in node.agent.log.read_text()
    after = (await node.agent.status()).pid
    await node.add("one")
    links = json.loads(await node.run("ip", "-j", "link"))
    assert [link["ifname"][:3] for link in links if link["ifname"].startswith(("cali", "eni"))] == ["eni"]
    await node.delete("one")
    await asyncio.sleep(0.5)
    assert (await node.agent.status()).pid == after, "and only once"
    await store.close()


async def test_the_pods_mtu_follows_the_hosts_links(node: Node) -> None:
    await node.start()

    async def told(mtu: int) -> None:
        await until(lambda: (node.state / "mtu").read_text() == f"{mtu}\n", f"{mtu} is told", 5)

    await told(1500)
    await node.run("ip", "link", "set", "eth0", "mtu", "1400")
    await told(1400)
    await node.run("ip", "link", "add", "eth1", "mtu", "1300", "type", "veth", "peer", "name", "eth1p")
    await node.run("ip", "link", "set", "eth1", "up")
    await told(1300)
    await node.run("ip", "link", "delete", "eth1")
    await told(1400)


OPEN_TABLE = (
    "from calipy.netlink import nf_tables; nf_tables.OWNER = nf_tables.PERSIST = 0; from calipy.agent import run; run()"
)
"""An agent as on a kernel before 6.9, where a table has no owner."""


async def test_a_second_agent_touches_nothing_until_the_first_has_ended(node: Node) -> None:
    """Where the kernel keeps nobody from writing our table, and both would listen on the same sockets."""
    argv = (CALIPY[0], "-P", "-c", OPEN_TABLE)
    await node.boot()
    await node.machine.spawn("agent", argv, ENVIRONMENT, restart=False)
    await node.ready()
    assert "owner" not in (await node.run("nft", "list", "table", "inet", "calipy")).partition("{")[0]
    await node.add("one")
    first = (await node.agent.status()).pid
    sockets = {name: node.inside(f"/run/calipy/{name}.sock").stat().st_ino for name in ("cni", "query", "bgp")}
    second = await node.machine.spawn("second", argv, {**ENVIRONMENT, "CALIPY_LOG_LEVEL": "info"})
    said = f"another agent is alive on this node, process {first} ({' '.join(argv)}): it holds /run/calipy/agent.lock"
    await until(lambda: said in second.log.read_text(), "the second says who is there")
    await asyncio.sleep(1.2)  # two more attempts
    assert len(second.log.read_text().splitlines()) == 2, second.log.read_text()
    assert {name: node.inside(f"/run/calipy/{name}.sock").stat().st_ino for name in sockets} == sockets
    await node.add("two")
    report = await node.ask("status", NodeReport)
    assert report.repairs == {}

    await node.agent.kill()
    await until(lambda: "is ready" in second.log.read_text(), "the second has taken over", 10)
    assert (await second.status()).restarts == 0
    for name in ("one", "two"):
        await node.check(name)
        await node.delete(name)
    assert await node.left() == {}


@pytest.mark.parametrize("of", ["blocks", "inodes"])
async def test_a_full_disk_at_start_ends_no_agent(node: Node, of: str) -> None:
    """No room for nodename, mtu, the conflist and the ready file; without inodes not for CNI's records either."""
    places = ("/var/lib/calico", "/etc/cni/net.d", "/run/calipy")
    await node.boot()
    for place in places:
        await node.run("mkdir", "-p", place)
        await node.run("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=32", "small", place)
    for place in places if of == "blocks" else places[:1]:
        fill = (
            f"head -c 1M /dev/zero > {place}/filler"
            if of == "blocks"
            else f"for i in $(seq 99); do touch {place}/$i; done"
        )
        await node.run("sh", "-c", f"{{ {fill}; }} 2>/dev/null; true")
    await node.start_agent()
    log = node.agent.log
    await until(
        lambda: "nodename can't be written: No space left on device; it is tried again" in log.read_text(), "told"
    )
    if of == "blocks":
        await node.ready()
        report = await node.ask("status", NodeReport)
        files = (
            "/var/lib/calico/nodename",
            "/var/lib/calico/mtu",
            "/etc/cni/net.d/10-calipy.conflist",
            "/run/calipy/ready",
        )
        assert [
            file for file in files if f"{file} can't be written: No space" not in report.problems["HostFiles"]
        ] == []
        assert [log.read_text().count(f"{file} can't be written") for file in files] == [1] * 4
    else:
        await until(lambda: "/var/lib/calico/attachments: No space left on device" in log.read_text(), "told")
    for place in places:
        await node.run("sh", "-c", f"rm -f {place}/filler {place}/[0-9]")

    async def well() -> bool:
        return "HostFiles" not in (await node.ask("status", NodeReport)).problems

    await node.ready()
    await until(well, "all is written", 20)
    assert (await node.run("cat", "/var/lib/calico/nodename", "/var/lib/calico/mtu")).split() == ["n1", "1500"]
    assert (await node.agent.status()).restarts == 0
    await node.run("cat", "/run/calipy/ready", "/etc/cni/net.d/10-calipy.conflist")


async def test_the_time_from_store_to_kernel_is_measured_for_each_policy_that_means_something_here(node: Node) -> None:
    await node.start(FELIX_PROMETHEUSMETRICSENABLED="true")
    await node.add("one")
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")

    async def metrics() -> dict[str, float]:
        lines = (await get(node, "/metrics", 9091))[1].splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}

    def named(name: str, selector: str, *ports: int) -> GlobalNetworkPolicy:
        rules = [{"action": "Allow", "protocol": "TCP", "destination": {"ports": list(ports)}}]
        spec = {"selector": selector, "ingress": rules}
        found: GlobalNetworkPolicy = made(global_network_policies.KIND, spec, name)
        return found

    count = "calipy_policy_programming_seconds_count"
    assert (await metrics())[count] == 0
    kind = global_network_policies.KIND
    await store.create(kind, named("nobody", "app == 'nobody'", 1))
    here = [await store.create(kind, named(f"here{number}", "all()", number)) for number in range(1, 4)]

    async def counted(most: int) -> bool:
        return (await metrics())[count] >= most

    await until(lambda: counted(3), "three policies are programmed")
    for stored in here:
        await store.update(kind, stored, named(stored.key.name, "all()", 80))
    await until(lambda: counted(6), "three changes of them are programmed")
    table = await node.run("nft", "list", "table", "inet", "calipy")
    assert table.count("tcp dport 80") == 3
    found = await metrics()
    assert found[count] == 6
    assert 0.0 < found["calipy_policy_programming_seconds_sum"] < 6 * 1.0
    assert found["calipy_loop_lag_seconds_count"] > 0
    await store.close()
    await node.delete("one")


async def test_policy_recheck_follows_calipy_configuration_and_the_environment_stands_above_it(node: Node) -> None:
    await node.start()
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    kind = calipy_configurations.KIND

    async def barrier() -> bool:
        return "calipy-recheck" in await node.run("nft", "list", "tables")

    async def none() -> bool:
        return not await barrier()

    await node.add("one")
    assert not await barrier()
    stored = await store.create(kind, made(kind, {"policyRecheck": "Enabled"}, "default"))
    await until(barrier, "policyRecheck is enabled")
    own = await store.create(kind, made(kind, {"policyRecheck": "Disabled"}, "node.n1"))
    await until(none, "the node's own object says otherwise")
    await store.delete(kind, own)
    await until(barrier, "it is gone")
    await store.delete(kind, stored)
    await until(none, "nobody asks for it")
    assert (await node.agent.status()).restarts == 0
    await node.agent.stop()
    await node.start_agent(CALIPY_POLICYRECHECK="Enabled")
    await node.ready()
    await store.create(kind, made(kind, {"policyRecheck": "Disabled"}, "node.n1"))
    await until(barrier, "the environment asks for it")
    await node.delete("one")
    assert await barrier()
    await store.close()


async def test_what_a_node_tells_of_itself_and_draws_for_itself_in_a_cluster_of_kubernetes_ranges(node: Node) -> None:
    """kubeadm's podSubnet becomes the pool, and the pods have addresses of the Node's podCIDR."""
    await node.boot()
    store = await SQLiteStore.open(node.store / "datastore.sqlite3")
    metadata = ObjectMeta(name="kubeadm-config", namespace="kube-system")
    text = "networking: {podSubnet: 10.123.0.0/16}"
    await store.create(config_maps.KIND, ConfigMap(metadata=metadata, data={"ClusterConfiguration": text}))
    spec = NodeSpec(pod_cidrs=("10.123.7.0/24",))
    await store.create(nodes.KIND, nodes.Node(metadata=ObjectMeta(name="n1"), spec=spec))
    await node.start_agent(
        restart=False,
        NODENAME="n1",
        USE_POD_CIDR="true",
        CALICO_IPV4POOL_CIDR="",
        CALICO_IPV6POOL_CIDR="",
        IP6="autodetect",
    )
    await node.ready()
    assert [pool.spec.cidr for pool in node.rows(ip_pools.KIND)] == ["10.123.0.0/16"]
    v4, v6 = await node.ask("addresses", tuple[AddressReport, ...])
    assert (v4.address, v6.address) == ("10.99.0.1/24", "fd00:99::1/64")
    assert "10.99.0.1/24 on eth0: taken" in v4.considered
    (address,) = (await node.add("a")).addresses
    assert ipaddress.ip_address(address) in ipaddress.ip_network("10.123.7.0/24")
    await node.delete("a")

    async def condition() -> tuple[str, str]:
        found = (await store.get(nodes.KIND, "n1")).value.status.conditions
        return next(((each.status, each.reason) for each in found if each.type == "NetworkUnavailable"), ("", ""))

    async def becomes(status: str, reason: str) -> None:
        async def is_so() -> bool:
            return await condition() == (status, reason)

        await until(is_so, reason)

    await becomes("False", "CalIPyIsUp")
    await node.agent.signal(signal.SIGTERM)
    await becomes("True", "CalIPyIsDown")
    await store.close()


async def test_a_foreign_table_that_drops_is_named_and_the_node_stays_ready(node: Node) -> None:
    await node.start(FELIX_HEALTHENABLED="true", FELIX_PROMETHEUSMETRICSENABLED="true")
    chain = "{ type filter hook forward priority 10; policy drop; }"
    await node.run("sh", "-c", f"nft add table inet other; nft 'add chain inet other c {chain}'")
    found: list[Finding] = []

    async def named() -> bool:
        found[:] = await node.ask("checks", list[Finding])
        return bool(found)

    await until(named, "the table is found")
    assert (found[0].severity, found[0].subject) == ("error", "inet other c, policy")
    status, text = await get(node, "/readiness")
    assert status == 200
    assert str(found[0]) in text
    assert (await node.ask("status", NodeReport)).findings == tuple(found)
    assert 'calipy_check_findings{check="foreign-drop"} 1.0' in (await get(node, "/metrics", 9091))[1]
    await node.run("nft", "delete", "table", "inet", "other")
    found.clear()

    async def forgotten() -> bool:
        return await node.ask("checks", list[Finding]) == []

    await until(forgotten, "the finding goes with the table")
    assert "other" not in (await get(node, "/readiness"))[1]
    log = node.agent.log.read_text()
    assert log.count("inet other c, policy: drops what goes from and to pods") == 2
    assert "no longer so: inet other c, policy" in log
