"""The kernel's no to a policy, a profile or a set: it is named, whom it governs is cut off, everybody else lands, and
it heals by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.felix.calc import runs
from calipy.felix.calc.change import Change, NodeState, SetDelta, SetKey
from calipy.felix.dataplane import Refused
from calipy.felix.objects import Owner
from calipy.felix.rules import runs as compiler
from calipy.felix.rules.compile import policy_owner, profile_owner, run_owner, set_owner
from calipy.model.policies import Merged, Peer, Policy, PolicyId, PolicyRule, Profile, Run, TierBinding
from calipy.model.sets import PortSet, SelectorSet, SetId, SetKind

A, B, C = "10.244.0.1", "10.244.0.2", "10.244.0.3"
PODS = {"a": A, "b": B, "c": C}
ALLOW = PolicyRule(action="allow", number=0)
LONG = SetId("s:" + "x" * 300)


@pytest.fixture
async def n1(felix: Any) -> Any:
    """Pods a, b and c. What governs them goes straight into the dataplane."""
    node = await felix("n1")
    for name, address in PODS.items():
        await node.add(name, address)
    return node


def state(node: Any) -> NodeState:
    found = node.engine.dataplane.state
    assert found is not None
    return found


def policy(name: str, *rules: PolicyRule, egress: bool = False) -> Policy:
    id_ = PolicyId("gnp", "", name)
    return Policy(
        id=id_, tier="default", order=1, selector="all()", ingress=rules, egress=(ALLOW,) if egress else None
    )  # fmt: skip


def submit(node: Any, pods: dict[str, Policy], **more: Any) -> int:
    """Each of these pods is governed by a policy; all in one change."""
    endpoints = {}
    for pod, found in pods.items():
        endpoint = next(each for each in state(node).endpoints.values() if each.pod == pod)
        binding = TierBinding(
            tier="default", default_action="deny", ingress=(found.id,),
            egress=(found.id,) if found.egress is not None else (),
        )  # fmt: skip
        endpoints[endpoint.id] = replace(endpoint, tiers=(binding,))
    policies = {found.id: found for found in pods.values()}
    return int(node.engine.dataplane.submit(Change(endpoints=endpoints, policies=policies, **more)))


async def govern(node: Any, pods: dict[str, Policy], **more: Any) -> None:
    """The same; returns when the kernel has taken it, or has refused."""
    submit(node, pods, **more)
    await asyncio.wait_for(node.engine.dataplane.idle(), 10)


def sets(**members: frozenset[str]) -> dict[str, Any]:
    """Sets of addresses, for a change."""
    kinds: dict[SetKey, SetKind] = {}
    deltas = {}
    for name, found in members.items():
        for family in (4, 6):
            kinds[SetKey(SetId(f"s:{name}"), family)] = "addresses"
        deltas[SetKey(SetId(f"s:{name}"), 4)] = SetDelta(found)
        deltas[SetKey(SetId(f"s:{name}"), 6)] = SetDelta()
    return {"sets": kinds, "members": deltas}


def from_set(name: str) -> PolicyRule:
    return PolicyRule(action="allow", number=0, source=Peer(sets=(SelectorSet(SetId(f"s:{name}"), "x"),)))


def spaces(node: Any) -> Any:
    return {name: pod.namespace for name, pod in node.pods.items()}


def through(node: Any, wire: Any, source: str, target: str) -> bool:
    """A new flow from pod to pod gets there."""
    pods = spaces(node)
    return bool(wire.passes(wire.mouth(pods[source], PODS[source]), wire.ear(pods[target], PODS[target])))


def cut(node: Any, wire: Any, source: str, target: str) -> bool:
    """It doesn't."""
    pods = spaces(node)
    return bool(wire.dropped(wire.mouth(pods[source], PODS[source]), wire.ear(pods[target], PODS[target])))


