"""Runs of policies that are one look-up: what `whole` and `graph` have in common.

A policy that decides nothing about a peer whose address is in none of certain sets need not be asked about it. Where
such policies follow each other in a tier, a map from address to those that ask for it stands for them all. Too many
addresses, or too many ways in which they are asked for, are not worth it: then each policy is asked, as any other is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, structs

from calipy.felix.calc.change import SetKey
from calipy.felix.calc.policies import DIRECTIONS
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Direction, Merged, Policy, PolicyId, Run, TierBinding
from calipy.model.sets import SelectorSet, SetId, SetKind, asker_member, run_id

_MOST_POLICIES = 32
"""A mask has so many bits."""
MOST_MASKS = 64
"""Each that has several bits is a chain in the kernel."""
_MOST_OF_A_RUN, _MOST_OF_ALL = 1 << 14, 1 << 16
"""So many addresses of a family: they are written anew when a policy joins the run."""

Asked = frozenset[SetId]
Members = Callable[[SetKey], Collection[str]]


class Outcome(Struct, frozen=True, gc=False, kw_only=True):
    """What the runs of a node come to."""

    endpoints: Mapping[EndpointId, WorkloadEndpoint]
    """With the runs that they have merged."""
    runs: Mapping[SetId, Merged]
    sets: Mapping[SetKey, tuple[SetKind, frozenset[str]]]
    """Their maps."""


def compute(
    endpoints: Mapping[EndpointId, WorkloadEndpoint],
    policies: Mapping[PolicyId, Policy],
    sets: Mapping[SetKey, tuple[SetKind, frozenset[str]]],
    families: Sequence[int],
) -> Outcome:
    """All at once: slow, obvious, the definition. `endpoints` have no runs yet."""

    def merges(id_: PolicyId, direction: Direction) -> bool:
        wanted = asked(policies[id_], direction)
        return wanted is not None and all(
            mergeable(sets[key][0] if key in sets else None) for key in keys(wanted, families)
        )

    def members(key: SetKey) -> Collection[str]:
        return sets[key][1] if key in sets else ()

    found = {run for endpoint in endpoints.values() for run in candidates(endpoint.tiers, merges)}
    merged: dict[SetId, Merged] = {}
    maps: dict[SetKey, tuple[SetKind, frozenset[str]]] = {}
    for run in found:
        wants = [asked(policies[id_], run.direction) or frozenset() for id_ in run.policies]
        if size(wants, families, members) > share(len(found)):
            continue
        askers = {family: asking(wants, family, members) for family in families}
        masks = {mask for each in askers.values() for mask in each.values()}
        if few(masks):
            merged[run.id] = Merged(run=run, masks=tuple(sorted(masks)))
            for family, each in askers.items():
                maps[SetKey(run.id, family)] = "askers", frozenset(asker_member(*item) for item in each.items())
    bound = {
        id_: structs.replace(endpoint, tiers=tiers_with(endpoint.tiers, [each.run for each in merged.values()], merges))
        for id_, endpoint in endpoints.items()
    }
    return Outcome(endpoints=bound, runs=merged, sets=maps)


def asked(policy: Policy, direction: Direction) -> Asked | None:
    """Sets such that no rule of the policy holds for a peer whose address is in none of them; None where a rule asks
    for no such set. No other condition of a rule matters: whoever is in one of the sets is judged by the rules."""
    found = set()
    for rule in policy.rules(direction) or ():
        peer = rule.source if direction == "ingress" else rule.destination
        first = next((each.id for each in peer.sets if isinstance(each, SelectorSet) or not each.with_ports), None)
        if first is None:
            return None
        found.add(first)
    return frozenset(found)


def keys(wanted: Iterable[SetId], families: Iterable[int]) -> list[SetKey]:
    """Those sets in these families."""
    return [SetKey(id_, family) for id_ in wanted for family in families]


def mergeable(kind: SetKind | None) -> bool:
    """True if a set's members can be keys of a map. A set that isn't there has none."""
    return kind in ("addresses", None)


def candidates(tiers: Iterable[TierBinding], merges: Callable[[PolicyId, Direction], bool]) -> Iterator[Run]:
    """The runs of an endpoint: as many policies as follow each other, two at least."""
    for binding in tiers:
        for direction in DIRECTIONS:
            for part in _parts(binding, direction, merges):
                if len(part) > 1:
                    id_ = run_id(binding.tier, direction, list(map(str, part)))
                    yield Run(id=id_, tier=binding.tier, direction=direction, policies=tuple(part))


def _parts(
    binding: TierBinding, direction: Direction, merges: Callable[[PolicyId, Direction], bool]
) -> Iterator[list[PolicyId]]:
    """A policy that may pass packets on ends a run: what follows it is asked only of those that it hasn't passed."""
    part: list[PolicyId] = []
    for id_ in binding.policies(direction):
        merging = id_ not in binding.passing and merges(id_, direction)
        if not merging or len(part) == _MOST_POLICIES:
            yield part
            part = []
        if merging:
            part.append(id_)
    yield part


def tiers_with(
    tiers: tuple[TierBinding, ...], runs: Collection[Run], merges: Callable[[PolicyId, Direction], bool]
) -> tuple[TierBinding, ...]:
    """An endpoint's tiers, with those of its runs that are in force."""
    mine = [run for run in candidates(tiers, merges) if run in runs]
    return bound(tiers, mine)


def bound(tiers: tuple[TierBinding, ...], runs: Sequence[Run]) -> tuple[TierBinding, ...]:
    """Tiers with these of their runs."""
    if not runs:
        return tiers
    return tuple(
        structs.replace(binding, runs=tuple(run for run in runs if run.tier == binding.tier)) for binding in tiers
    )


def size(wants: Iterable[Asked], families: Iterable[int], members: Members) -> int:
    """How many addresses of a family the policies of a run ask for, each by itself."""
    wanted = [id_ for each in wants for id_ in each]
    return max((sum(len(members(SetKey(id_, family))) for id_ in wanted) for family in families), default=0)


def share(runs: int) -> int:
    """So many addresses of a family each of so many runs may ask for."""
    return min(_MOST_OF_A_RUN, _MOST_OF_ALL // max(runs, 1))


def few(masks: Collection[int]) -> bool:
    """True if there are not too many for the kernel's chains."""
    return len(masks) <= MOST_MASKS


def asking(wants: Sequence[Asked], family: int, members: Members) -> dict[str, int]:
    """Each address that a policy of a run asks for, and which of them do: the first is the lowest bit."""
    found: dict[str, int] = {}
    for _ in asking_steps(wants, family, members, found):
        pass
    return found


def asking_steps(wants: Sequence[Asked], family: int, members: Members, found: dict[str, int]) -> Iterator[int]:
    """The same, set by set; says after each how many members it had."""
    for bit, wanted in enumerate(wants):
        for id_ in wanted:
            mine = members(SetKey(id_, family))
            for member in mine:
                found[member] = found.get(member, 0) | 1 << bit
            yield len(mine)
