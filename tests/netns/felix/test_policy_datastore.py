"""Deny-all that covers the datastore's own address: what the node itself says to it goes on, what pods say doesn't."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from calipy.netlink.socket import inside
from calipy.resources import kinds
from tests.unit.resources.objects import made

POD = {4: "10.244.0.1", 6: "fd00:10::1"}
HOST, OUT, SERVICE = {4: "10.9.0.1", 6: "fd00:9::1"}, {4: "10.9.0.9", 6: "fd00:9::9"}, {4: "10.96.0.1", 6: "fd00:96::1"}
PORT, SERVICE_PORT = 6443, 443
SHORT_S, LONG_S = 0.3, 3.0


class Store:
    """A datastore's port: it takes connections, and says back what it hears."""

    def __init__(self, namespace: Any, address: str) -> None:
        with inside(namespace.fd):
            self._ear = socket.create_server((address, PORT), family=_family(address))
        self._open: list[socket.socket] = [self._ear]

    def hears(self, client: socket.socket) -> bool:
        """A word of the client comes, and goes back."""
        client.sendall(b"list and watch")
        while ready := select.select([*self._open, client], [], [], LONG_S)[0]:
            for each in ready:
                if each is client:
                    return client.recv(100) == b"list and watch"
                if each is self._ear:
                    self._open.append(self._ear.accept()[0])
                elif word := each.recv(100):
                    each.sendall(word)
                else:  # its client has gone
                    self._open.remove(each)
                    each.close()
        return False

    def close(self) -> None:
        for each in self._open:
            each.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextlib.contextmanager
def connected(namespace: Any, address: str, port: int, within_s: float = LONG_S) -> Iterator[socket.socket | None]:
    """A connection out of a namespace; None where nobody answers."""
    with inside(namespace.fd):
        client = socket.socket(_family(address))
    client.settimeout(within_s)
    with client:
        try:
            client.connect((address, port))
        except OSError:
            yield None
        else:
            yield client


@pytest.fixture
async def n1(felix: Any, world: Any, namespaces: Any) -> Any:
    host, outside = namespaces("n1"), namespaces("out")
    world.uplink(host, outside, "up0", ("10.9.0.1/24", "10.9.0.9/24"), ("fd00:9::1/64", "fd00:9::9/64"))
    outside.run("ip", "route", "add", "10.244.0.0/16", "via", HOST[4])
    outside.run("ip", "-6", "route", "add", "fd00:10::/64", "via", HOST[6])
    for word, family in (("ip", 4), ("ip6", 6)):
        translated = OUT[4] if family == 4 else f"[{OUT[6]}]"
        rule = f"{word} daddr {SERVICE[family]} tcp dport {SERVICE_PORT} dnat {word} to {translated}:{PORT};"
        chains = "".join(
            f"chain {hook} {{ type nat hook {hook} priority -100; {rule} }};" for hook in ("output", "prerouting")
        )
        host.run("nft", f"table inet services{family} {{ {chains} }};")
    host.run("ip", "route", "add", SERVICE[4], "via", OUT[4])
    host.run("ip", "-6", "route", "add", SERVICE[6], "via", OUT[6])
    node = await felix("n1", host)
    node.outside = outside
    await node.add("a", *POD.values())
    return node


def deny_all() -> list[Any]:
    """For every pod, and by its address too."""
    nets = [
        f"{address}/{32 if '.' in address else 128}" for where in (OUT, HOST, SERVICE) for address in where.values()
    ]
    by_address = [
        {"action": "Deny", "destination": {"nets": [net for net in nets if (":" in net) == (family == 6)]}}
        for family in (4, 6)
    ]
    kind = kinds.BY_NAME["GlobalNetworkPolicy"]
    return [
        made(kind, {"order": 0, "types": ["Egress"], "egress": by_address}, "not-the-datastore"),
        made(kind, {"order": 1, "types": ["Ingress", "Egress"]}, "nothing"),
    ]


@pytest.mark.parametrize("family", [4, 6])
async def test_the_node_talks_on_with_its_datastore_and_pods_do_not(n1: Any, family: int) -> None:
    pod, out = n1.pods["a"].namespace, OUT[family]
    store = Store(n1.outside, out)
    with contextlib.closing(store), connected(n1.host, out, PORT) as before, connected(pod, out, PORT) as pods:
        assert before is not None, "the agent's own, or that of a host-networked pod"
        assert store.hears(before)
        assert pods is not None
        assert store.hears(pods)
        await n1.put(*deny_all())
        assert store.hears(before), "what is open stays open"
        for address, port in ((out, PORT), (SERVICE[family], SERVICE_PORT)):
            with connected(n1.host, address, port) as anew:
                assert anew is not None, "the node's own traffic is not judged"
                assert store.hears(anew)
            with connected(pod, address, port, SHORT_S) as refused:
                assert refused is None
    await n1.gone("GlobalNetworkPolicy", "not-the-datastore")
    await n1.gone("GlobalNetworkPolicy", "nothing")
    with contextlib.closing(Store(n1.outside, out)), connected(pod, SERVICE[family], SERVICE_PORT) as again:
        assert again is not None


@pytest.mark.parametrize("family", [4, 6])
async def test_a_datastore_on_the_node_itself(n1: Any, family: int) -> None:
    """As an API server on a control plane's node: other nodes and this one reach it, its pods don't."""
    await n1.configure(defaultEndpointToHostAction="Accept")
    pod, host = n1.pods["a"].namespace, HOST[family]
    store = Store(n1.host, host)
    with contextlib.closing(store):
        with connected(pod, host, PORT) as pods:
            assert pods is not None
        await n1.put(*deny_all())
        for namespace in (n1.host, n1.outside):
            with connected(namespace, host, PORT) as client:
                assert client is not None
        with connected(pod, host, PORT, SHORT_S) as refused:
            assert refused is None