async def test_a_refused_policy_is_named_and_closes_whom_it_governs(n1: Any, wire: Any, caplog: Any) -> None:
    """Its set has a name that is too long for the kernel."""
    bad = policy("bad", PolicyRule(action="allow", number=0, source=Peer(sets=(SelectorSet(LONG, "x"),))), egress=True)
    key = {SetKey(LONG, family): "addresses" for family in (4, 6)}
    members = dict.fromkeys(key, SetDelta(frozenset()))
    assert through(n1, wire, "b", "a")
    assert through(n1, wire, "a", "c")
    await govern(n1, {"a": bad, "b": policy("good", ALLOW)}, sets=key, members=members)
    refused = n1.engine.dataplane.refused
    assert set(refused) == {policy_owner(bad.id), *map(set_owner, key)}
    assert "gnp/bad is refused by the kernel" in caplog.text
    assert "x" * 300 in refused[policy_owner(bad.id)]
    assert cut(n1, wire, "b", "a"), "closed"
    assert cut(n1, wire, "a", "c"), "closed, both ways"
    assert through(n1, wire, "c", "b"), "the others land"
    assert "refused default/gnp/bad ingress" in n1.host.run("nft", "list", "table", "inet", "calipy")
    late = await n1.add("late", "10.244.0.9")
    assert "calilate" in n1.host.run("nft", "list", "table", "inet", "calipy"), late
    gone = dict.fromkeys(key)
    await govern(n1, {"a": replace(bad, ingress=(ALLOW,))}, sets=gone, members={})
    assert not n1.engine.dataplane.refused
    assert through(n1, wire, "b", "a")


async def test_a_policy_that_becomes_impossible_does_not_stay_as_it_was(n1: Any, wire: Any) -> None:
    """Both its chains are refused; it is closed, not left with its old rules."""
    await govern(n1, {"a": policy("p", ALLOW, egress=True)})
    assert through(n1, wire, "b", "a")
    nowhere = PolicyRule(action="allow", number=0, source=Peer(sets=(SelectorSet(SetId("s:nowhere"), "x"),)))
    changed = replace(policy("p", nowhere), egress=(nowhere,))
    await govern(n1, {"a": changed})
    assert set(n1.engine.dataplane.refused) == {policy_owner(changed.id)}
    assert cut(n1, wire, "b", "a")
    assert cut(n1, wire, "a", "b")
    n1.engine.dataplane.submit(Change(**sets(nowhere=frozenset({B}))))
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "b", "a"), "healed: its set is there"
    assert cut(n1, wire, "c", "a")


IMPOSSIBLE = {"no address": "10.0.0.300", "no text of one": "b"}


@pytest.mark.parametrize("member", IMPOSSIBLE.values(), ids=list(IMPOSSIBLE))
async def test_an_impossible_member_closes_the_policies_that_name_its_set(n1: Any, wire: Any, member: str) -> None:
    users = {"a": policy("p", from_set("x")), "b": policy("q", from_set("y"))}
    await govern(n1, users, **sets(x=frozenset({B, C}), y=frozenset({C})))
    assert through(n1, wire, "c", "a")
    key = SetKey(SetId("s:x"), 4)
    n1.engine.dataplane.submit(Change(members={key: SetDelta(frozenset({member}), frozenset({B}))}))
    await n1.until(lambda: n1.engine.dataplane.refused)
    refused = n1.engine.dataplane.refused
    assert set(refused) == {set_owner(key), Owner("policy", "gnp/p")}
    for reason in refused.values():
        assert "cali40-s-x" in reason
        assert member in reason
    assert cut(n1, wire, "c", "a"), "its members aren't what they should be: nobody gets in"
    assert through(n1, wire, "c", "b"), "another set's users are untouched"
    later = policy("r", from_set("x"))
    serial = submit(n1, {"c": later})
    with pytest.raises(Refused, match="cali40-s-x"):  # one that names it only now is closed at once
        await asyncio.wait_for(n1.engine.dataplane.programmed([policy_owner(later.id)], serial), 5)
    assert cut(n1, wire, "b", "c")
    n1.engine.dataplane.submit(Change(members={key: SetDelta(frozenset(), frozenset({member}))}))
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "c", "a")
    assert cut(n1, wire, "b", "a"), "who left is out"
    assert cut(n1, wire, "b", "c")


