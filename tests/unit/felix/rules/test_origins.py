"""What a rule stands for goes into the kernel with it and comes back out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.felix.calc.change import NodeState
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.dialects import nftables as dialect
from calipy.felix.rules import origins
from calipy.felix.rules.origins import Decider
from calipy.felix.rules.values import Accept, Rule
from calipy.model.origins import Origin
from calipy.model.policies import Direction, Policy, PolicyId, Profile

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-"
names = st.text(LETTERS, min_size=1, max_size=253)
short = st.text(LETTERS, min_size=1, max_size=63)
ids = st.one_of(
    st.builds(PolicyId, st.sampled_from(["np", "knp"]), short, names),
    st.builds(PolicyId, st.just("gnp"), st.just(""), names),
)
directions: st.SearchStrategy[Direction] = st.sampled_from(["ingress", "egress"])


def policy(id_: PolicyId, tier: str) -> Policy:
    return Policy(id=id_, tier=tier, order=1, selector="all()")


def in_the_kernel(origin: Origin) -> str:
    """What is read back of an origin."""
    return dialect.origin_of(dialect.user_data(Rule((), Accept(), origin)))


def state(*found: Policy | Profile) -> NodeState:
    return NodeState(
        settings=FelixSettings(),
        policies={each.id: each for each in found if isinstance(each, Policy)},
        profiles={each.name: each for each in found if isinstance(each, Profile)},
    )


@given(ids)
def test_an_identity_is_read_back(id_: PolicyId) -> None:
    assert origins.policy_id(str(id_)) == id_


@given(ids, short, directions, st.integers(0, 1023))
def test_a_counter_names_the_rule_of_a_policy(id_: PolicyId, tier: str, direction: Direction, number: int) -> None:
    found = policy(id_, tier)
    other = policy(PolicyId("gnp", "", "other"), tier)
    told = in_the_kernel(origins.of_rule(found, direction, number))
    assert origins.decider(told, state(other, found)) == Decider(
        kind="policy", direction=direction, tier=tier, policy=id_, number=number
    )
    told = in_the_kernel(origins.of_refused(found, direction))
    expected = Decider(kind="refused", direction=direction, tier=tier, policy=id_)
    assert origins.decider(told, state(other, found)) == expected


@given(names, directions, st.integers(0, 1023))
def test_a_counter_names_the_rule_of_a_profile(name: str, direction: Direction, number: int) -> None:
    found = Profile(name=name)
    told = in_the_kernel(origins.of_rule(found, direction, number))
    expected = Decider(kind="profile", direction=direction, profile=name, number=number)
    assert origins.decider(told, state(found)) == expected


@given(short, directions)
def test_the_ends_where_nothing_has_decided(tier: str, direction: Direction) -> None:
    told = in_the_kernel(origins.of_tier(tier, direction))
    assert origins.decider(told, state()) == Decider(kind="tier", direction=direction, tier=tier)
    told = in_the_kernel(origins.of_no_profile(direction))
    assert origins.decider(told, state()) == Decider(kind="no profile", direction=direction)


@pytest.mark.parametrize(
    "origin",
    [
        origins.of_visit("default", PolicyId("np", "shop", "web"), "ingress"),
        origins.of_profile_visit("kns.shop", "egress"),
        Origin("static", "established"),
        Origin("static", "unknown interface"),
        Origin("setting", "defaultEndpointToHostAction"),
        Origin("refused", "default/web"),
    ],
)
def test_other_rules_have_no_say_of_a_policys(origin: Origin) -> None:
    assert origins.decider(in_the_kernel(origin), state()) is None


def test_names_of_full_length_go_by_their_hash_which_only_those_who_know_them_can_read() -> None:
    longest = policy(PolicyId("np", "n" * 63, "p" * 253), "t" * 63)
    told = in_the_kernel(origins.of_rule(longest, "ingress", 7))
    assert len(told) < 60
    assert told.startswith("policy #")
    assert told.endswith(" ingress 7")
    assert origins.decider(told, state()) is None
    assert origins.decider(told, state(longest)) is not None


def test_an_origin_that_is_long_in_every_part_still_fits() -> None:
    assert len(dialect.user_data(Rule((), Accept(), Origin("kind", "long " * 100)))) <= 256
