"""Policy over a restart, and edited by others: what is right is left alone, what isn't is written."""

from __future__ import annotations

import re
from typing import Any

import pytest

from calipy.model.selectables import NamedPort
from calipy.resources import kinds
from calipy.resources.metadata import Resource
from calipy.resources.tiers import DEFAULT
from tests.unit.resources.objects import made

A, B = ("10.244.0.1", "fd00:10::1"), ("10.244.0.2", "fd00:10::2")
PORTS = (NamedPort("http", 6, 80), NamedPort("sig", 132, 7777))
TABLE = ("nft", "-s", "list", "table", "inet", "calipy")


def policy(name: str, spec: dict[str, Any], tier: str = DEFAULT) -> Resource:
    found: Resource = made(kinds.BY_NAME["GlobalNetworkPolicy"], {"tier": tier, **spec}, name)
    return found


def everything() -> list[Resource]:
    """Policies that use every kind of set and action; two of them are one look-up."""
    settings = {"logActionRateLimit": "5/minute"}
    one = [
        {"action": "Log", "protocol": "ICMP", "icmp": {"type": 8}},
        {"action": "Pass", "protocol": "TCP", "destination": {"ports": [80, "90:99"], "notPorts": ["http"]}},
        {"action": "Deny", "protocol": "SCTP", "source": {"ports": ["sig"]}},
        {"action": "Deny", "protocol": "ICMPv6", "notICMP": {"type": 1, "code": 2}},
    ]
    two = [
        {"action": "Allow", "source": {"nets": ["10.0.0.0/8", "192.0.2.1/32"], "notNets": ["10.9.0.0/16"]}},
        {"action": "Allow", "source": {"selector": "app == 'b'"}, "destination": {"notSelector": "has(wide)"}},
    ]
    return [
        made(kinds.BY_NAME["FelixConfiguration"], settings, "default"),
        made(kinds.BY_NAME["Tier"], {"order": 10, "defaultAction": "Pass"}, "security"),
        made(kinds.BY_NAME["GlobalNetworkSet"], {"nets": ["172.16.0.0/12", "fd00:77::/64"]}, "w", labels={"wide": "1"}),
        policy("one", {"types": ["Ingress", "Egress"], "ingress": one, "egress": one}, "security"),
        policy("two", {"selector": "app == 'a'", "ingress": two, "egress": []}),
        policy("p" * 253, {"order": 7, "ingress": two}),
        *(
            policy(f"run-{app}", {"order": 9, "ingress": [{"action": "Allow", "source": {"selector": selector}}]})
            for app, selector in (("b", "app == 'b'"), ("any", "has(app)"))
        ),
    ]


async def node_with(felix: Any, host: Any, values: list[Resource], *, own_table: bool = True) -> Any:
    node = await felix("n1", host, values, own_table=own_table)
    for name, addresses in (("a", A), ("b", B)):
        await node.add(name, *addresses, ports=PORTS)
    await node.settled()
    return node


def listed(host: Any) -> list[str]:
    """The words of the table: chains and sets are listed in the order in which they came, members in any."""
    return sorted(host.run(*TABLE).replace(",", " ").split())


def test_what_the_restarts_are_about_is_all_there_is(namespaces: Any) -> None:
    kinds_of = {"Log", "Pass", "Deny", "Allow"}
    found = {rule.action for each in everything() for rule in getattr(getattr(each, "spec", None), "ingress", ())}
    assert found == kinds_of


async def test_a_restart_writes_nothing_that_is_right(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    first = await node_with(felix, host, everything())
    before = listed(host)
    text = host.run(*TABLE)
    for part in (
        "type inet_service",
        "inet_proto",
        "flags interval",
        "limit rate 5/minute",
        "cali-pi-_",
        "return",
        "type ipv4_addr : mark",
        "vmap @cali-run-",
    ):
        assert part in text
    endpoints = [pod.endpoint for pod in first.pods.values()]
    first.stop()
    second = await felix("n1", host, everything(), endpoints=endpoints)
    assert second.counters()["nftables"] == (1, 0)
    assert listed(host) == before
    assert not second.repairs


async def test_what_changed_while_no_agent_was_there_is_written_and_nothing_else(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    first = await node_with(felix, host, everything())
    endpoints = [pod.endpoint for pod in first.pods.values()]
    first.stop()
    values = [each for each in everything() if each.metadata.name != "p" * 253]
    allow = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [53, 5353]}}
    values.append(policy("three", {"selector": "app == 'b'", "ingress": [allow]}))
    second = await felix("n1", host, values, endpoints=endpoints)
    assert second.counters()["nftables"] == (1, 1)
    text = host.run(*TABLE)
    assert "cali-pi-gnp/three" in text
    assert "cali-pi-_" not in text
    (area,) = [area for area in second.engine.areas if area.driver.name == "nftables"]
    # three's chain and set with its two members, both ends of b and a, and the chain that goes
    assert area.operations == 1 + 2 + 2 + 1