async def test_ranges_that_overlap_are_refused_with_their_policy(n1: Any, wire: Any) -> None:
    ports = PortSet(SetId("ports:x"), ((80, 90), (85, 95)))
    bad = policy("p", PolicyRule(action="allow", number=0, protocol=17, destination=Peer(ports=ports)))
    key = SetKey(ports.id, 0)
    await govern(
        n1, {"a": bad}, sets={key: "ports"}, members={key: SetDelta(frozenset({"80-90", "85-95"}))}
    )  # fmt: skip
    assert set(n1.engine.dataplane.refused) == {set_owner(key), policy_owner(bad.id)}
    assert cut(n1, wire, "b", "a")
    assert through(n1, wire, "a", "b")


async def test_a_refused_profile_closes_whom_it_is_asked_about(n1: Any, wire: Any) -> None:
    nowhere = PolicyRule(action="allow", number=0, source=Peer(sets=(SelectorSet(SetId("s:nowhere"), "x"),)))
    name = "kns.default"
    n1.engine.dataplane.submit(Change(profiles={name: Profile(name=name, ingress=(nowhere,), egress=(ALLOW,))}))
    await n1.until(lambda: n1.engine.dataplane.refused)
    assert set(n1.engine.dataplane.refused) == {profile_owner(name)}
    assert cut(n1, wire, "b", "a")
    n1.engine.dataplane.submit(Change(profiles={name: Profile(name=name, ingress=(ALLOW,), egress=(ALLOW,))}))
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "b", "a")


async def test_an_endpoint_whose_policy_has_no_chain_is_closed(n1: Any, wire: Any) -> None:
    """As when a policy's own name is too long, so that even its closed form is refused."""
    long = policy("p" * 400, ALLOW)
    endpoint = next(each for each in state(n1).endpoints.values() if each.pod == "a")
    absent = TierBinding(tier="default", default_action="deny", ingress=(PolicyId("gnp", "", "absent"),))
    n1.engine.dataplane.submit(Change(endpoints={endpoint.id: replace(endpoint, tiers=(absent,))}))
    await n1.until(lambda: n1.engine.dataplane.refused)
    assert set(n1.engine.dataplane.refused) == {Owner("endpoint", "k8s/default/a/eth0")}
    assert cut(n1, wire, "b", "a")
    assert cut(n1, wire, "a", "b")
    await govern(n1, {"a": long})
    assert not n1.engine.dataplane.refused
    assert through(n1, wire, "b", "a"), "a long name is a hash"


# --- runs of policies that are one look-up ---


async def merge(node: Any, *policies: Policy, **more: Any) -> Run:
    """Pod a is governed by a run of these, made as the calculation makes it; returns when the kernel has taken it, or
    has refused."""
    found = sets(**more)
    kinds = {key: (kind, found["members"][key].added) for key, kind in found["sets"].items()}
    endpoint = next(each for each in state(node).endpoints.values() if each.pod == "a")
    binding = TierBinding(tier="default", default_action="deny", ingress=tuple(each.id for each in policies))
    outcome = runs.compute(
        {endpoint.id: replace(endpoint, tiers=(binding,))}, {each.id: each for each in policies}, kinds, (4, 6)
    )
    maps = {key: kind for key, (kind, _) in outcome.sets.items()}
    members = {key: SetDelta(found) for key, (_, found) in outcome.sets.items()}
    node.engine.dataplane.submit(
        Change(
            endpoints=outcome.endpoints, policies={each.id: each for each in policies}, runs=outcome.runs,
            sets={**found["sets"], **maps}, members={**found["members"], **members},
        )
    )  # fmt: skip
    await asyncio.wait_for(node.engine.dataplane.idle(), 10)
    (merged,) = outcome.runs.values()
    return merged.run


FROM_B, FROM_C = policy("from-b", from_set("x")), policy("from-c", from_set("y"))
GOVERNED = Owner("endpoint", "k8s/default/a/eth0")


