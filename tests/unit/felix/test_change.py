"""The algebra of changes: apply, merge, difference."""

import copy
from collections.abc import Mapping
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc.change import Change, NodeState, SetDelta, SetKey, apply, difference, everything, merge, take
from calipy.felix.calc.settings import FelixSettings
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin
from calipy.model.policies import Policy, PolicyId, PolicyRule, Profile
from calipy.model.routes import Route, RouteKey
from calipy.model.sets import SetId
from calipy.model.tunnels import Tunnel

IDS = [EndpointId("k8s", f"default/{name}", "eth0") for name in ("a", "b", "c")]
KEYS = [SetKey(SetId(name), family) for name in ("x", "y") for family in (4, 6)]


def _endpoint(id_: EndpointId, address: str) -> WorkloadEndpoint:
    return WorkloadEndpoint(id=id_, container_id="c", interface="cali1", addresses=(address,))


def _route(prefix: str, protocol: int) -> Route:
    return Route(prefix=prefix, origin=Origin("test"), kind="blackhole", protocol=protocol)


def _tunnel(mtu: int) -> Tunnel:
    return Tunnel(name="vxlan.calico", family=4, vni=1, port=2, local="l", parent="p", mac="m", mtu=mtu, address="a")


def _routes(protocols: Mapping[str, int]) -> dict[RouteKey, Route]:
    return {route.key: route for route in (_route(prefix, p) for prefix, p in protocols.items())}


_SUBSETS = [frozenset(text) for text in ("", "p", "q", "pq", "qr", "prs", "pqrs")]
_MEMBERS = st.sampled_from([None, *product(("addresses", "prefixes"), _SUBSETS)])
_ENDPOINTS = st.sampled_from([None, "10.0.0.1", "10.0.0.2"])
_PROTOCOLS = st.sampled_from([None, 1, 2])
_ORDERS = st.sampled_from([None, 1.0, 2.0])
_RULE = PolicyRule(action="allow", number=0)
_CHOICES = st.tuples(
    st.tuples(*[_MEMBERS] * len(KEYS)),
    st.tuples(*[_ENDPOINTS] * len(IDS)),
    st.tuples(_PROTOCOLS, _PROTOCOLS),
    st.sampled_from([{}, {"vxlan.calico": _tunnel(1)}, {"vxlan.calico": _tunnel(2)}]),
    st.integers(1, 3),
    st.tuples(_ORDERS, _ORDERS),
    st.sampled_from([{}, {"kns.a": Profile(name="kns.a")}, {"kns.a": Profile(name="kns.a", ingress=(_RULE,))}]),
)


def _state(choices: tuple[Any, ...]) -> NodeState:
    sets, endpoints, protocols, tunnels, port, orders, profiles = choices
    policies = {PolicyId("np", "a", name): order for name, order in zip("pq", orders, strict=True)}
    chosen = {key: choice for key, choice in zip(KEYS, sets, strict=True) if choice is not None}
    routes = zip(["10.0.0.0/26", "fd00::/122"], protocols, strict=True)
    return NodeState(
        settings=FelixSettings(vxlan_port=port),
        endpoints={id_: _endpoint(id_, a) for id_, a in zip(IDS, endpoints, strict=True) if a is not None},
        policies={
            id_: Policy(id=id_, tier="default", order=order, selector="all()")
            for id_, order in policies.items()
            if order is not None
        },
        profiles=profiles,
        sets={key: kind for key, (kind, _) in chosen.items()},
        members={key: members for key, (_, members) in chosen.items()},
        routes=_routes({prefix: protocol for prefix, protocol in routes if protocol is not None}),
        tunnels=tunnels,
    )


def states() -> st.SearchStrategy[NodeState]:
    return _CHOICES.map(_state)


@given(states(), states())
def test_a_difference_leads_from_one_state_to_the_other(old: NodeState, new: NodeState) -> None:
    assert apply(old, difference(old, new)) == new


@given(states(), states(), states())
def test_two_changes_merged_do_what_both_do(first: NodeState, second: NodeState, third: NodeState) -> None:
    a, b = difference(first, second), difference(second, third)
    assert apply(apply(first, a), b) == apply(first, merge(a, b))


@given(states(), states(), states(), states())
def test_merge_is_associative(one: NodeState, two: NodeState, three: NodeState, four: NodeState) -> None:
    a, b, c = difference(one, two), difference(two, three), difference(three, four)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(states())
def test_everything_names_each_owner_and_moves_nothing(state: NodeState) -> None:
    change = everything(state)
    assert apply(state, change) == state
    assert change.settings == state.settings
    assert change.routes.keys() == state.routes.keys()


def test_a_set_that_dies_and_is_reborn_in_one_merge_starts_empty() -> None:
    key = KEYS[0]
    empty = NodeState(settings=FelixSettings())
    old = NodeState(settings=FelixSettings(), sets={key: "addresses"}, members={key: frozenset("ab")})
    new = NodeState(settings=FelixSettings(), sets={key: "addresses"}, members={key: frozenset("c")})
    merged = merge(difference(old, empty), difference(empty, new))
    assert apply(old, merged).members[key] == frozenset("c")


def test_revisions_merge_to_the_highest() -> None:
    merged = merge(Change(revisions={"Pod": 7, "Node": 1}), Change(revisions={"Pod": 5, "IPPool": 2}))
    assert merged.revisions == {"Pod": 7, "Node": 1, "IPPool": 2}
    assert not merged


def test_a_later_delta_wins() -> None:
    both = SetDelta(frozenset("ab"), frozenset("c")).then(SetDelta(frozenset("c"), frozenset("a")))
    assert both == SetDelta(frozenset("bc"), frozenset("a"))


@given(states(), states())
def test_a_state_that_takes_a_change_is_what_it_would_be_applied(old: NodeState, new: NodeState) -> None:
    before, change = copy.deepcopy(old), difference(old, new)
    assert apply(old, change) == new
    assert old == before  # apply leaves it alone
    routes = old.routes
    taken = take(old, change)
    assert taken == new
    assert taken.routes is routes  # nothing is copied


def test_states_share_no_maps() -> None:
    one, other = NodeState(settings=FelixSettings()), NodeState(settings=FelixSettings())
    take(one, Change(routes=_routes({"10.0.0.0/26": 1})))
    assert not other.routes


_FEW = st.frozensets(st.sampled_from("abcd"))


@given(_FEW, _FEW, _FEW)
def test_a_delta_applied_takes_out_then_puts_in(
    members: frozenset[str], added: frozenset[str], removed: frozenset[str]
) -> None:
    found = SetDelta(added, removed).applied(members)
    assert found == (members - removed) | added
    assert type(found) is frozenset
