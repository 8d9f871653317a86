"""A Change recompiles only the owners that it names, and that is enough."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc.change import Change, NodeState, SetKey, difference, everything
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Owner
from calipy.felix.plans import Plan
from calipy.felix.rules.compile import STATIC, RulesPlanner, endpoint_owner, set_owner
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS, SetKind
from calipy.model.tunnels import Tunnel

IDS = [EndpointId("k8s", f"default/{name}", "eth0") for name in "abc"]
MEMBERS: dict[SetKind, list[frozenset[str]]] = {
    "addresses": [frozenset(), frozenset({"10.0.0.1"}), frozenset({"10.0.0.1", "10.0.0.2"})],
    "prefixes": [frozenset(), frozenset({"10.0.0.0/24"}), frozenset({"10.0.0.0/25", "10.0.0.128/25", "10.7.0.0/16"})],
}
TUNNEL = Tunnel(
    name="vxlan.calico", family=4, vni=1, port=4789, local="10.9.0.1", parent="eth0", mac="", mtu=1450,
    address="10.1.0.0",
)  # fmt: skip
SETTINGS = [FelixSettings(), FelixSettings(filter_deny_action="REJECT"), FelixSettings(nat_port_range=(5, 6))]
_one_set = st.sampled_from([(kind, members) for kind in ("addresses", "prefixes") for members in MEMBERS[kind]])
_choices = st.tuples(
    st.tuples(*[_one_set] * 4),
    st.tuples(*[st.sampled_from([None, ("10.244.0.1",), ("10.244.0.2", "fd00::2")])] * len(IDS)),
    st.sampled_from([{}, {"vxlan.calico": TUNNEL}]),
    st.sampled_from(SETTINGS),
)


def _state(choices: tuple[Any, ...]) -> NodeState:
    found, endpoints, tunnels, settings = choices
    keys = [SetKey(id_, 4) for id_ in (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS, ALL_HOSTS, VXLAN_HOSTS)]
    return NodeState(
        settings=settings,
        endpoints={
            id_: WorkloadEndpoint(id=id_, container_id="c", interface=f"cali{id_.workload[-1]}", addresses=addresses)
            for id_, addresses in zip(IDS, endpoints, strict=True)
            if addresses
        },
        sets={key: kind for key, (kind, _) in zip(keys, found, strict=True)},
        members={key: members for key, (_, members) in zip(keys, found, strict=True)},
        tunnels=tunnels,
    )


states = _choices.map(_state)
Wanted = dict[Owner, dict[ObjectName, Any]]


def enter(wanted: Wanted, plans: Any) -> list[Owner]:
    """As the dataplane enters plans into its ledger; the owners that were touched."""
    touched = []
    for plan in plans:
        touched.append(plan.owner)
        mine = wanted.setdefault(plan.owner, {})
        for name, delta in plan.moved.items():
            assert plan.objects is not None
            assert mine[name].keys - delta.removed | delta.added == plan.objects[name].keys  # type: ignore[attr-defined]
        mine.clear()
        mine.update(plan.objects or {})
    return touched


def named(change: Change, new: NodeState) -> set[Owner]:
    """The owners that a change names."""
    owners = {set_owner(key) for key in {**change.sets, **change.members}}
    owners |= {endpoint_owner(id_) for id_ in change.endpoints}
    if change.settings is not None:
        owners |= {endpoint_owner(id_) for id_ in new.endpoints}
    return owners | ({STATIC} if change.settings is not None or change.sets or change.tunnels else set())


@given(states, states)
def test_a_change_compiles_the_owners_that_it_names_and_leads_to_the_whole(old: NodeState, new: NodeState) -> None:
    planner, wanted, whole = RulesPlanner(), Wanted(), Wanted()
    enter(wanted, planner.plans(everything(old), old))
    change = difference(old, new)
    before = planner.compiled
    touched = enter(wanted, planner.plans(change, new))
    assert set(touched) == named(change, new)
    assert len(touched) == len(set(touched))
    assert planner.compiled - before <= len(touched)
    enter(whole, planner.plans(everything(new), new))
    assert {owner: objects for owner, objects in wanted.items() if objects} == whole


@given(states)
def test_one_owner_compiled_alone_is_what_it_is_among_all(state: NodeState) -> None:
    planner = RulesPlanner()
    for plan in planner.plans(everything(state), state):
        assert planner.plan(plan.owner, state) == plan
    assert planner.plan(Owner("endpoint", "k8s/default/gone/eth0"), state) in (
        Plan(Owner("endpoint", "k8s/default/gone/eth0")),
        None,
    )


def test_a_state_names_each_owner_once() -> None:
    for settings, tunnels in product(SETTINGS, ({}, {"vxlan.calico": TUNNEL})):
        state = _state(
            (((("addresses"), MEMBERS["addresses"][1]),) * 4, (("10.244.0.1",), None, None), tunnels, settings)
        )
        owners = [plan.owner for plan in RulesPlanner().plans(everything(state), state)]
        assert len(owners) == len(set(owners)) == 6
