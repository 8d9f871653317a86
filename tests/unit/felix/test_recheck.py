"""policyRecheck: which endpoints a change concerns, how often they are looked at, and what becomes of their flows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from calipy.felix.calc.change import Change, SetDelta, SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dataplane import Area, Dataplane
from calipy.felix.recheck import Judge, Recheck
from calipy.felix.rules.compile import RulesPlanner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Peer, Policy, PolicyId, PolicyRule, Profile, TierBinding
from calipy.model.sets import SelectorSet, SetId
from calipy.netlink import ctnetlink
from calipy.netlink.ctnetlink import Direction, Flow
from tests.unit.felix.kernels import Kernel

P, Q = PolicyId("gnp", "", "p"), PolicyId("gnp", "", "q")
SET, OTHER = SetKey(SetId("s:x"), 4), SetKey(SetId("s:y"), 4)
EVERY_S = 0.1


def endpoint(name: str, number: int, *policies: PolicyId, profile: str = "kns.one") -> WorkloadEndpoint:
    tiers = (TierBinding(tier="default", default_action="deny", ingress=policies),) if policies else ()
    return WorkloadEndpoint(
        id=EndpointId("k8s", f"default/{name}", "eth0"), container_id=name, interface=f"cali{name}",
        addresses=(f"10.0.0.{number}",), tiers=tiers, profiles=(profile,),
    )  # fmt: skip


A, B, C = endpoint("a", 1, P), endpoint("b", 2, Q), endpoint("c", 3, profile="kns.two")


def policy(id_: PolicyId, set_id: SetId | None = None) -> Policy:
    peer = Peer(sets=(SelectorSet(set_id, "all()"),)) if set_id else Peer()
    rules = (PolicyRule(action="allow", number=0, source=peer),)
    return Policy(id=id_, tier="default", order=1.0, selector="all()", ingress=rules)


def profile(name: str, *actions: Any) -> Profile:
    return Profile(name=name, ingress=tuple(PolicyRule(action=action, number=0) for action in actions))


class Table:
    """The table of connections, with one flow of each address that it was told of. It notes who asks for what."""

    def __init__(self) -> None:
        self.asked: list[frozenset[str]] = []
        self.marked: dict[bytes, int] = {}
        self.error: OSError | None = None
        self.closed = 0

    def of(self, addresses: Iterable[str]) -> Iterator[list[bytes]]:
        if self.error is not None:
            raise self.error
        self.asked.append(frozenset(addresses))
        for address in sorted(self.asked[-1]):
            body = flow(address, self.marked)
            yield [body]

    def mark(self, flows: Sequence[bytes], mark: int, seconds: int) -> int:
        self.marked.update(dict.fromkeys(map(source, flows), mark))
        return len(flows)

    def forget(self, flows: Sequence[bytes]) -> int:
        for found in flows:
            self.marked.pop(source(found))
        return len(flows)

    def close(self) -> None:
        self.closed += 1


def flow(address: str, marked: Mapping[bytes, int]) -> bytes:
    there = Direction(source=address, destination="10.9.9.9", protocol=6, source_port=1, destination_port=2)
    back = Direction(source="10.9.9.9", destination=address, protocol=6, source_port=2, destination_port=1)
    body = bytes(ctnetlink.new_flow(Flow(family=4, original=there, reply=back), 60).body)
    mark = marked.get(source(body), 0)
    return body + (b"\x08\x00\x08\x00" + mark.to_bytes(4, "big"))


def source(body: bytes) -> bytes:
    return ctnetlink.sources(body)[0]


class Barrier:
    """Stands or doesn't."""

    def __init__(self) -> None:
        self.mark = 0
        self.raised = self.lifted = 0

    @property
    def stands(self) -> bool:
        return bool(self.mark)

    def raise_(self, mark: int) -> None:
        self.mark = mark
        self.raised += 1

    def lift(self) -> None:
        self.mark = 0
        self.lifted += 1

    def close(self) -> None:
        self.mark = 0


