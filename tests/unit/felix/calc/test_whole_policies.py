"""What policies come to on a node: who is governed by what, in which order, and who is in the sets of the rules."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.felix.calc.change import NodeState
from calipy.felix.calc.whole import compute
from calipy.felix.calc.world import Event, World, advance
from calipy.model.policies import PolicyId
from calipy.resources.selectors import parse
from tests.unit.felix.calc.worlds import (
    ME,
    attached,
    bare,
    detached,
    endpoints,
    felix,
    gnp,
    gns,
    gone,
    here,
    knp,
    np,
    ns,
    pod,
    thing,
    tier,
)  # fmt: skip

ALLOW = [{"action": "Allow"}]
WEB = attached("web", "10.0.0.1", "fd00::1", labels={"app": "web"})


def after(*events: Event) -> NodeState:
    """The node's state once all this has happened."""
    return compute(advance(World(node=ME), events))


def order(state: NodeState, name: str = "web") -> list[str]:
    """What governs an endpoint: `tier: policies in | policies out (what the tier does at its end)`."""
    return [
        f"{each.tier}: {' '.join(map(str, each.ingress))} | {' '.join(map(str, each.egress))} ({each.default_action})"
        for each in state.endpoints[here(name)].tiers
    ]


def members(state: NodeState, selector: str, family: int = 4) -> tuple[str, set[str]] | None:
    """Kind and members of the set of a selector; None where there is none."""
    return named(state, parse(selector).id, family)


def named(state: NodeState, id_: str, family: int = 4) -> tuple[str, set[str]] | None:
    """Kind and members of a set by its identity, or the first part of it."""
    found = [key for key in state.sets if key.id.startswith(id_) and key.family == family]
    assert len(found) < 2
    return (state.sets[found[0]], set(state.members[found[0]])) if found else None


def policy_sets(state: NodeState) -> set[tuple[str, int]]:
    """Beginnings of the identities of the sets that rules need, and their families."""
    return {(key.id.partition(":")[0], key.family) for key in state.sets if ":" in key.id}


# --- who is governed by what ---


def test_a_policy_is_in_force_where_it_governs_something() -> None:
    there = np("a", selector="app == 'web'", ingress=ALLOW), np("b", selector="app == 'db'"), np("c", namespace="other")
    state = after(WEB, *there)
    assert list(state.policies) == [PolicyId("np", "shop", "a")]
    assert order(state) == ["default: np/shop/a |  (deny)"]
    assert not after(*there).policies


def test_a_policy_that_is_needed_everywhere_is_in_force_everywhere() -> None:
    state = after(gnp("a", selector="has(nobody)", performanceHints=["AssumeNeededOnEveryNode"]), WEB)
    assert list(state.policies) == [PolicyId("gnp", "", "a")]
    assert order(state) == []


def test_rules_of_the_directions_in_force() -> None:
    state = after(WEB, np("a", ingress=ALLOW, egress=ALLOW, types=["Egress"]))
    (policy,) = state.policies.values()
    assert policy.ingress is None
    assert [rule.action for rule in policy.egress or ()] == ["allow"]
    assert order(state) == ["default:  | np/shop/a (deny)"]


def test_tiers_follow_their_order_then_their_name_and_one_that_is_not_there_comes_last() -> None:
    names = ("late", "early", "same-b", "same-a", "open", "missing", "kube-baseline", "kube-admin", "")
    state = after(
        WEB, *(gnp(f"of-{name or 'none'}", tier=name) for name in names),
        tier("late", order=9_000_000), tier("early", order=1), tier("same-a", order=7), tier("same-b", order=7),
        tier("open", defaultAction="Pass"),
    )  # fmt: skip
    assert order(state) == [
        "early: gnp/of-early |  (deny)",
        "same-a: gnp/of-same-a |  (deny)",
        "same-b: gnp/of-same-b |  (deny)",
        "kube-admin: gnp/of-kube-admin |  (pass)",
        "default: gnp/of-none |  (deny)",
        "late: gnp/of-late |  (deny)",
        "kube-baseline: gnp/of-kube-baseline |  (pass)",
        "open: gnp/of-open |  (pass)",
        "missing: gnp/of-missing |  (deny)",
    ]


