"""From a policy's event in the store to its commit: once for each event that means something here."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from calipy.felix.calc.change import Change, NodeState
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.world import Event, ResourceGone
from calipy.felix.dataplane import Area
from calipy.felix.policy_times import PolicyTimes
from calipy.felix.rules.compile import RulesPlanner, policy_owner
from calipy.model.policies import Policy, PolicyId, PolicyRule
from calipy.resources.metadata import Key
from tests.unit.felix.calc.worlds import gnp, np, thing
from tests.unit.felix.kernels import Kernel

WEB, DB = PolicyId("np", "shop", "web"), PolicyId("gnp", "", "db")
KINDS = {"np": "NetworkPolicy", "gnp": "GlobalNetworkPolicy"}


def policy(id_: PolicyId) -> Policy:
    rule = PolicyRule(action="allow", number=0)
    return Policy(id=id_, tier="default", order=1.0, selector="all()", ingress=(rule,))


def event(event_: Event, revision: int) -> Event:
    assert not isinstance(event_, ResourceGone)
    return type(event_)(event_.key, event_.value, revision)  # type: ignore[union-attr,call-arg]


class Way:
    """The measuring, on a clock that the test turns, over an area whose kernel takes what the test lets it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.measured: list[float] = []
        self.times = PolicyTimes(lambda: self.now_s)
        self.times.observe = self.measured.append
        self.area = Area(Kernel(), RulesPlanner())
        self.area.distrusted = False

    def heard(self, *events: Event) -> None:
        self.times.heard(events, self.now_s)

    def calculated(self, *ids: PolicyId, revision: int, commit: bool = True, kinds: Iterable[str] = KINDS) -> None:
        """A change with these policies, up to a revision of the store, and the end of the turn that has taken it in."""
        policies = {id_: policy(id_) for id_ in ids}
        change = Change(policies=dict(policies), revisions={KINDS[kind]: revision for kind in kinds})
        state = NodeState(settings=FelixSettings(), policies=policies)
        for id_ in ids:
            self.area.ledger.want(policy_owner(id_), self.area.planner.plan(policy_owner(id_), state).objects)
        self.ended(change, commit=commit)

    def ended(self, change: Change | None = None, *, commit: bool = True) -> None:
        if commit:
            self.area.ledger.landed(self.area.ledger.pending())
        self.times.settled(self.area, change)


@pytest.fixture
def way() -> Way:
    return Way()


def test_each_event_counts_from_its_delivery_to_the_commit(way: Way) -> None:
    way.heard(event(np("web"), 3))
    way.now_s = 1.0
    way.heard(event(np("web"), 4), event(gnp("db"), 5))
    way.now_s = 3.0
    way.calculated(WEB, DB, revision=5)
    assert sorted(way.measured) == [2.0, 2.0, 3.0]
    way.ended()
    way.calculated(WEB, revision=6)
    assert len(way.measured) == 3


def test_an_event_that_came_while_the_change_was_calculated_waits_for_the_next(way: Way) -> None:
    way.heard(event(np("web"), 3))
    way.heard(event(np("web"), 4))
    way.calculated(WEB, revision=3)
    assert way.measured == [0.0]
    way.now_s = 1.0
    way.calculated(WEB, revision=4)
    assert way.measured == [0.0, 1.0]


def test_what_moves_nothing_here_and_what_is_no_policy_is_not_counted(way: Way) -> None:
    way.heard(event(np("elsewhere"), 3), event(thing("Tier", "t", spec={}), 3))
    way.calculated(WEB, revision=3)
    way.heard(event(np("web"), 4))
    way.calculated(DB, revision=4)
    way.calculated(WEB, revision=9)
    assert way.measured == []


def test_a_deleted_policy_counts_too(way: Way) -> None:
    way.calculated(WEB, revision=3)
    way.heard(ResourceGone(Key("NetworkPolicy", "web", "shop"), 4))
    way.now_s = 0.5
    way.area.ledger.want(policy_owner(WEB), None)
    way.ended(Change(policies={WEB: None}, revisions={"NetworkPolicy": 4}))
    assert way.measured == [0.5]


def test_what_the_kernel_has_not_taken_yet_counts_when_it_does(way: Way) -> None:
    way.heard(event(np("web"), 3))
    way.calculated(WEB, revision=3, commit=False)
    assert way.measured == []
    way.area.distrusted = True
    way.ended()
    way.area.distrusted = False
    way.area.refused[policy_owner(WEB)] = "no"
    way.ended()
    assert way.measured == []
    way.now_s = 7.0
    way.area.refused.clear()
    way.ended()
    assert way.measured == [7.0]
