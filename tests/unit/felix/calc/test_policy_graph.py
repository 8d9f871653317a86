"""Policy by steps against the whole calculation: base scenarios told in many ways, worlds that hypothesis makes up, and
counters that show that no more is done than must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc import runs
from calipy.felix.calc.change import NodeState, apply, merge
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.whole import compute
from calipy.felix.calc.world import Attached, Detached, Event, ResourceGone, ResourcePut, World, advance
from tests.effort import examples
from tests.unit.felix.calc.stories import cadences, flush, tellings, told
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
    knp,
    np,
    ns,
    pod,
    thing,
    tier,
)  # fmt: skip

HTTP, DNS = {"containerPort": 80, "name": "http"}, {"containerPort": 53, "name": "dns", "protocol": "UDP"}
APP = {"action": "Allow", "source": {"selector": "has(app)"}}
DB = {"action": "Allow", "source": {"selector": "app == 'db'"}}
TEAM = {"action": "Deny", "source": {"namespaceSelector": "team == 'a'"}}
SERVICE = {"action": "Allow", "destination": {"services": {"name": "db", "namespace": "shop"}}}
NAMED = {"action": "Allow", "protocol": "TCP", "destination": {"selector": "has(app)", "ports": ["http", 443, 8080]}}
ROBOT = {"action": "Allow", "source": {"serviceAccounts": {"names": ["robot"]}}}
PEERS = [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "b"}}}]
BLOCKS = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}}]
LISTS = {"action": "Allow", "source": {"nets": ["10.0.0.0/8", "192.0.2.0/24"]}}
WEB, DB_POD = attached("web", "10.0.0.1", "fd00::1", labels={"app": "web"}), pod("db", "10.0.1.1", "fd00::2", app="db")
OWN = pod("web", "10.0.0.1", node=ME, app="web", account="robot", ports=(HTTP,))

STANDING: list[Event] = [
    ns("shop", team="a"), ns("data", team="b"), thing("ServiceAccount", "robot", "shop", {"role": "api"}),
    tier("security", order=10), WEB, OWN, attached("cache", "10.0.0.2"), bare("x", "10.0.0.9"),
    DB_POD, pod("db", "10.0.2.1", namespace="data", app="db"), gns("bad", "198.51.100.1", app="bad"),
    endpoints("db", "10.0.1.1"),
    np("base", selector="has(app)", ingress=[APP, NAMED]), gnp("teams", ingress=[TEAM], egress=[SERVICE]),
]  # fmt: skip

SCENARIOS: dict[str, list[Event]] = {
    "a policy comes": [np("more", ingress=[DB, LISTS])],
    "a policy comes and goes": [np("more", ingress=[DB]), gone(np("more"))],
    "a policy of nobody here": [np("more", namespace="data", ingress=[DB])],
    "a policy's selector turns to nobody and back": [
        np("base", selector="has(nobody)", ingress=[APP]),
        np("base", selector="has(app)", ingress=[APP]),
    ],
    "a policy's selector turns to others": [
        np("base", selector="!has(app)", ingress=[APP]), np("base", ingress=[APP]),
    ],
    "a policy's rules change": [np("base", selector="has(app)", ingress=[DB]), np("base", selector="has(app)")],
    "a policy's directions change": [
        np("base", types=["Egress"], egress=[SERVICE]), np("base", types=["Ingress", "Egress"]),
    ],
    "a policy's order changes": [np("other", order=5), np("base", order=10), np("base", order=1)],
    "a policy is needed everywhere, then not": [
        gnp("far", selector="has(nobody)", ingress=[DB], performanceHints=["AssumeNeededOnEveryNode"]),
        gnp("far", selector="has(nobody)", ingress=[DB]),
    ],
    "a policy moves to another tier": [gnp("teams", tier="security", ingress=[{"action": "Pass"}]), gnp("teams")],
    "a policy begins to pass": [gnp("teams", ingress=[{"action": "Pass"}])],
    "tiers change places": [
        gnp("a", tier="security"), gnp("b", tier="late"), tier("late", order=20), tier("security", order=30),
    ],
    "a tier is gone, its policy is not": [gnp("a", tier="security"), gone(tier("security"))],
    "a tier's end changes": [gnp("a", tier="security"), tier("security", order=10, defaultAction="Pass")],
    "two policies of one selector, one goes": [
        np("twin", selector="has(app)", ingress=[APP]), gone(np("base")), np("twin", selector="has(app)"),
    ],
    "two rules share a set, one goes": [
        gnp("twin", ingress=[APP, LISTS]), gnp("twin", ingress=[LISTS]), gone(gnp("twin")),
    ],
    "Kubernetes' policy": [
        knp("k", ingress=[{"from": PEERS, "ports": [{"port": "http"}, {"port": 80}]}]),
        knp("k", policyTypes=["Egress"], egress=[{"to": BLOCKS}]),
    ],
    "a label flips, elsewhere": [np("more", ingress=[DB]), pod("db", "10.0.1.1", "fd00::2", app="web"), DB_POD],
    "a label flips, here": [pod("web", "10.0.0.1", node=ME), OWN],
    "a namespace is relabelled": [ns("shop", team="b"), ns("data", team="a"), ns("shop")],
    "a namespace is relabelled as its pod goes": [
        ns("data", team="a"), gone(pod("db", namespace="data")), pod("db", "10.0.2.2", namespace="data"),
    ],
    "a namespace is gone and comes again": [gone(ns("shop")), ns("shop", team="a")],
    "a service account is relabelled": [
        gnp("sa", serviceAccountSelector="role == 'api'", ingress=[ROBOT]),
        thing("ServiceAccount", "robot", "shop", {"role": "other"}),
        pod("web", "10.0.0.1", node=ME, app="web", account="other"),
    ],
    "a set becomes one of prefixes and back": [
        gns("bad", "198.51.100.1", "203.0.113.0/24", app="bad"), gns("bad", "198.51.100.1", app="bad"),
    ],
    "a set becomes one of prefixes with its label": [
        gns("wide", "203.0.113.0/24"), gns("wide", "203.0.113.0/24", app="x"),
    ],
    "a network set of a namespace": [
        thing("NetworkSet", "own", "shop", {"app": "n"}, spec={"nets": ["192.0.2.7", "fd00::7"]}), ns("shop", team="b"),
    ],
    "network sets overlap": [gns("b2", "198.51.100.1", "198.51.100.2", app="b"), gone(gns("bad")), gone(gns("b2"))],
    "named ports change": [
        pod("web", "10.0.0.1", node=ME, app="web", ports=({**HTTP, "containerPort": 81}, DNS)),
        pod("db", "10.0.1.1", app="db", ports=(HTTP,)), pod("db", "10.0.1.1", app="db", ports=(DNS,)),
    ],
    "endpoints of a service come and go": [
        endpoints("db", "10.0.1.1", "10.0.1.3"), endpoints("db", "10.0.1.3", name="two"), endpoints("db"),
        gone(endpoints("db", name="two")),
    ],
    "a slice changes its service": [endpoints("other", "10.0.1.1", name="db-ipv4"), endpoints("db", "10.0.1.1")],
    "a slice changes its service before a rule names it": [
        endpoints("other", "10.0.1.1", name="db-ipv4"),
        gnp("back", ingress=[{"action": "Allow", "source": {"services": {"name": "db", "namespace": "shop"}}}]),
    ],
    "a pod finishes, elsewhere": [pod("db", "10.0.1.1", phase="Succeeded", app="db"), DB_POD],
    "a pod finishes, here": [pod("web", "10.0.0.1", node=ME, phase="Failed", app="web"), detached("web")],
    "an endpoint attaches before its Pod": [
        attached("new", "10.0.0.3", labels={"app": "n"}), pod("new", node=ME, app="m"),
        pod("new", "10.0.0.3", node=ME, app="m"),
    ],
    "an endpoint attaches after its Pod": [pod("new", node=ME, app="n"), attached("new", "10.0.0.3"), detached("new")],
    "a Pod is gone while it is attached": [
        pod("web", node=ME, app="web", quarantine="yes"), gnp("q", selector="has(quarantine)"), gone(OWN),
        detached("web"),
    ],
    "a Pod is made anew, on another node and here": [
        pod("web", "10.0.1.9", app="web"), gone(OWN), OWN, attached("web", "10.0.0.7"),
    ],
    "two pods with one address": [pod("twin", "10.0.1.1", app="x"), gone(DB_POD), gone(pod("twin"))],
    "a pod here and one elsewhere with one address": [
        pod("twin", "10.0.0.1", app="x"), detached("web"), gone(pod("twin")),
    ],
    "addresses change": [pod("db", "10.0.1.7", app="db"), attached("web", "10.0.0.8", labels={"app": "web"})],
    "a profile changes": [
        thing("Profile", "kns.shop", spec={"ingress": [DB], "labelsToApply": {"app": "p"}}),
        thing("Profile", "kns.shop"), gone(thing("Profile", "kns.shop")),
    ],
    "a service account's profile gets rules": [
        thing("Profile", "ksa.shop.robot", spec={"egress": [LISTS]}), thing("Profile", "ksa.shop.robot"),
    ],
    "what is no pod": [gnp("a", selector="projectcalico.org/orchestrator == 'cni'", ingress=[APP]), detached("web")],
    "IPv6 is turned off and on": [felix(ipv6Support=False), np("more", ingress=[DB]), felix(ipv6Support=True)],
    "lists come and go": [gnp("lists", ingress=[LISTS]), gnp("lists", ingress=[NAMED]), gone(gnp("lists"))],
    "two policies are one look-up, then three, then two": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[DB]), np("three", order=3, ingress=[APP, DB]),
        gone(np("two")), gone(np("one")),
    ],
    "one of a run asks for others, for anybody, for nobody": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[APP]), np("two", order=2, ingress=[DB]),
        np("two", order=2, ingress=[LISTS]), np("two", order=2),
    ],
    "a label flips under a run": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[DB]), pod("db", "10.0.1.1", app="web"),
        pod("db", "10.0.1.1", "fd00::2"), DB_POD, gone(DB_POD),
    ],
    "a set under a run becomes one of prefixes and back": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[DB]),
        gns("wide", "203.0.113.0/24", app="x"), gns("wide", "203.0.113.7", app="x"), gone(gns("wide")),
    ],
    "a policy of a run begins to pass": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[DB]),
        np("one", order=1, ingress=[{**APP, "action": "Pass"}]), gone(np("two")),
    ],
    "endpoints that have merged a run go": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[DB]), detached("cache"), detached("web"), WEB,
    ],
    "IPv6 is turned off and on under a run": [
        np("one", order=1, ingress=[APP]), np("two", order=2, ingress=[DB]), felix(ipv6Support=False),
        pod("db", "10.0.1.9", "fd00::9", app="db"), felix(),
    ],
    "a selector that can match nobody": [gnp("no", selector="a == 'b' && a == 'c'", ingress=[DB]), gone(gnp("no"))],
}  # fmt: skip


def check(batches: Sequence[Sequence[Event]], before: Sequence[Event] = ()) -> tuple[Graph, NodeState]:
    """Tells a story after another, all of it at once; after each flush all is as the whole calculation says."""
    graph, state, merged = told([before])
    world = advance(World(node=ME), before)
    for batch in batches:
        graph.update(batch)
        change, world = flush(graph), advance(world, batch)
        state, merged = apply(state, change), merge(merged, change)
        expected = compute(world)
        assert state == expected
        assert graph.state() == expected
    assert apply(NodeState(settings=FelixSettings()), merged) == compute(world)
    return graph, state


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_told_in_any_way_leads_where_the_whole_calculation_says(name: str) -> None:
    for _, events in tellings(SCENARIOS[name]):
        for _, batches in cadences(events):
            check(batches, STANDING)


SMALL = (("_MOST_OF_A_RUN", 3), ("_MOST_OF_ALL", 9), ("MOST_MASKS", 1), ("_MOST_POLICIES", 2))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "run" in name or "look-up" in name])
@pytest.mark.parametrize(("bound", "most"), SMALL)
def test_what_a_run_may_have_at_most_moves_with_it(
    name: str, bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, bound, most)
    for batches in ([[event] for event in SCENARIOS[name]], [SCENARIOS[name]]):
        check(batches, STANDING)
        check([*batches, *([event] for event in reversed(STANDING))], STANDING)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_from_nothing_forward_and_reversed(name: str) -> None:
    events = [*STANDING, *SCENARIOS[name]]
    check([events])
    check([list(reversed(events))])
    check([[event] for event in reversed(events)])


def test_the_cluster_at_work_has_all_that_scenarios_move() -> None:
    _, state, _ = told([STANDING])
    assert len(state.policies) == 2
    kinds = {(key.id.partition(":")[0], kind) for key, kind in state.sets.items() if ":" in key.id}
    assert kinds == {("s", "addresses"), ("n", "endpoints"), ("svc", "endpoints"), ("ports", "ports")}
    assert all(state.members[key] for key in state.sets if key.family == 4 and ":" in key.id)


# --- worlds that hypothesis makes up ---

SELECTORS = ("", "all()", "app == 'a'", "app != 'a'", "has(app) && has(env)", "!has(app)", "app in {'a', 'b'}")


def _labels() -> Iterator[dict[str, str]]:
    for app, env in product(("", "a", "b"), ("", "p")):
        yield {name: value for name, value in (("app", app), ("env", env)) if value}


def _rules() -> Iterator[dict[str, object]]:
    for selector, other in product(SELECTORS[1:], ("", "env == 'p'")):
        yield {"action": "Allow", "source": {"selector": selector, "notSelector": other}}
    for namespaces in ("all()", "global()", "team == 'a'", "!has(team)"):
        yield {"action": "Deny", "source": {"namespaceSelector": namespaces}}
    for ports in (["http"], ["http", 80], ["dns"], [80, 443]):
        for protocol in ("TCP", "UDP"):
            yield {"action": "Allow", "protocol": protocol, "destination": {"selector": "has(app)", "ports": ports}}
    yield {"action": "Pass", "source": {"serviceAccounts": {"names": ["r"]}}}
    yield {"action": "Allow", "source": {"selector": "has(app)"}, "ipVersion": 6}
    yield {"action": "Allow", "source": {"selector": "has(app)", "nets": ["10.0.0.0/8"]}}
    yield {"action": "Allow", "source": {"nets": ["10.0.0.0/8", "10.0.0.1/32"]}}
    yield {"action": "Allow", "source": {"services": {"name": "s", "namespace": "n1"}}}


def _policies() -> Iterator[Event]:
    rules = list(_rules())
    for name, selector, rule in product("pq", SELECTORS, rules):
        order = 1.0 if name == "p" else None
        yield np(name, "n1", selector=selector, ingress=[rule], order=order)
        yield gnp(name, selector=selector, ingress=[rule], tier="t" if name == "p" else "")
    for name, kind in product("pq", (np, gnp)):
        yield from [gone(kind(name, "n1") if kind is np else gnp(name))] * 30
    egress = {"action": "Allow", "destination": {"services": {"name": "s", "namespace": "n1"}}}
    for selector in SELECTORS:
        yield gnp("q", namespaceSelector="team == 'a'", selector=selector, egress=[egress])
        yield gnp("q", serviceAccountSelector="has(role)", selector=selector, egress=[egress])


def _kubernetes() -> Iterator[Event]:
    peers = ({"podSelector": {}}, {"namespaceSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "a"}}})
    for labels, peer, port in product(({}, {"app": "a"}), peers, (None, 80, "http")):
        rule = {"from": [peer], "ports": [{"port": port}] if port else []}
        yield knp("k", "n1", podSelector={"matchLabels": labels}, ingress=[rule])
        yield gone(knp("k", "n1"))


def _things() -> Iterator[Event]:
    addresses = ((), ("10.0.0.1",), ("10.0.0.2", "fd00::2"), ("fd00::1",))
    for name, space, labels in product("ab", ("n1", "n2"), _labels()):
        for found, node, phase in product(addresses, ("", ME, "n9"), ("", "Failed")):
            ports = (HTTP,) if name == "a" else (HTTP, DNS)
            yield pod(
                name,
                *found,
                namespace=space,
                node=node,
                phase=phase,
                ports=ports,
                account="r" if found else "",
                **labels,
            )
        yield from [gone(pod(name, namespace=space))] * 4
        for found in addresses[1:]:
            yield attached(name, *found, namespace=space, labels=labels)
        yield from [detached(name, space)] * 3
    yield from [bare("x", "10.0.0.1"), bare("x", "10.0.0.3")] * 4


def _others() -> Iterator[Event]:
    for space, team in product(("n1", "n2"), ({}, {"team": "a"}, {"team": "b", "app": "a"})):
        yield from (ns(space, **team), gone(ns(space)), thing("ServiceAccount", "r", space, {"role": "x"}))
        yield gone(thing("ServiceAccount", "r", space))
    for nets, labels in product(((), ("10.0.0.1",), ("10.0.0.1", "10.0.0.0/24"), ("fd00::/64",)), _labels()):
        yield from (gns("g", *nets, **labels), thing("NetworkSet", "g", "n1", labels, spec={"nets": nets}))
        yield from (gone(gns("g")), gone(thing("NetworkSet", "g", "n1")))
    for found, service in product(((), ("10.0.0.1",), ("10.0.0.1", "10.0.0.2")), ("s", "other")):
        yield endpoints(service, *found, namespace="n1", name="one")
        yield endpoints(service, *found, namespace="n1", name="two")
        yield gone(endpoints(service, namespace="n1", name="one"))
    for order, end in product((1, 2_000_000), ("Pass", "Deny")):
        yield from (tier("t", order=order, defaultAction=end), gone(tier("t")))
    for name, labels in product(("kns.n1", "ksa.n1.r", "projectcalico-default-allow"), _labels()):
        rule = {"action": "Allow", "source": {"selector": "has(env)"}}
        yield thing("Profile", name, spec={"labelsToApply": labels, "ingress": [rule] if labels else []})
        yield gone(thing("Profile", name))
    yield from (felix(ipv6Support=False), felix())


KINDS = tuple(tuple(make()) for make in (_policies, _kubernetes, _things, _things, _others))
"""All that can happen in these small worlds, by kind: drawn from ready-made lists, for that is quick."""
events = st.one_of(*(st.sampled_from(kind) for kind in KINDS))
_batches = st.lists(st.lists(events, max_size=8), max_size=6)
_AT_WORK: list[Event] = [
    attached("a", "10.0.0.1", namespace="n1", labels={"app": "a"}), pod("b", "10.0.0.2", namespace="n1", app="b"),
    gnp("q", ingress=[{"action": "Allow", "source": {"selector": "has(app)"}}]), ns("n1", team="a"),
]  # fmt: skip
stories = st.one_of(_batches, _batches.map(lambda batches: [_AT_WORK, *batches]))


@examples(400)
@given(stories)
def test_steps_lead_where_the_whole_calculation_says(story: list[list[Event]]) -> None:
    graph, state, merged = told(story)
    expected = compute(advance(World(node=ME), [event for batch in story for event in batch]))
    assert state == expected
    assert graph.state() == expected
    assert apply(NodeState(settings=FelixSettings()), merged) == expected


@examples(100)
@given(stories, st.sampled_from(SMALL))
def test_whatever_a_run_may_have_at_most(story: list[list[Event]], bound: tuple[str, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, *bound)
        test_steps_lead_where_the_whole_calculation_says.hypothesis.inner_test(story)  # type: ignore[attr-defined]


@examples(100)
@given(stories)
def test_the_cadence_of_flushes_does_not_matter(story: list[list[Event]]) -> None:
    flat = [event for batch in story for event in batch]
    _, one_by_one, _ = told([[event] for event in flat])
    _, at_once, _ = told([flat])
    assert one_by_one == at_once


@examples(100)
@given(stories, st.randoms(use_true_random=False))
def test_the_order_of_news_does_not_matter_nor_that_they_are_said_twice(
    story: list[list[Event]], random: Random
) -> None:
    world = advance(World(node=ME), [event for batch in story for event in batch])
    news: list[Event] = [
        *(ResourcePut(key, value, 3) for key, value in world.resources.items()),
        *map(Attached, world.attachments.values()),
    ]
    random.shuffle(news)
    half = len(news) // 2
    graph, state, _ = told([news[:half], news[half:]])
    assert state == compute(world)
    graph.update(news)
    assert not flush(graph)


def sizes(part: object, path: str = "graph") -> dict[str, int]:
    """How much each container of a graph, and of its parts, holds."""
    found: dict[str, int] = {}
    for name, value in vars(part).items():
        if isinstance(value, dict | set | list):
            found[f"{path}.{name}"] = len(value)
        elif type(value).__module__.startswith("calipy.felix.calc") and hasattr(value, "__dict__"):
            found.update(sizes(value, f"{path}.{name}"))
    return found


@examples(100)
@given(stories)
def test_when_all_is_gone_nothing_is_left(story: list[list[Event]]) -> None:
    graph, state, _ = told(story)
    world = advance(World(node=ME), [event for batch in story for event in batch])
    graph.update([ResourceGone(key, 3) for key in world.resources])
    graph.update([Detached(id_) for id_ in world.attachments])
    assert apply(state, flush(graph)) == compute(World(node=ME))
    assert sizes(graph) == sizes(told([])[0])