def test_policies_of_a_tier_follow_their_order_then_name_namespace_and_kind() -> None:
    state = after(
        WEB, np("z", order=1), gnp("b", order=2), knp("b"), np("b", order=1000), gnp("b2"), np("a"), gnp("a", order=2)
    )
    assert order(state) == ["default: np/shop/z gnp/a gnp/b knp/shop/b np/shop/b np/shop/a gnp/b2 |  (deny)"]


def test_passing_policies() -> None:
    state = after(WEB, gnp("a", ingress=[{"action": "Pass"}], egress=ALLOW), gnp("b", ingress=ALLOW))
    (bound,) = state.endpoints[here("web")].tiers
    assert bound.passing == (PolicyId("gnp", "", "a"),)


# labels, Namespace, ServiceAccount of a workload here | selectors of a GlobalNetworkPolicy | does it govern
GOVERNED: list[tuple[dict[str, Any], bool]] = [
    ({"selector": "app == 'web'"}, True),
    ({"selector": "app == 'db'"}, False),
    ({"selector": "projectcalico.org/namespace == 'shop' && projectcalico.org/orchestrator == 'k8s'"}, True),
    ({"namespaceSelector": "team == 'a'"}, True),
    ({"namespaceSelector": "team == 'b'"}, False),
    ({"namespaceSelector": "projectcalico.org/name == 'shop'"}, True),
    ({"namespaceSelector": "all()"}, True),
    ({"serviceAccountSelector": "role == 'api'"}, True),
    ({"serviceAccountSelector": "projectcalico.org/name == 'robot'"}, True),
    ({"serviceAccountSelector": "projectcalico.org/name == 'other'"}, False),
    ({"selector": "pcns.team == 'a' && pcsa.role == 'api'"}, True),
    ({"selector": "from-profile == 'yes'"}, True),
    ({"selector": "team == 'a'"}, False),
]


@pytest.mark.parametrize(("spec", "governs"), GOVERNED, ids=lambda value: str(value)[:60])
def test_whom_a_policy_governs(spec: dict[str, Any], governs: bool) -> None:
    state = after(
        attached("web", "10.0.0.1", labels={"app": "web"}, service_account="robot"),
        ns(team="a"),
        thing("ServiceAccount", "robot", "shop", {"role": "api"}),
        thing("Profile", "kns.shop", spec={"labelsToApply": {"from-profile": "yes", "app": "db", "pcns.team": "b"}}),
        gnp("a", **spec),
    )
    assert bool(order(state)) is governs


def test_a_namespace_and_a_service_account_that_are_not_there_have_names() -> None:
    state = after(
        attached("web", "10.0.0.1", service_account="robot"),
        gnp("a", namespaceSelector="projectcalico.org/name == 'shop'"),
        gnp("b", serviceAccountSelector="projectcalico.org/name == 'robot'"),
        gnp("c", namespaceSelector="has(team)"),
    )
    assert order(state) == ["default: gnp/a gnp/b |  (deny)"]


def test_what_is_no_pod_is_governed_by_policies_of_the_cluster() -> None:
    state = after(bare("x", "10.0.0.9"), gnp("a"), gnp("b", namespaceSelector="all()"), np("c", namespace="default"))
    (endpoint,) = state.endpoints.values()
    assert [each.ingress for each in endpoint.tiers] == [(PolicyId("gnp", "", "a"),)]
    assert endpoint.profiles == ("projectcalico-default-allow",)


