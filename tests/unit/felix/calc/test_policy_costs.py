"""What policy costs, counted: among ten thousand pods and a thousand policies an event does no more than it must."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from msgspec import structs

from calipy.felix.calc.change import Change, SetDelta, SetKey
from calipy.felix.calc.graph import Graph
from calipy.felix.calc.stats import Stats
from calipy.felix.calc.world import Event
from calipy.resources.selectors import parse
from tests.unit.felix.calc.stories import flush
from tests.unit.felix.calc.worlds import ME, attached, detached, endpoints, gnp, gns, gone, here, np, ns, pod

SPACES, PODS, POLICIES = 50, 10_000, 1_000


def _pod(number: int, **labels: str) -> Event:
    """Of namespace `n<number mod 50>`; 20 applications, 2 environments."""
    own = {"app": f"a{number // SPACES % 20}", "env": f"e{number % 2}", **labels}
    address = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return pod(f"p{number}", address, namespace=f"n{number % SPACES}", **own)


def _policy(number: int) -> Event:
    space = number % SPACES
    sources = ({"selector": f"app == 'a{number % 20}'"}, {"selector": f"env == 'e{number % 2}'"})
    rules = [{"action": "Allow", "source": source} for source in sources]
    return np(f"p{number}", f"n{space}", selector=f"app == 'a{number // SPACES % 20}'", ingress=rules)


def _cluster() -> Iterator[Event]:
    yield from (ns(f"n{space}", team=f"t{space % 5}") for space in range(SPACES))
    for space in range(SPACES):
        for app in range(2):
            labels = {"app": f"a{app}", "env": "e0"}
            yield attached(f"l{app}", f"10.63.{app}.{space}", namespace=f"n{space}", labels=labels)
    yield from map(_pod, range(PODS))
    yield from map(_policy, range(POLICIES))


class Cost(NamedTuple):
    """What an event led to, and what it took."""

    change: Change
    stats: Stats


class Cluster:
    """A cluster at work, and its graph. Whoever does something to it undoes it."""

    def __init__(self) -> None:
        self.graph = Graph(ME, {})
        self.do(*_cluster())

    def do(self, *events: Event) -> Cost:
        """What it costs if this happens."""
        before = structs.asdict(self.graph.stats)
        self.graph.update(events)
        change = flush(self.graph)
        after = structs.asdict(self.graph.stats)
        return Cost(change, Stats(**{name: after[name] - before[name] for name in after}))

    def pauses(self, *events: Event) -> Iterator[int]:
        """The same; after each step, how many selectors were judged and members moved in it."""
        self.graph.update(events)
        stats = self.graph.stats
        before = stats.evaluations + stats.memberships
        for _ in self.graph.flush():
            now = stats.evaluations + stats.memberships
            yield now - before
            before = now


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


def members(change: Change, selector: str) -> SetDelta:
    """What moved in the set of a selector."""
    (found,) = (delta for key, delta in change.members.items() if key.id == parse(selector).id and key.family == 4)
    return found


def of(space: str, label: str, value: str) -> str:
    """The selector of a rule of `_policy`."""
    return f"(projectcalico.org/namespace == '{space}' && {label} == '{value}')"


def test_the_cluster_is_as_large_as_it_should_be(cluster: Cluster) -> None:
    state = cluster.graph.state()
    assert len(state.endpoints) == 2 * SPACES
    assert len(state.policies) == 2 * SPACES, "of a thousand policies a hundred govern something here"
    assert sum(map(len, state.members.values())) > PODS


def test_a_pod_that_says_the_same_again_costs_nothing(cluster: Cluster) -> None:
    cost = cluster.do(_pod(7))
    assert not cost.change
    assert cost.stats == Stats()


def test_a_pod_relabelled_moves_its_own_memberships_alone(cluster: Cluster) -> None:
    """Pod 0 lies in namespace n0, whose rules name `a0` and the like, and `e0`."""
    cost = cluster.do(_pod(0, env="e9"))
    assert members(cost.change, of("n0", "env", "e0")) == SetDelta(removed=frozenset({"10.64.0.0"}))
    assert len(cost.change.members) == cost.stats.memberships == 1
    change = cost.change
    assert not any((change.endpoints, change.policies, change.profiles, change.sets, change.routes))
    assert members(cluster.do(_pod(0)).change, of("n0", "env", "e0")).added == {"10.64.0.0"}


def test_a_pod_relabelled_asks_only_selectors_that_name_a_label_that_changed(cluster: Cluster) -> None:
    """There are labels now that nobody has had; one selector can be found by no label, so that each pod meets it."""
    anybody = gnp("any", selector="app == 'a0'", ingress=[{"action": "Allow", "source": {"selector": "env != 'x'"}}])
    cluster.do(anybody)
    naming = [text for text in _texts(cluster) if "env" in text]
    assert 0 < cluster.do(_pod(0, env="e8")).stats.evaluations <= len(naming) < len(_texts(cluster))
    assert cluster.do(_pod(0, env="e8", nobody="asks")).stats.evaluations == 0
    assert cluster.do(_pod(0)).stats.evaluations == 0, "others have had these labels all the time"
    cluster.do(gone(anybody))


def _texts(cluster: Cluster) -> set[str]:
    """All selectors of rules in force."""
    policies = cluster.graph.state().policies.values()
    return {each.selector for policy in policies for rule in policy.ingress or () for each in rule.source.sets}


def test_one_more_policy_asks_endpoints_here_and_those_that_its_rules_may_mean(cluster: Cluster) -> None:
    more = np(
        "more", "n3", selector="env == 'e0'", ingress=[{"action": "Allow", "source": {"selector": "app != 'a1'"}}]
    )
    cost = cluster.do(more)
    assert set(cost.change.endpoints) == {here("l0", "n3"), here("l1", "n3")}
    assert len(cost.change.policies) == cost.stats.conversions == 1
    assert cost.stats.bindings == 2
    # Endpoints here differ in namespace and app; of the namespace's pods there are 20 kinds and two.
    assert cost.stats.evaluations <= 2 * SPACES + 22
    kinds = list(cost.change.sets.values())
    assert cost.stats.fillings == kinds.count("addresses") == 2
    assert cost.stats.mergings == len(cost.change.runs) == kinds.count("askers") // 2 == 2, "one for each endpoint"
    assert cost.stats.memberships == PODS // SPACES * 19 // 20 + 1
    gone_again = cluster.do(gone(more))
    assert gone_again.stats.evaluations == gone_again.stats.memberships == gone_again.stats.conversions == 0
    assert gone_again.stats.mergings == gone_again.stats.askings == 0
    assert len(gone_again.change.sets) == 2 + 4


def test_a_pod_relabelled_moves_its_own_element_of_a_run_alone(cluster: Cluster) -> None:
    """The endpoint `l0` of n0 is governed by `p0`, which asks for `e0` among others, and these two."""
    pair = [
        np(name, "n0", selector="app == 'a0'", ingress=[{"action": "Allow", "source": {"selector": selector}}])
        for name, selector in (("x", "mark == 'x'"), ("y", "has(mark)"))
    ]
    marked = range(SPACES, 100 * SPACES, SPACES)
    cost = cluster.do(*pair, *(_pod(number, mark="y") for number in marked))
    (id_,) = cost.change.runs
    assert cost.stats.mergings == 1
    cost = cluster.do(_pod(50, mark="x"))
    assert cost.change.members[SetKey(id_, 4)] == SetDelta(frozenset({"10.64.0.50 7"}), frozenset({"10.64.0.50 5"}))
    assert len(cost.change.members) == 2, "and the set of those that are marked x"
    assert cost.stats.memberships == cost.stats.askings == 1
    assert cost.stats.mergings == 0
    assert [merged.masks for merged in cost.change.runs.values() if merged] == [(1, 5, 7)], "one mask more"
    moved = cost.change
    assert not any((moved.endpoints, moved.policies, moved.profiles, moved.sets, moved.routes))
    cost = cluster.do(_pod(100, mark="x"))
    assert not cost.change.runs, "the mask is there"
    assert len(cost.change.members) == 2
    assert not cluster.do(_pod(100, mark="x", nobody="asks")).change
    cluster.do(*(gone(each) for each in pair), *(_pod(number) for number in marked))


def test_a_policy_of_nobody_here_is_not_even_made(cluster: Cluster) -> None:
    far = gnp("far", selector="app == 'a19'", ingress=[{"action": "Allow", "source": {"selector": "all()"}}])
    cost = cluster.do(far)
    assert not cost.change
    assert cost.stats == Stats()
    assert not cluster.do(gone(far)).change


def test_rules_that_change_move_their_policy_and_no_endpoint(cluster: Cluster) -> None:
    cost = cluster.do(np("p0", "n0", selector="app == 'a0'", ingress=[{"action": "Allow"}]))
    assert len(cost.change.policies) == 1
    assert not cost.change.endpoints
    assert cost.stats.bindings == cost.stats.evaluations == 0
    cluster.do(_policy(0))


def test_a_namespace_relabelled_touches_its_own_pods(cluster: Cluster) -> None:
    teams = gnp("teams", selector="app == 'a0'", ingress=[
        {"action": "Deny", "source": {"namespaceSelector": f"team == 't{team}'"}} for team in range(5)
    ])  # fmt: skip
    cluster.do(teams)
    cost = cluster.do(ns("n0", team="t1"))
    pods = PODS // SPACES + 2
    assert members(cost.change, "pcns.team == 't0'") == SetDelta(removed=_addresses("n0"))
    assert members(cost.change, "pcns.team == 't1'") == SetDelta(added=_addresses("n0"))
    assert len(cost.change.members) == 2
    assert cost.stats.memberships == 2 * pods
    assert cost.stats.evaluations <= 2 * 22, "two selectors, by as many kinds of pods as the namespace has"
    assert cluster.do(ns("n0", team="t1", nobody="asks")).stats == Stats()
    cluster.do(ns("n0", team="t0"), gone(teams))


def _addresses(space: str) -> frozenset[str]:
    number = int(space[1:])
    pods = (f"10.64.{each >> 8}.{each & 255}" for each in range(number, PODS, SPACES))
    return frozenset((*pods, f"10.63.0.{number}", f"10.63.1.{number}"))


def test_an_endpoint_that_attaches_is_governed_and_in_its_sets_at_once(cluster: Cluster) -> None:
    new = attached("new", "10.63.9.9", namespace="n0", labels={"app": "a0", "env": "e0"})
    cost = cluster.do(new)
    assert [bound.ingress for bound in cost.change.endpoints[here("new", "n0")].tiers]
    assert members(cost.change, of("n0", "env", "e0")).added == {"10.63.9.9"}
    assert cost.stats == Stats(bindings=1, memberships=2), "its labels are those of another"
    cost = cluster.do(detached("new", "n0"))
    assert cost.change.endpoints == {here("new", "n0"): None}
    assert members(cost.change, of("n0", "env", "e0")).removed == {"10.63.9.9"}
    assert cost.stats == Stats(memberships=2)


def test_endpoints_of_a_service_that_no_rule_names_cost_nothing(cluster: Cluster) -> None:
    cost = cluster.do(endpoints("db", "10.0.0.1"))
    assert not cost.change
    assert cost.stats == Stats()
    cluster.do(gone(endpoints("db")))


def test_a_network_set_that_gains_a_network_moves_it_alone(cluster: Cluster) -> None:
    nets = [f"198.51.{number >> 8}.{number & 255}" for number in range(2_000)]
    rule = {"action": "Deny", "source": {"selector": "bad == 'yes'"}}
    policy = gnp("bad", selector="app == 'a0'", ingress=[rule])
    cluster.do(policy, gns("bad", *nets, bad="yes"))
    cost = cluster.do(gns("bad", *nets, "203.0.113.0/24", bad="yes"))
    assert members(cost.change, "bad == 'yes'") == SetDelta(added=frozenset({"203.0.113.0/24"}))
    assert list(cost.change.sets.values()) == ["prefixes"]
    assert cost.stats == Stats(memberships=1)
    cost = cluster.do(gns("bad", *nets, bad="yes"))
    assert list(cost.change.sets.values()) == ["addresses"]
    cluster.do(gone(policy), gone(gns("bad")))


# what happens, and what undoes it
LARGE: dict[str, tuple[list[Event], list[Event]]] = {
    "a set of all comes and goes": (
        [gnp("all", selector="app == 'a0'", ingress=[{"action": "Allow", "source": {"selector": "env != 'x'"}}])],
        [gone(gnp("all"))],
    ),
    "many policies at once": (
        [np(f"q{number}", f"n{number % SPACES}", selector="has(env)", ingress=[
            {"action": "Allow", "source": {"selector": f"app in {{'a{number}', 'a1'}}"}}
        ]) for number in range(500)],
        [gone(np(f"q{number}", f"n{number % SPACES}")) for number in range(500)],
    ),
    "a large network set": (
        [
            gnp("bad", selector="app == 'a0'", ingress=[{"action": "Deny", "source": {"selector": "bad == 'yes'"}}]),
            gns("bad", *(f"198.51.{number >> 8}.{number & 255}" for number in range(20_000)), bad="yes"),
        ],
        [gone(gnp("bad")), gone(gns("bad"))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_no_step_is_long(cluster: Cluster, name: str) -> None:
    done, undone = LARGE[name]
    steps = [*cluster.pauses(*done), *cluster.pauses(*undone)]
    assert sum(steps) > 5_000
    assert max(steps) <= 1_100, "two parts of a network set; a millisecond"
