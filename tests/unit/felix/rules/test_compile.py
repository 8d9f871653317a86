"""A Change recompiles only the owners that it names, and that is enough."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from calipy.felix.calc import runs
from calipy.felix.calc.change import Change, NodeState, SetKey, apply, difference, everything
from calipy.felix.calc.sets import families
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Owner
from calipy.felix.plans import Plan
from calipy.felix.rules import endpoints, policies
from calipy.felix.rules.compile import (
    STATIC,
    RulesPlanner,
    endpoint_owner,
    policy_owner,
    profile_owner,
    run_owner,
    set_owner,
)
from calipy.felix.rules.values import Chain, Drop
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Peer, Policy, PolicyId, PolicyRule, Profile, TierBinding
from calipy.model.sets import (
    ALL_HOSTS,
    MASQUERADED_IP_POOLS,
    NETWORK_IP_POOLS,
    VXLAN_HOSTS,
    SelectorSet,
    SetId,
    SetKind,
)
from calipy.model.tunnels import Tunnel

IDS = [EndpointId("k8s", f"default/{name}", "eth0") for name in "abc"]
MEMBERS: dict[SetKind, list[frozenset[str]]] = {
    "addresses": [frozenset(), frozenset({"10.0.0.1"}), frozenset({"10.0.0.1", "10.0.0.2"})],
    "prefixes": [
        frozenset(),
        frozenset({"10.0.0.0/24"}),
        frozenset({"10.0.0.0/25", "10.0.0.128/25", "10.7.0.0/16"}),
        frozenset({"10.0.0.0/25", "10.0.0.128/25", "10.7.0.0/16", "10.0.0.1", "10.8.0.1"}),
        frozenset({"10.0.0.0/25", "10.0.0.128/25", "10.7.0.0/16", "10.0.0.2", "10.8.0.2"}),
        frozenset({"10.0.0.0/24", "10.0.0.0/25", "10.0.0.1/32", "10.8.0.1/32"}),
    ],
}
TUNNEL = Tunnel(
    name="vxlan.calico", family=4, vni=1, port=4789, local="10.9.0.1", parent="eth0", mac="", mtu=1450,
    address="10.1.0.0",
)  # fmt: skip
SETTINGS = [
    FelixSettings(),
    FelixSettings(filter_deny_action="REJECT"),
    FelixSettings(nat_port_range=(5, 6)),
    FelixSettings(ipv6_support=False),
    FelixSettings(nftables_mark_mask=0xFF),
    FelixSettings(log_prefix="p"),
]
BUILT_IN = (NETWORK_IP_POOLS, MASQUERADED_IP_POOLS, ALL_HOSTS, VXLAN_HOSTS)
SELECTED = [SelectorSet(SetId(f"s:{name}"), f"app == {name!r}") for name in "xy"]
JUDGES = [PolicyId("np", "shop", "a"), PolicyId("gnp", "", "b")]
PROFILES = ["kns.shop", "more"]
_one_set = st.sampled_from([(kind, members) for kind in ("addresses", "prefixes") for members in MEMBERS[kind]])
_rules = st.lists(
    st.builds(
        PolicyRule,
        action=st.sampled_from(["allow", "deny", "pass", "log"]),
        number=st.just(0),
        source=st.sampled_from([Peer(), *(Peer(sets=(found,)) for found in SELECTED)]),
    ),
    max_size=2,
).map(tuple)
_choices = st.fixed_dictionaries(
    {
        "built_in": st.tuples(*[_one_set] * len(BUILT_IN)),
        "selected": st.tuples(*[_one_set] * len(SELECTED)),
        "endpoints": st.tuples(*[st.sampled_from([None, ("10.244.0.1",), ("10.244.0.2", "fd00::2")])] * len(IDS)),
        "policies": st.tuples(*[st.none() | _rules] * len(JUDGES)),
        "profiles": st.tuples(*[st.none() | _rules] * len(PROFILES)),
        "tunnels": st.sampled_from([{}, {"vxlan.calico": TUNNEL}]),
        "settings": st.sampled_from(SETTINGS),
    }
)


def _sets(found: dict[str, Any]) -> dict[SetKey, tuple[SetKind, frozenset[str]]]:
    """The built-in ones, and those that rules name."""
    made = dict(zip((SetKey(id_, 4) for id_ in BUILT_IN), found["built_in"], strict=True))
    rules = [rule for rules in (*found["policies"], *found["profiles"]) for rule in rules or ()]
    for selected, one in zip(SELECTED, found["selected"], strict=True):
        if any(selected in rule.source.sets for rule in rules):
            made[SetKey(selected.id, 4)] = one
            made[SetKey(selected.id, 6)] = ("addresses", frozenset())
    return made


def _state(found: dict[str, Any]) -> NodeState:
    sets = _sets(found)
    policies = {
        id_: Policy(id=id_, tier="default", order=1, selector="all()", ingress=rules)
        for id_, rules in zip(JUDGES, found["policies"], strict=True)
        if rules is not None
    }
    profiles = {
        name: Profile(name=name, ingress=rules)
        for name, rules in zip(PROFILES, found["profiles"], strict=True)
        if rules is not None
    }
    tier = TierBinding(
        tier="default", default_action="deny", ingress=tuple(policies),
        passing=tuple(id_ for id_, policy in policies.items() if policy.passes("ingress")),
    )  # fmt: skip
    governed = {
        id_: WorkloadEndpoint(
            id=id_, container_id="c", interface=f"cali{id_.workload[-1]}", addresses=addresses,
            tiers=(tier,) if policies else (), profiles=tuple(profiles),
        )
        for id_, addresses in zip(IDS, found["endpoints"], strict=True)
        if addresses
    }  # fmt: skip
    merged = runs.compute(governed, policies, sets, families(found["settings"]))
    sets = {**sets, **merged.sets}
    return NodeState(
        settings=found["settings"],
        endpoints=merged.endpoints,
        policies=policies,
        profiles=profiles,
        runs=merged.runs,
        sets={key: kind for key, (kind, _) in sets.items()},
        members={key: members for key, (_, members) in sets.items()},
        tunnels=found["tunnels"],
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


def mergers(state: NodeState, *ids: PolicyId | SetId) -> set[Owner]:
    """The endpoints that have merged a run, or a run with a policy in it."""
    return {
        endpoint_owner(id_)
        for id_, endpoint in state.endpoints.items()
        for binding in endpoint.tiers
        for run in binding.runs
        if not {run.id, *run.policies}.isdisjoint(ids)
    }


def users(state: NodeState, key: SetKey) -> set[Owner]:
    """The policies and profiles of a state whose rules name a set."""
    found = [(policy_owner(id_), policy.ingress) for id_, policy in state.policies.items()]
    found += [(profile_owner(name), profile.ingress) for name, profile in state.profiles.items()]
    return {
        owner for owner, rules in found for rule in rules or () if any(key.id == each.id for each in rule.source.sets)
    }


def named(change: Change, old: NodeState, new: NodeState) -> set[Owner]:
    """The owners that a change names, with the users of sets that are others now and those whom settings touch."""
    owners = {set_owner(key) for key in {**change.sets, **change.members}}
    owners |= {endpoint_owner(id_) for id_ in change.endpoints}
    owners |= {policy_owner(id_) for id_ in change.policies} | {profile_owner(name) for name in change.profiles}
    owners |= {run_owner(id_) for id_ in change.runs}
    if change.settings is not None or change.tunnels or any(key.id in BUILT_IN for key in change.sets):
        owners.add(STATIC)
    for key in change.sets:
        families = {family for family in (4, 6) if family == 4 or old.settings.ipv6_support}
        owners |= users(old, key) if key.family in families else set()
    if policies.terms(old.settings) != policies.terms(new.settings):
        owners |= {*map(policy_owner, new.policies), *map(profile_owner, new.profiles)}
    if endpoints.terms(old.settings) != endpoints.terms(new.settings):
        owners |= set(map(endpoint_owner, new.endpoints))
    return owners


@given(states, states)
def test_a_change_compiles_the_owners_that_it_names_and_leads_to_the_whole(old: NodeState, new: NodeState) -> None:
    planner, wanted, whole = RulesPlanner(), Wanted(), Wanted()
    enter(wanted, planner.plans(everything(old), old))
    change = difference(old, new)
    before = planner.compiled
    touched = enter(wanted, planner.plans(change, new))
    assert set(touched) == named(change, old, new)
    assert len(touched) == len(set(touched))
    assert planner.compiled - before <= len(touched)
    enter(whole, RulesPlanner().plans(everything(new), new))
    assert {owner: objects for owner, objects in wanted.items() if objects} == whole


@given(states, states, states)
def test_users_of_a_set_are_known_after_every_change(first: NodeState, then: NodeState, last: NodeState) -> None:
    """What is remembered of who names which set follows from the state, not from the way to it."""
    planner, fresh = RulesPlanner(), RulesPlanner()
    for old, new in ((NodeState(settings=first.settings), first), (first, then), (then, last)):
        list(planner.plans(difference(old, new), new))
    list(fresh.plans(everything(last), last))
    for key in (SetKey(found.id, family) for found in SELECTED for family in (4, 6)):
        found = set(planner.users(set_owner(key)))
        assert found == set(fresh.users(set_owner(key)))
        judges = users(last, key) if key.family == 4 or last.settings.ipv6_support else set()
        named = [id_ for id_ in JUDGES if policy_owner(id_) in judges]
        assert found == judges | mergers(last, *named)
    for judge in JUDGES:
        assert set(planner.users(policy_owner(judge))) == mergers(last, judge)
    for run in {*first.runs, *then.runs, *last.runs}:
        for owner in (run_owner(run), set_owner(SetKey(run, 4)), set_owner(SetKey(run, 6))):
            assert set(planner.users(owner)) == mergers(last, run)
    assert list(planner.users(STATIC)) == []


def test_one_more_policy_on_one_endpoint_compiles_one_policy_and_one_endpoint() -> None:
    def world(count: int, *governing: PolicyId) -> NodeState:
        ids = [PolicyId("np", "shop", f"p{number}") for number in range(count)]
        found = {id_: Policy(id=id_, tier="default", order=1, selector="all()", ingress=()) for id_ in ids}
        tiers = (TierBinding(tier="default", default_action="deny", ingress=governing),)
        web = [
            WorkloadEndpoint(
                id=EndpointId("k8s", f"shop/web-{number}", "eth0"), container_id="c", interface=f"cali{number}",
                addresses=(), tiers=tiers if number == 7 else (),
            )
            for number in range(1000)
        ]  # fmt: skip
        return NodeState(settings=FelixSettings(), policies=found, endpoints={each.id: each for each in web})

    planner = RulesPlanner()
    before, after = world(100), world(101, PolicyId("np", "shop", "p100"))
    list(planner.plans(replace(everything(before), settings=None), before))
    counted = planner.by_kind.copy()
    plans = list(planner.plans(difference(before, after), after))
    assert [plan.owner for plan in plans] == [Owner("policy", "np/shop/p100"), Owner("endpoint", "k8s/shop/web-7/eth0")]
    assert planner.by_kind - counted == {"policy": 1, "endpoint": 1}


def test_a_set_that_becomes_one_of_prefixes_takes_its_users_with_it_and_nobody_else() -> None:
    sure = PolicyRule(action="allow", number=0, source=Peer(sets=(SELECTED[0],)))
    other = PolicyRule(action="allow", number=0, source=Peer(sets=(SELECTED[1],)))
    kinds: dict[SetKey, SetKind] = {SetKey(found.id, family): "addresses" for found in SELECTED for family in (4, 6)}
    before = NodeState(
        settings=FelixSettings(),
        policies={
            id_: Policy(id=id_, tier="default", order=1, selector="all()", ingress=(rule,))
            for id_, rule in zip(JUDGES, (sure, other), strict=True)
        },
        sets=kinds,
        members=dict.fromkeys(kinds, frozenset()),
    )
    planner = RulesPlanner()
    change = Change(sets={SetKey(SELECTED[0].id, 4): "prefixes"})
    plans = list(planner.plans(replace(everything(before), settings=None), before))
    assert {plan.owner.kind for plan in plans} == {"set", "policy"}
    after = apply(before, change)
    assert [plan.owner for plan in planner.plans(change, after)] == [
        Owner("set", "s:x/4"), Owner("policy", "np/shop/a")
    ]  # fmt: skip


@given(states)
def test_one_owner_compiled_alone_is_what_it_is_among_all(state: NodeState) -> None:
    planner = RulesPlanner()
    for plan in planner.plans(everything(state), state):
        assert planner.plan(plan.owner, state) == plan


@given(states)
def test_a_state_names_each_owner_once(state: NodeState) -> None:
    owners = [plan.owner for plan in RulesPlanner().plans(everything(state), state)]
    assert len(owners) == len(set(owners))


@given(states)
def test_a_refused_owner_has_a_closed_form_of_the_same_chains(state: NodeState) -> None:
    planner = RulesPlanner()
    for plan in planner.plans(everything(state), state):
        closed = planner.closed(plan.owner, state)
        if plan.owner.kind not in ("endpoint", "policy", "profile"):
            assert closed is None
            continue
        assert closed is not None
        assert plan.objects is not None
        assert closed.keys() <= plan.objects.keys()
        for value in closed.values():
            if isinstance(value, Chain):
                assert [(rule.matches, rule.action) for rule in value.rules] == [((), Drop())]
    for owner in (Owner("policy", "np/shop/gone"), Owner("profile", "gone"), Owner("endpoint", "k8s/shop/gone/eth0")):
        assert planner.closed(owner, state) is None
        assert planner.plan(owner, state) == Plan(owner)