def test_the_newest_pod_says_the_labels_and_one_that_is_gone_takes_none_away() -> None:
    policy = np("a", selector="quarantine == 'yes'")
    newest = pod("web", "10.0.0.1", node=ME, quarantine="yes")
    assert order(after(policy, WEB)) == []
    assert order(after(policy, WEB, newest)) == ["default: np/shop/a |  (deny)"]
    assert order(after(policy, WEB, newest, gone(newest))) == ["default: np/shop/a |  (deny)"]
    assert order(after(policy, newest, WEB)) == ["default: np/shop/a |  (deny)"]


def test_a_pod_made_anew_on_another_node_has_no_say_here() -> None:
    policy = np("a", selector="quarantine == 'yes'")
    newest, elsewhere = pod("web", node=ME, quarantine="yes"), pod("web", "10.0.1.1")
    assert order(after(policy, WEB, newest, elsewhere)) == ["default: np/shop/a |  (deny)"]
    assert order(after(policy, WEB, pod("web", "10.0.1.1", quarantine="yes"))) == []


# --- profiles ---


def test_profiles_with_rules_are_in_force_where_an_endpoint_has_them() -> None:
    state = after(attached("web", "10.0.0.1", service_account="robot"))
    assert state.endpoints[here("web")].profiles == ("kns.shop",)
    assert list(state.profiles) == ["kns.shop"]
    assert [rule.action for rule in state.profiles["kns.shop"].egress] == ["allow"]
    own = thing("Profile", "ksa.shop.robot", spec={"ingress": [{"action": "Deny", "source": {"selector": "has(a)"}}]})
    state = after(own, attached("web", "10.0.0.1", service_account="robot"))
    assert state.endpoints[here("web")].profiles == ("kns.shop", "ksa.shop.robot")
    assert members(state, "has(a)") == ("addresses", set())


# --- sets ---


def sourced(**source: Any) -> Event:
    """A policy of everything here with one rule."""
    return gnp("rule", ingress=[{"action": "Allow", "source": source}])


def test_a_sets_members_are_workloads_here_and_elsewhere_and_network_sets() -> None:
    state = after(
        sourced(selector="has(app)"), WEB,
        pod("db", "10.0.1.1", "fd00::2", app="db"),
        pod("cache", "10.0.1.2"),
        gns("bad", "192.0.2.1", "192.0.2.2/32", app="bad"),
    )  # fmt: skip
    assert members(state, "has(app)") == ("addresses", {"10.0.0.1", "10.0.1.1", "192.0.2.1", "192.0.2.2"})
    assert members(state, "has(app)", 6) == ("addresses", {"fd00::1", "fd00::2"})


def test_one_cidr_makes_a_set_one_of_prefixes_in_its_family_alone() -> None:
    state = after(sourced(selector="has(app)"), WEB, gns("bad", "192.0.2.0/24", app="bad"))
    assert members(state, "has(app)") == ("prefixes", {"10.0.0.1", "192.0.2.0/24"})
    assert members(state, "has(app)", 6) == ("addresses", {"fd00::1"})


def test_a_network_set_of_a_namespace_has_the_namespaces_labels() -> None:
    bad = thing("NetworkSet", "bad", "shop", {"app": "bad"}, spec={"nets": ["192.0.2.1"]})
    state = after(sourced(namespaceSelector="team == 'a'", selector="app == 'bad'"), ns(team="a"), WEB, bad)
    assert members(state, "(pcns.team == 'a' && app == 'bad')") == ("addresses", {"192.0.2.1"})