async def test_a_run_asks_those_that_ask_for_the_address(n1: Any, wire: Any) -> None:
    run = await merge(n1, FROM_B, FROM_C, x=frozenset({B}), y=frozenset({C}))
    assert not n1.engine.dataplane.refused
    assert "jump cali-pi" not in n1.host.run("nft", "list", "chain", "inet", "calipy", "cali-tw-calia")
    assert through(n1, wire, "b", "a")
    assert through(n1, wire, "c", "a")
    for name in ("from-b", "from-c"):
        assert "packets 1 " in n1.host.run("nft", "list", "chain", "inet", "calipy", f"cali-pi-gnp/{name}")
    key = SetKey(run.id, 4)
    moved = {key: SetDelta(removed=frozenset({f"{C} 2"})), SetKey(SetId("s:y"), 4): SetDelta(removed=frozenset({C}))}
    n1.engine.dataplane.submit(Change(members=moved))
    await n1.engine.dataplane.idle()
    assert cut(n1, wire, "c", "a"), "who left is out"
    assert through(n1, wire, "b", "a")


async def test_a_refused_policy_closes_all_that_have_it_in_a_run(n1: Any, wire: Any) -> None:
    """Not those alone whom it asks for: it can't be said who they are."""
    nowhere = replace(FROM_C, ingress=(from_set("y"), from_set("nowhere")))
    await merge(n1, FROM_B, nowhere, x=frozenset({B}), y=frozenset({C}))
    assert set(n1.engine.dataplane.refused) == {policy_owner(FROM_C.id), GOVERNED}
    assert "cali-pi-gnp/from-c" in n1.engine.dataplane.refused[GOVERNED]
    assert cut(n1, wire, "b", "a")
    assert cut(n1, wire, "c", "a")
    assert cut(n1, wire, "a", "c"), "closed, both ways"
    assert through(n1, wire, "b", "c"), "the others land"
    n1.engine.dataplane.submit(Change(**sets(nowhere=frozenset())))
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "b", "a"), "healed: its set is there"
    assert through(n1, wire, "c", "a")


async def test_a_refused_map_closes_all_that_look_it_up(n1: Any, wire: Any) -> None:
    run = await merge(n1, FROM_B, FROM_C, x=frozenset({B}), y=frozenset({C}))
    key = SetKey(run.id, 4)
    n1.engine.dataplane.submit(Change(members={key: SetDelta(frozenset({"10.0.0.300 1"}))}))
    await n1.until(lambda: n1.engine.dataplane.refused)
    assert set(n1.engine.dataplane.refused) == {set_owner(key), GOVERNED}
    assert cut(n1, wire, "b", "a")
    assert through(n1, wire, "b", "c")
    n1.engine.dataplane.submit(Change(members={key: SetDelta(removed=frozenset({"10.0.0.300 1"}))}))
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "b", "a")


async def test_an_impossible_member_closes_the_policies_of_its_set_and_their_runs(n1: Any, wire: Any) -> None:
    await merge(n1, FROM_B, FROM_C, x=frozenset({B}), y=frozenset({C}))
    key = SetKey(SetId("s:x"), 4)
    n1.engine.dataplane.submit(Change(members={key: SetDelta(frozenset({"b"}))}))
    await n1.until(lambda: n1.engine.dataplane.refused)
    assert set(n1.engine.dataplane.refused) == {set_owner(key), policy_owner(FROM_B.id), GOVERNED}
    assert cut(n1, wire, "c", "a")
    n1.engine.dataplane.submit(Change(members={key: SetDelta(removed=frozenset({"b"}))}))
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "c", "a")


async def test_a_run_that_cannot_be_made_closes_all_that_have_it(
    n1: Any, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: object) -> Any:
        raise KeyError("mask")

    run = await merge(n1, FROM_B, FROM_C, x=frozenset({B}), y=frozenset({C}))
    assert through(n1, wire, "b", "a")
    monkeypatch.setattr(compiler, "compile", mistake)
    n1.engine.dataplane.submit(Change(runs={run.id: Merged(run=run, masks=(1, 2, 3))}))
    await n1.until(lambda: n1.engine.dataplane.refused)
    assert set(n1.engine.dataplane.refused) == {run_owner(run.id), GOVERNED}
    assert cut(n1, wire, "b", "a")
    monkeypatch.undo()
    await n1.until(lambda: not n1.engine.dataplane.refused)
    assert through(n1, wire, "b", "a")
