"""A workload endpoint's chains and dispatch entries: which policies and profiles are asked about its packets, in which
order, and what becomes of those that none of them decides.

Allowing ends the base chain, denying ends the packet, and whoever returns hasn't decided. So only passing needs a mark:
a tier with a policy that may pass has a chain of its own, and a return from it goes on with the next tier.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct

from calipy.felix.calc.sets import families
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names, origins, runs
from calipy.felix.rules.policies import DIRECTIONS, deny, passed
from calipy.felix.rules.values import Chain, ClearMark, Drop, Element, Goto, Jump, Marked, Reject, Return, Rule
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.origins import Origin
from calipy.model.policies import Direction, TierBinding
from calipy.resources.cidrs import family_of

_MOST_ALIKE = 1024
"""So many ways of being governed are remembered with their chains."""


class Terms(Struct, frozen=True, gc=False, kw_only=True):
    """What of the settings bears on an endpoint's chains."""

    deny: Drop | Reject
    passed: int
    """The mark of a packet that goes on to the next tier."""
    families: tuple[int, ...]


def terms(settings: FelixSettings) -> Terms:
    """Those of the settings in force."""
    return Terms(deny=deny(settings), passed=passed(settings), families=families(settings))


def compile(endpoint: WorkloadEndpoint, settings: FelixSettings) -> Objects:
    """Chains for packets from and to the endpoint, and the entries that lead there. What is the same for every endpoint
    stands once, before the dispatch (`statics`)."""
    found, of = _dispatched(endpoint.interface), terms(settings)
    for direction in DIRECTIONS:
        _judge(endpoint, direction, of, found)
    for address in endpoint.addresses:  # no source address but its own
        key = f"{endpoint.interface} {address}"
        found[names.element(names.SOURCES[family_of(address)], key)] = _SOURCE
    return found


def closed(endpoint: WorkloadEndpoint) -> Objects:
    """The closed form: nothing passes, for the kernel refused what should."""
    chain = Chain((Rule((), Drop(), Origin("refused", endpoint.id.workload)),))
    chains = {names.chain(names.workload_chain(endpoint.interface, direction)): chain for direction in DIRECTIONS}
    return {**_dispatched(endpoint.interface), **chains}


def _dispatched(interface: str) -> dict[ObjectName, Struct]:
    return {
        names.element(_FROM_MAP, interface): Element(Goto(names.from_chain(interface))),
        names.element(_TO_MAP, interface): Element(Goto(names.to_chain(interface))),
    }


_FROM_MAP, _TO_MAP = names.map_of(names.FROM_WORKLOAD), names.map_of(names.TO_WORKLOAD)
_SOURCE = Element()


def _judge(endpoint: WorkloadEndpoint, direction: Direction, of: Terms, found: dict[ObjectName, Struct]) -> None:
    """Adds the chain of one direction, and those of its tiers that need one."""
    chain = names.chain(names.workload_chain(endpoint.interface, direction))
    for binding in endpoint.tiers:
        if _may_pass(binding, direction):
            break
    else:
        found[chain] = _alike(endpoint.tiers, endpoint.profiles, direction, of)
        return
    rules: list[Rule] = []
    for name, value in _parts(endpoint, direction, of, rules):
        found[names.chain(name)] = value
    found[chain] = Chain(tuple(rules))


@lru_cache(_MOST_ALIKE)
def _alike(tiers: tuple[TierBinding, ...], profiles: tuple[str, ...], direction: Direction, of: Terms) -> Chain:
    """The chain of all endpoints that are governed alike, where nothing in it is named after one of them."""
    rules: list[Rule] = []
    nobody = WorkloadEndpoint(
        id=EndpointId("", "", ""), container_id="", interface="", addresses=(), tiers=tiers, profiles=profiles
    )
    assert not list(_parts(nobody, direction, of, rules))
    return Chain(tuple(rules))


def _parts(
    endpoint: WorkloadEndpoint, direction: Direction, of: Terms, rules: list[Rule]
) -> Iterator[tuple[str, Chain]]:
    """Fills `rules`, those of the endpoint's chain; gives the chains of the tiers that need one."""
    for number, binding in enumerate(endpoint.tiers):
        if not binding.policies(direction):
            continue
        if _may_pass(binding, direction):
            chain = names.tier_chain(endpoint.interface, direction, number)
            yield chain, Chain(tuple(_passing_tier(binding, direction, of)))
            rules.append(Rule((), Jump(chain), Origin("visit", f"{binding.tier} {direction}"), counted=False))
            continue
        rules.extend(_visits(binding, direction, of))
        if binding.default_action == "deny":
            rules.append(Rule((), of.deny, origins.of_tier(binding.tier, direction)))
            break  # nothing gets past it
    else:
        for name in endpoint.profiles:
            jump = Jump(names.profile_chain(name, direction))
            rules.append(Rule((), jump, origins.of_profile_visit(name, direction), counted=False))
        rules.append(Rule((), of.deny, origins.of_no_profile(direction)))


def _may_pass(binding: TierBinding, direction: Direction) -> bool:
    return any(policy in binding.passing for policy in binding.policies(direction))


def _visits(binding: TierBinding, direction: Direction, of: Terms) -> Iterator[Rule]:
    """Each policy in turn, those of a run together, and what goes on to the next tier where one has passed a packet."""
    mine = [run for run in binding.runs if run.direction == direction]
    begins = {run.policies[0]: run for run in mine}
    merged = {policy for run in mine for policy in run.policies}
    for policy in binding.policies(direction):
        if policy in begins:
            yield from (runs.ask(begins[policy], family) for family in of.families)
        if policy in merged:
            continue
        yield runs.visit(binding.tier, direction, policy)
        if policy in binding.passing:
            origin = Origin("visit", f"{binding.tier} {direction}")
            yield Rule((Marked(of.passed),), Return(), origin, counted=False)


def _passing_tier(binding: TierBinding, direction: Direction, of: Terms) -> Iterator[Rule]:
    """A return, where a policy has passed or where nothing denies at the end, goes on with the next tier."""
    origin = Origin("visit", f"{binding.tier} {direction}")
    yield Rule((), ClearMark(of.passed), origin, counted=False)
    yield from _visits(binding, direction, of)
    if binding.default_action == "deny":
        yield Rule((), of.deny, origins.of_tier(binding.tier, direction))