# what a workload here, `web`, is like | whether its address is in the set of those with `app`
HERE: list[tuple[str, list[Event], bool]] = [
    ("attached, and the store knows nothing of it", [WEB], True),
    ("attached, its Pod without status", [WEB, pod("web", node=ME, app="web")], True),
    ("its Pod has lost the label", [WEB, pod("web", "10.0.0.1", node=ME)], False),
    ("a Pod of this node that isn't attached", [pod("web", "10.0.0.1", node=ME, app="web")], False),
    ("detached, its Pod there still", [WEB, pod("web", "10.0.0.1", node=ME, app="web"), detached("web")], False),
    ("succeeded, not yet detached", [WEB, pod("web", "10.0.0.1", node=ME, phase="Succeeded", app="web")], False),
    (
        "deleted, not yet detached",
        [WEB, pod("web", "10.0.0.1", node=ME, app="web"), gone(pod("web", node=ME, app="web"))],
        True,
    ),
    (
        "being deleted, running",
        [
            WEB,
            pod(
                "web", "10.0.0.1", node=ME, app="web",
                metadata={"deletionTimestamp": "now", "annotations": {"cni.projectcalico.org/podIP": "10.0.0.1/32"}},
            ),
        ],
        True,
    ),
    (
        "being deleted, its address taken back",
        [
            WEB,
            pod(
                "web", "10.0.0.1", node=ME, app="web",
                metadata={"deletionTimestamp": "now", "annotations": {"cni.projectcalico.org/podIP": ""}},
            ),
        ],
        False,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("events", "inside"), [row[1:] for row in HERE], ids=[row[0] for row in HERE])
def test_a_workload_here_is_in_sets_by_what_cni_says(events: list[Event], inside: bool) -> None:
    state = after(sourced(selector="has(app)"), attached("other", "10.0.0.9"), *events)
    assert members(state, "has(app)") == ("addresses", {"10.0.0.1"} if inside else set())


def test_a_finished_workload_here_is_governed_until_it_is_detached() -> None:
    assert order(after(np("a"), WEB, pod("web", node=ME, phase="Failed")))


def test_named_ports() -> None:
    http, dns = {"containerPort": 8080, "name": "http"}, {"containerPort": 53, "name": "http", "protocol": "UDP"}
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"selector": "has(app)", "ports": ["http"]}}
    state = after(
        gnp("a", ingress=[rule]), WEB,
        pod("web", node=ME, app="web", ports=(http, dns)),
        pod("one", "10.0.1.1", "fd00::2", app="a", ports=({**http, "containerPort": 80},)),
        pod("two", "10.0.1.2", app="a"),
        pod("three", "10.0.1.3", ports=(http,)),
        gns("bad", "192.0.2.1", app="bad"),
    )  # fmt: skip
    assert named(state, "n:") == ("endpoints", {"10.0.0.1,tcp:8080", "10.0.1.1,tcp:80"})
    assert named(state, "n:", 6) == ("endpoints", {"fd00::1,tcp:8080", "fd00::2,tcp:80"})
    assert members(state, "has(app)") is None, "no rule needs it"


def test_services() -> None:
    db = {"services": {"name": "db", "namespace": "shop"}}
    state = after(
        WEB, gnp("a", egress=[{"action": "Allow", "destination": db}], ingress=[{"action": "Allow", "source": db}]),
        endpoints("db", "10.0.1.1", "10.0.1.2", "not an address"),
        endpoints("db", "10.0.1.2", "10.0.1.3", name="more", ports=[{"port": 53, "protocol": "UDP"}, {"name": "any"}]),
        endpoints("db", "fd00::2"),
        endpoints("db", "10.0.9.9", namespace="other"),
        endpoints("cache", "10.0.9.8"),
    )  # fmt: skip
    with_ports = {"10.0.1.1,tcp:80", "10.0.1.2,tcp:80", "10.0.1.2,udp:53", "10.0.1.3,udp:53"}
    assert named(state, "svc:") == ("endpoints", with_ports)
    assert named(state, "svc:", 6) == ("endpoints", {"fd00::2,tcp:80"})
    assert named(state, "svcnoport:") == ("addresses", {"10.0.1.1", "10.0.1.2", "10.0.1.3"})


def test_an_endpoint_that_is_not_ready_is_one_all_the_same() -> None:
    rule = {"action": "Allow", "destination": {"services": {"name": "db"}}}
    waiting = endpoints("db", endpoints=[{"addresses": ["10.0.1.1"], "conditions": {"ready": False}}])
    assert named(after(WEB, np("a", egress=[rule]), waiting), "svc:") == ("endpoints", {"10.0.1.1,tcp:80"})