class Node:
    """A dataplane on such a kernel, and policyRecheck beside it. What `denied` names is forbidden."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.area = Area(Kernel(), RulesPlanner())
        self.dataplane = Dataplane([self.area], thread)
        self.table, self.barrier = Table(), Barrier()
        self.denied: set[str] = set()
        self.recheck = Recheck(
            self.dataplane, "nftables", self.table, self.table, self.barrier, thread,
            self, every_s=EVERY_S,
        )  # fmt: skip
        self.forgotten = 0
        self.dataplane.on_settled = self._settled

    def __call__(self) -> Judge:
        return lambda found: found.original.source not in self.denied

    def forget(self) -> None:
        self.forgotten += 1

    def _settled(self, area: Area, change: Change | None) -> None:
        if change is not None:
            self.recheck.committed(change)

    async def take(self, **fields: Any) -> None:
        """A change, committed."""
        settings = FelixSettings() if self.dataplane.state is None else None
        self.dataplane.submit(Change(settings=settings, **fields))
        await asyncio.wait_for(self.dataplane.idle(), 2)

    async def looks(self, count: int) -> None:
        """There were so many looks at the table."""
        async with asyncio.timeout(2):
            while len(self.table.asked) < count:  # noqa: ASYNC110  the one after the first comes by the clock
                await asyncio.sleep(0.005)

    async def calm(self) -> None:
        """All that waits is looked at, and may be so again."""
        await asyncio.sleep(2.5 * EVERY_S)
        self.table.asked.clear()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with ThreadPoolExecutor(1, "kernel") as thread:
        made = Node(thread)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(work()) for work in (made.dataplane.run, made.recheck.run)]
            yield made
            for task in running:
                task.cancel()
    made.recheck.close()
    assert made.table.closed == 2


async def populated(node: Node) -> None:
    node.recheck.follow("Enabled")
    await node.take(
        endpoints={found.id: found for found in (A, B, C)},
        policies={P: policy(P, SET.id), Q: policy(Q)},
        profiles={name: profile(name) for name in ("kns.one", "kns.two")},
        sets={SET: "addresses"},
        members={SET: SetDelta(frozenset({"10.1.1.1"}))},
    )
    await node.looks(1)
    await asyncio.sleep(1.1 * EVERY_S)  # they may be looked at again
    node.table.asked.clear()


def of(*endpoints: WorkloadEndpoint) -> frozenset[str]:
    return frozenset(address for found in endpoints for address in found.addresses)


# what a change names -> whose flows are judged
CHANGES: dict[str, tuple[dict[str, Any], tuple[WorkloadEndpoint, ...]]] = {
    "a policy": ({"policies": {P: policy(P)}}, (A,)),
    "a policy that goes": ({"policies": {Q: None}}, (B,)),
    "a profile": ({"profiles": {"kns.one": profile("kns.one", "deny")}}, (A, B)),
    "a network in a policy's set": ({"members": {SET: SetDelta(frozenset({"10.2.0.0/16"}))}}, (A,)),
    "members of a set of nobody": ({"sets": {}, "members": {OTHER: SetDelta(frozenset({"10.2.0.1"}))}}, ()),
    "a set": ({"sets": {SET: "prefixes"}, "members": {SET: SetDelta()}}, (A,)),
    "an endpoint": ({"endpoints": {C.id: endpoint("c", 3, Q)}}, (C,)),
    "an endpoint that goes": ({"endpoints": {A.id: None}}, ()),
    "a route": ({"routes": {}}, ()),
    "a policy of nobody": ({"policies": {PolicyId("gnp", "", "other"): policy(PolicyId("gnp", "", "other"))}}, ()),
    "both": ({"policies": {P: policy(P)}, "profiles": {"kns.two": profile("kns.two")}}, (A, C)),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_whom_a_change_concerns(node: Node, change: str) -> None:
    await populated(node)
    fields, concerned = CHANGES[change]
    await node.take(**fields)
    await asyncio.sleep(0.05)
    assert node.table.asked == ([of(*concerned)] if concerned else [])


async def test_addresses_that_come_to_a_set_or_leave_it_have_their_own_flows_judged(node: Node) -> None:
    await populated(node)
    node.denied = {"10.1.1.1"}
    await node.take(members={SET: SetDelta(frozenset({"10.1.1.2"}), frozenset({"10.1.1.1"}))})
    await node.looks(1)
    assert node.table.asked == [frozenset({"10.1.1.1", "10.1.1.2"})]
    await asyncio.sleep(0.05)
    assert node.recheck.cut == 1
    for number in range(5):
        await node.take(members={SET: SetDelta(frozenset({f"10.1.2.{number}"}))})
    await node.calm()
    node.table.asked.clear()
    ports = SetDelta(frozenset({"10.1.3.1,tcp:80", "10.1.3.1,tcp:81"}))
    await node.take(members={SET: ports}, policies={Q: policy(Q, SET.id)})
    await node.looks(1)
    assert node.table.asked == [of(B) | {"10.1.3.1"}]


async def test_peers_of_a_storm_are_looked_at_together(node: Node) -> None:
    await populated(node)
    await node.take(members={SET: SetDelta(frozenset({"10.1.2.0"}))})
    await node.looks(1)
    for number in range(1, 6):
        await node.take(members={SET: SetDelta(frozenset({f"10.1.2.{number}"}))})
    await node.looks(2)
    assert node.table.asked[1] == {f"10.1.2.{number}" for number in range(1, 6)}


async def test_peers_are_asked_for_again_where_the_table_could_not_be_read(node: Node) -> None:
    await populated(node)
    node.table.error = OSError(1, "Operation not permitted")
    await node.take(members={SET: SetDelta(frozenset({"10.1.1.2"}))})
    await asyncio.sleep(0.5 * EVERY_S)
    node.table.error = None
    await node.looks(1)
    assert node.table.asked == [frozenset({"10.1.1.2"})]


async def test_what_judges_know_is_forgotten_with_each_change_and_after_each_look(node: Node) -> None:
    await populated(node)
    before = node.forgotten
    await node.take(policies={P: policy(P)})
    await node.looks(1)
    await asyncio.sleep(0.05)
    assert node.forgotten == before + 2


async def test_an_endpoint_that_has_moved_is_found_by_what_governs_it_now(node: Node) -> None:
    await populated(node)
    await node.take(endpoints={A.id: endpoint("a", 1, Q)})
    await node.calm()
    await node.take(policies={P: policy(P)})
    await node.take(policies={Q: policy(Q, SET.id)})
    await asyncio.sleep(0.05)
    assert node.table.asked == [of(A, B)]


async def test_what_is_forbidden_is_marked_and_what_is_allowed_again_is_forgotten(node: Node) -> None:
    await populated(node)
    assert node.barrier.mark == 0x10000
    node.denied = {"10.0.0.1"}
    await node.take(policies={P: policy(P), Q: policy(Q, SET.id)})
    await node.calm()
    assert [mark for mark in node.table.marked.values()] == [0x10000]
    assert (node.recheck.cut, node.recheck.reprieved) == (1, 0)
    await node.take(policies={P: policy(P, SET.id)})
    await node.calm()
    assert node.recheck.cut == 1
    node.denied = set()
    await node.take(policies={P: policy(P)})
    await node.calm()
    assert node.table.marked == {}
    assert (node.recheck.cut, node.recheck.reprieved) == (1, 1)


async def test_a_storm_of_changes_leads_to_a_look_now_and_then_and_the_last_state_counts(node: Node) -> None:
    await populated(node)
    began = asyncio.get_running_loop().time()
    for number in range(100):
        node.denied = {"10.0.0.1"} if number == 99 else set()
        await node.take(policies={P: policy(P, SET.id if number % 2 else None)})
        await asyncio.sleep(0.01)
    took_s = asyncio.get_running_loop().time() - began
    await asyncio.sleep(1.5 * EVERY_S)
    assert 2 <= len(node.table.asked) <= took_s / EVERY_S + 2
    assert set(node.table.asked) == {of(A)}
    assert len(node.table.marked) == 1


async def test_another_endpoint_need_not_wait_for_one_in_a_storm(node: Node) -> None:
    await populated(node)
    await node.take(policies={P: policy(P)})
    await node.looks(1)
    await node.take(policies={P: policy(P, SET.id), Q: policy(Q, SET.id)})
    await node.looks(3)
    assert node.table.asked == [of(A), of(B), of(A)]


async def test_disabled_nothing_is_asked_and_enabled_all_are_looked_at(node: Node) -> None:
    await populated(node)
    node.recheck.follow("Disabled")
    await node.take(policies={P: policy(P)})
    await node.calm()
    assert (node.table.asked, node.barrier.mark) == ([], 0)
    node.recheck.follow("Enabled")
    await asyncio.sleep(0.05)
    assert (node.table.asked, node.barrier.mark) == ([of(A, B, C)], 0x10000)


async def test_changed_settings_concern_everybody(node: Node) -> None:
    await populated(node)
    node.dataplane.submit(Change(settings=FelixSettings(default_endpoint_to_host_action="ACCEPT")))
    await node.looks(1)
    assert node.table.asked == [of(A, B, C)]


async def test_another_mask_is_another_mark_once_something_is_looked_at(node: Node) -> None:
    await populated(node)
    node.denied = {"10.0.0.1"}
    node.dataplane.submit(Change(settings=FelixSettings(nftables_mark_mask=0xFF00), policies={P: policy(P)}))
    await node.calm()
    assert (node.barrier.mark, list(node.table.marked.values())) == (0x100, [0x100])


async def test_a_barrier_that_somebody_took_away_is_raised_again(node: Node) -> None:
    await populated(node)
    assert node.barrier.raised == 1
    await node.take(policies={P: policy(P)})
    await node.calm()
    assert node.barrier.raised == 1
    node.barrier.mark = 0
    await node.take(policies={P: policy(P, SET.id)})
    await node.calm()
    assert (node.barrier.raised, node.barrier.mark) == (2, 0x10000)


async def test_a_table_that_cannot_be_read_is_told_and_asked_again(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    await populated(node)
    node.denied = {"10.0.0.1"}
    node.table.error = OSError(1, "Operation not permitted")
    await node.take(policies={P: policy(P)})
    await asyncio.sleep(0.05)
    assert "the table of connections can't be read: [Errno 1] Operation not permitted; trying again" in caplog.text
    node.table.error = None
    await node.calm()
    assert len(node.table.marked) == 1
