"""An agent that starts: what is right is left alone, what nobody wants any more goes, all in few steps."""

from __future__ import annotations

from typing import Any

from calipy.felix.calc.world import RoutesLearned
from calipy.felix.drivers.routes import LEARNED_LEFTOVER
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.routes import LearnedRoute
from calipy.netlink import nf_tables
from calipy.netlink.socket import NETFILTER, NetlinkSocket

ANONYMOUS = 1
"""NFT_SET_ANONYMOUS."""


def world_of_three(world: Any, *names: str) -> list[Any]:
    nodes = {
        "n1": ("10.9.0.1/24", "10.244.1.0", "10.244.1.0/26"),
        "n2": ("10.9.0.2/24", "10.244.2.0", "10.244.2.0/26"),
        "n3": ("10.9.0.3/24", "10.244.3.0", "10.244.3.0/26"),
    }
    values = [world.pool("four", "10.244.0.0/16", vxlan_mode="Always", nat_outgoing=True)]
    for name in names:
        ip, tunnel, block = nodes[name]
        values += [world.node(name, ip, tunnel=tunnel), world.block(name, block)]
    return values


def uplinked(host: Any) -> Any:
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "up1")
    host.run("ip", "addr", "add", "10.9.0.1/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "link", "set", "up1", "up")
    return host


def kernel(host: Any) -> str:
    commands = (
        "ip -br link", "ip route", "ip -6 route", "ip neigh show nud permanent", "bridge fdb show dev vxlan.calico",
        "nft -s list table inet calipy | sed 's/ # progname.*//'",
    )  # fmt: skip
    return "\n".join("\n".join(sorted(host.run("sh", "-c", command).splitlines())) for command in commands)


async def whole(node: Any) -> None:
    await node.until(lambda: "10.244.2.0/26 via" in node.host.run("ip", "route"))


async def test_a_restart_writes_nothing_that_is_right(felix: Any, world: Any, namespaces: Any) -> None:
    host = uplinked(namespaces("n1"))
    values = world_of_three(world, "n1", "n2", "n3")
    first = await felix("n1", host, values)
    pods = [await first.add(name, f"10.244.1.{number}", f"fd00:10::{number}") for number, name in enumerate("abc", 1)]
    await whole(first)
    before = kernel(host)
    first.stop()
    second = await felix("n1", host, values, endpoints=[pod.endpoint for pod in pods])
    await whole(second)
    assert second.counters() == {driver: (1, 0) for driver in ("nftables", "links", "routes", "sysctls")}
    assert kernel(host) == before
    assert not second.repairs


async def test_what_a_pod_and_a_node_left_that_went_meanwhile_is_removed(
    felix: Any, world: Any, namespaces: Any
) -> None:
    host = uplinked(namespaces("n1"))
    first = await felix("n1", host, world_of_three(world, "n1", "n2", "n3"))
    kept = await first.add("kept", "10.244.1.1")
    gone = await first.add("gone", "10.244.1.2", "fd00:10::2")
    await whole(first)
    traces = ("caligone", "10.244.1.2", "10.244.3.0", "10.9.0.3")
    shown = kernel(host)
    assert all(trace in shown for trace in traces)
    first.stop()
    host.run("ip", "link", "del", f"cali{gone.endpoint.pod}")
    host.run("ip", "route", "add", "blackhole", "10.244.9.0/26", "proto", "80", "metric", "1024")
    second = await felix("n1", host, world_of_three(world, "n1", "n2"), endpoints=[kept.endpoint])
    await whole(second)
    shown = kernel(host)
    for trace in (*traces, "10.244.9.0"):
        assert trace not in shown, trace
    assert "10.244.1.1 dev calikept" in shown
    assert not second.repairs, "leftovers are no foreign changes"


async def test_a_tunnel_that_nobody_wants_any_more_is_removed(felix: Any, world: Any, namespaces: Any) -> None:
    host = uplinked(namespaces("n1"))
    first = await felix("n1", host, world_of_three(world, "n1", "n2"))
    await whole(first)
    first.stop()
    await felix("n1", host, [world.pool("four", "10.244.0.0/16"), world.node("n1", "10.9.0.1/24")])
    assert "vxlan" not in host.run("ip", "-br", "link")
    assert "10.244.2" not in kernel_routes(host)


def endpoint_of(name: str, *addresses: str) -> WorkloadEndpoint:
    return WorkloadEndpoint(
        id=EndpointId("k8s", f"default/{name}", "eth0"), container_id=f"c-{name}", interface=f"cali{name}",
        addresses=addresses, namespace="default", pod=name,
    )  # fmt: skip


def kernel_routes(host: Any) -> str:
    return str(host.run("ip", "route"))


async def test_learned_routes_stay_until_bgp_has_spoken(felix: Any, world: Any, namespaces: Any) -> None:
    host = uplinked(namespaces("n1"))
    first = await felix("n1", host)
    learned = {
        p: LearnedRoute(prefix=p, next_hops=("10.9.0.2",), peers=("10.9.0.2",)) for p in ("10.1.0.0/26", "10.2.0.0/26")
    }
    await first.engine.calculator.post([RoutesLearned(learned)])
    await first.settled()
    assert "10.1.0.0/26 via 10.9.0.2" in kernel_routes(host)
    first.stop()
    second = await felix("n1", host, held=LEARNED_LEFTOVER)
    assert "10.1.0.0/26 via 10.9.0.2" in kernel_routes(host)
    await second.engine.calculator.post([RoutesLearned({"10.1.0.0/26": learned["10.1.0.0/26"]})])
    await second.settled()
    second.engine.dataplane.release(LEARNED_LEFTOVER)
    await second.settled()
    assert "10.1.0.0/26 via 10.9.0.2" in kernel_routes(host)
    assert "10.2.0.0/26" not in kernel_routes(host)
    assert second.counters()["routes"] == (1, 1), "the one deletion"


async def test_a_node_with_110_pods_starts_in_a_handful_of_batches(felix: Any, world: Any, namespaces: Any) -> None:
    host = uplinked(namespaces("n1"))
    script = [f"link add calix{n} type veth peer name peer{n}\nlink set calix{n} up alias c-x{n}" for n in range(110)]
    host.run("ip", "-batch", "-", text="\n".join(script))
    values = world_of_three(world, "n1", "n2")
    ends = [endpoint_of(f"x{n}", f"10.244.1.{n + 1}", f"fd00:10::{n + 1:x}") for n in range(110)]
    first = await felix("n1", host, values, endpoints=ends)
    await first.until(lambda: kernel_routes(host).count("dev calix") == 110)
    assert host.run("nft", "list", "table", "inet", "calipy").count("goto cali-") == 220
    assert first.counters()["nftables"] == (1, 1)
    before = kernel(host)
    first.stop()
    second = await felix("n1", host, values, endpoints=ends)
    await whole(second)
    assert second.counters() == {driver: (1, 0) for driver in ("nftables", "links", "routes", "sysctls")}
    assert kernel(host) == before


async def test_no_set_is_anonymous(felix: Any, world: Any, namespaces: Any) -> None:
    """Anonymous sets load in quadratic time: every list is a named set or a rule of its own."""
    host = uplinked(namespaces("n1"))
    node = await felix("n1", host, world_of_three(world, "n1", "n2", "n3"))
    await node.configure(
        interfacePrefix="cali,tap", natPortRange="33000:33003", natOutgoingExclusions="IPPoolsAndHostIPs",
        externalNodesList=["10.50.0.0/16", "10.60.0.1"],
    )  # fmt: skip
    await node.add("a", "10.244.1.1", "fd00:10::1")
    with NetlinkSocket.open(NETFILTER, namespace=host.fd) as netfilter:
        sets = [nf_tables.parse_set(body) for body in netfilter.dump(nf_tables.get_sets("calipy"))]
    assert len(sets) >= 10
    assert [found.name for found in sets if found.flags & ANONYMOUS or found.name.startswith("__")] == []