V4, V6 = ["10.0.0.0/8", "192.0.2.1/32"], ["fd00::/8", "fe80::/10"]

# a rule | the sets that it needs: the beginning of the identity, and the family
NEEDED: list[tuple[dict[str, Any], set[tuple[str, int]]]] = [
    ({}, set()),
    ({"source": {"nets": V4[:1]}}, set()),
    ({"source": {"nets": V4}}, {("nets", 4)}),
    ({"source": {"notNets": V6}}, {("nets", 6)}),
    ({"source": {"selector": "has(a)"}}, {("s", 4), ("s", 6)}),
    ({"source": {"notSelector": "has(a)"}}, {("s", 4), ("s", 6)}),
    ({"source": {"selector": "has(a)"}, "ipVersion": 6}, {("s", 6)}),
    ({"source": {"selector": "has(a)"}, "destination": {"nets": V4[:1]}}, {("s", 4)}),
    ({"source": {"selector": "has(a)"}, "destination": {"notNets": V4[:1]}}, {("s", 4)}),
    ({"protocol": "TCP", "destination": {"ports": [80]}}, set()),
    ({"protocol": "TCP", "destination": {"ports": [80, 81]}}, set()),
    ({"protocol": "TCP", "destination": {"ports": [80, 443]}}, {("ports", 0)}),
    ({"protocol": "TCP", "source": {"notPorts": [80, "443:444"]}, "ipVersion": 4}, {("ports", 0)}),
    ({"protocol": "TCP", "destination": {"notPorts": ["http"]}}, {("n", 4), ("n", 6)}),
    ({"protocol": "TCP", "destination": {"ports": ["http"]}, "ipVersion": 4}, {("n", 4)}),
]


@pytest.mark.parametrize(("rule", "needed"), NEEDED, ids=[str(row[0])[:70] for row in NEEDED])
def test_there_are_the_sets_that_a_rule_in_force_needs_and_no_others(
    rule: dict[str, Any], needed: set[tuple[str, int]]
) -> None:
    policy = gnp("a", ingress=[{"action": "Allow", **rule}])
    assert policy_sets(after(WEB, policy)) == needed
    assert policy_sets(after(policy)) == set(), "it governs nothing here"
    without = {entry for entry in needed if entry[1] != 6}
    if rule.get("ipVersion") == 6 or "notNets" in rule.get("source", {}):
        without = set()
    assert policy_sets(after(WEB, policy, felix(ipv6Support=False))) == without


def test_lists() -> None:
    rule = {"protocol": "TCP", "source": {"nets": V4}, "destination": {"ports": [80, "443:445", 8080]}}
    state = after(WEB, gnp("a", ingress=[{"action": "Allow", **rule}]))
    assert named(state, "nets:") == ("prefixes", {"10.0.0.0/8", "192.0.2.1"})
    assert named(state, "ports:", 0) == ("ports", {"80", "443-445", "8080"})
    whole = {"nets": ["192.0.2.1/32", "192.0.2.2/32"]}
    assert named(after(WEB, sourced(**whole)), "nets:") == ("addresses", {"192.0.2.1", "192.0.2.2"})


def test_rules_that_say_the_same_share_a_set() -> None:
    one, two = ({"action": "Allow", "source": {"selector": text}} for text in ("a in {'x','y'}", 'a in { "y", "x" }'))
    state = after(WEB, gnp("a", ingress=[one]), gnp("b", egress=[{"action": "Deny", "destination": two["source"]}]))
    assert [key.family for key in state.sets if key.id.startswith("s:")] == [4, 6]


def test_two_kinds_of_policy_may_have_one_name() -> None:
    assert len(after(WEB, np("a"), gnp("a"), knp("a")).policies) == 3