EDITS = {
    "a policy's rule flushed": "flush chain inet calipy cali-pi-gnp/two",
    "a policy's rule added": "insert rule inet calipy cali-pi-gnp/two accept",
    "a tier's chain flushed": "flush chain inet calipy cali-tw-calia-0",
    "an endpoint's deny bypassed": "insert rule inet calipy cali-tw-calia accept",
    "a member added": "add element inet calipy {addresses} {{ 192.0.2.77 }}",
    "a member deleted": "delete element inet calipy {addresses} {{ 10.244.0.2 }}",
    "an end added": "add element inet calipy {endpoints} {{ 192.0.2.77 . tcp . 80 }}",
    "an end deleted": "delete element inet calipy {endpoints} {{ 10.244.0.1 . sctp . 7777 }}",
    "a port added": "add element inet calipy {ports} {{ 1000-2000 }}",
    "a port deleted": "delete element inet calipy {ports} {{ 90-99 }}",
    "a member of a map added": "add element inet calipy {askers} {{ 192.0.2.77 : 0x00000001 }}",
    "a member of a map deleted": "delete element inet calipy {askers} {{ 10.244.0.1 }}",
    "a member of a map led elsewhere": "delete element inet calipy {askers} {{ 10.244.0.2 }};"
    " add element inet calipy {askers} {{ 10.244.0.2 : 0x00000001 }}",
    "a mask led elsewhere": "delete element inet calipy {masks} {{ 0x00000000 . 0x00000003 }};"
    " add element inet calipy {masks} {{ 0x00000000 . 0x00000003 : jump cali-pi-gnp/two }}",
    "a network added": "add element inet calipy {prefixes} {{ 203.0.113.0/24 }}",
    "a network deleted": "delete element inet calipy {prefixes} {{ 10.0.0.0/8 }}",
}


def sets(host: Any) -> dict[str, str]:
    """A set of each kind, found by what is in it: its name."""
    parts = re.split("\tset |\tmap ", host.run(*TABLE))[1:]
    blocks = {part.split(" ", 1)[0]: part.split("}")[0] for part in parts}
    signs = {
        "addresses": ("type ipv4_addr\n", "10.244.0.2"),
        "endpoints": ("type ipv4_addr . inet_proto", "sctp"),
        "askers": ("type ipv4_addr : mark", "10.244.0.2"),
        "masks": ("type mark . mark : verdict",),
        "ports": ("type inet_service", "90-99"),
        "prefixes": ("type ipv4_addr\n", "10.0.0.0/8"),
    }
    found = {kind: [n for n, block in blocks.items() if all(sign in block for sign in signs[kind])] for kind in signs}
    return {kind: names[0] for kind, names in found.items()}


@pytest.mark.parametrize("name", EDITS)
async def test_an_edit_is_repaired_at_once(felix: Any, namespaces: Any, name: str) -> None:
    host = namespaces("n1")
    node = await node_with(felix, host, everything(), own_table=False)
    before = listed(host)
    host.run("nft", EDITS[name].format(**sets(host)))
    assert listed(host) != before
    await node.until(lambda: node.repaired["nftables"], seconds=2)
    assert listed(host) == before


async def test_edits_between_two_agents_are_repaired_at_the_start(felix: Any, namespaces: Any) -> None:
    host = namespaces("n1")
    first = await node_with(felix, host, everything(), own_table=False)
    before = listed(host)
    endpoints = [pod.endpoint for pod in first.pods.values()]
    first.stop()
    for text in [text.format(**sets(host)) for text in EDITS.values()]:
        host.run("nft", text)
    assert listed(host) != before
    await felix("n1", host, everything(), endpoints=endpoints, own_table=False)
    assert listed(host) == before
