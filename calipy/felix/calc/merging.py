"""Runs of policies by steps: the same result as `runs.compute`, touching only what a change can move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import TypeVar

from msgspec import structs

from calipy.felix.calc import runs
from calipy.felix.calc.change import Change, SetDelta, SetKey
from calipy.felix.calc.membership import Membership
from calipy.felix.calc.pace import Pace
from calipy.felix.calc.policies import DIRECTIONS
from calipy.felix.calc.runs import Asked
from calipy.felix.calc.stats import Stats
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Direction, Merged, PolicyId, Run, TierBinding
from calipy.model.sets import SetId, SetKind, asker_member

K = TypeVar("K")
V = TypeVar("V")
_FAMILIES = (4, 6)
_ADDRESSES_A_UNIT = 20


class _Live:
    """A run that endpoints here have, whether in force or not."""

    __slots__ = ("askers", "before", "families", "filled", "masks", "run", "said", "users", "wants")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.users: set[_Bound] = set()
        self.wants: tuple[Asked, ...] = ()
        """What each policy asks for."""
        self.filled = False
        """True if it is known who asks for which address; of a run of too many addresses it isn't."""
        self.askers: dict[int, dict[str, int]] = {family: {} for family in _FAMILIES}
        """By family: address -> mask."""
        self.masks: Counter[int] = Counter()
        self.before: dict[int, dict[str, int]] = {family: {} for family in _FAMILIES}
        """Of addresses that are others than was last said: what was said; 0 = nothing."""
        self.said: Merged | None = None
        """As was last said; None: it isn't in force."""
        self.families: tuple[int, ...] = ()
        """Those of whose maps was last said that they are there."""

    def put(self, family: int, address: str, mask: int) -> None:
        """An address is asked for by others now; 0 = by nobody."""
        askers = self.askers[family]
        old = askers.get(address, 0)
        if old == mask:
            return
        if old:
            self.masks[old] -= 1
            if not self.masks[old]:
                del self.masks[old]
        if mask:
            self.masks[mask] += 1
            askers[address] = mask
        else:
            del askers[address]
        before = self.before[family]
        if before.setdefault(address, old) == mask:
            del before[address]

    def empty(self) -> None:
        """It isn't known any more who asks for which address."""
        self.filled = False
        self.masks.clear()
        for family in _FAMILIES:
            self.askers[family], self.before[family] = {}, {}

    def delta(self, family: int, *, here: bool, there: bool) -> SetDelta:
        """What came and went in the map of a family that was said before, or not, and is there now, or not."""
        askers, before = self.askers[family], self.before[family]
        if here and there:
            added = {address: askers[address] for address in before if address in askers}
            removed = {address: mask for address, mask in before.items() if mask}
        else:
            added = askers if there else {}
            told = {address: mask for address, mask in {**askers, **before}.items() if mask}
            removed = told if here else {}
        return SetDelta(_texts(added), _texts(removed))


class _Bound:
    """Endpoints that are governed alike."""

    __slots__ = ("endpoints", "runs", "tiers")

    def __init__(self, tiers: tuple[TierBinding, ...]) -> None:
        self.tiers = tiers
        self.endpoints: set[EndpointId] = set()
        self.runs: tuple[Run, ...] = ()


class Merging:
    """The policies in force and the endpoints here, on their way from bindings to runs."""

    def __init__(self, membership: Membership, stats: Stats) -> None:
        self._membership = membership
        self._stats = stats
        self._families: tuple[int, ...] = ()
        self._asked: dict[tuple[PolicyId, Direction], Asked] = {}
        """Of those that may be in a run, as far as their rules go."""
        self._askers: dict[SetId, set[tuple[PolicyId, Direction]]] = {}
        self._bounds: dict[tuple[TierBinding, ...], _Bound] = {}
        self._governed: dict[PolicyId, set[_Bound]] = {}
        self._of: dict[EndpointId, tuple[WorkloadEndpoint, _Bound]] = {}
        """Without runs."""
        self._runs: dict[SetId, _Live] = {}
        self._using: dict[SetId, set[_Live]] = {}
        self._share = 0
        self.endpoints: dict[EndpointId, WorkloadEndpoint] = {}
        """With runs, as of the last flush."""

    @property
    def merged(self) -> Mapping[SetId, Merged]:
        """The runs in force."""
        return {live.run.id: live.said for live in self._runs.values() if live.said is not None}

    def maps(self) -> dict[SetKey, frozenset[str]]:
        """Their maps."""
        return {
            SetKey(live.run.id, family): _texts(live.askers[family])
            for live in self._runs.values()
            for family in live.families
        }

    # --- a flush ---

    def flush(self, families: tuple[int, ...], moved: Change, pace: Pace) -> Generator[None, None, Change]:
        """The change with runs in it, given one without."""
        touched: set[_Live] = set()
        shaken = self._judge(moved)
        if families != self._families:
            self._families = families
            touched.update(self._runs.values())
            shaken.update(self._governed)
        restless = set(moved.endpoints)
        for bound in {bound for id_ in shaken for bound in self._governed.get(id_, ())}:
            self._choose(bound, touched)
            restless |= bound.endpoints
            if pace.due(1 + len(bound.runs)):
                yield
        for id_, endpoint in moved.endpoints.items():
            self._place(id_, endpoint, touched)
            if pace.due():
                yield
        for live in touched:
            live.filled = live.filled and live.wants == self._wants(live)
        for key, delta in moved.members.items():
            touched |= self._using.get(key.id, set())
            yield from self._adjust(key, delta, pace)
        sets, members, merged = yield from self._settle(touched, restless, pace)
        return structs.replace(
            moved,
            endpoints=self._tell(restless),
            runs=merged,
            sets={**moved.sets, **sets},
            members={**moved.members, **members},
        )

    def _judge(self, moved: Change) -> set[PolicyId]:
        """The policies that may be in other runs now."""
        shaken = set()
        for id_, policy in moved.policies.items():
            for direction in DIRECTIONS:
                asked = runs.asked(policy, direction) if policy is not None else None
                if self._ask((id_, direction), asked):
                    shaken.add(id_)
        for key in moved.sets:
            shaken.update(id_ for id_, _ in self._askers.get(key.id, ()))
        return shaken

    def _ask(self, asker: tuple[PolicyId, Direction], asked: Asked | None) -> bool:
        """Takes in what a policy asks for; True if that is something else than before."""
        before = self._asked.pop(asker, None)
        for id_ in before or ():
            _take_out(self._askers, id_, asker)
        if asked is not None:
            self._asked[asker] = asked
            for id_ in asked:
                self._askers.setdefault(id_, set()).add(asker)
        return before != asked

    def _merges(self, id_: PolicyId, direction: Direction) -> bool:
        asked = self._asked.get((id_, direction))
        return asked is not None and all(
            runs.mergeable(self._membership.kind(key)) for key in runs.keys(asked, self._families)
        )

    def _choose(self, bound: _Bound, touched: set[_Live]) -> None:
        """The runs of endpoints as they are now; none of nobody's."""
        found = tuple(runs.candidates(bound.tiers, self._merges)) if bound.endpoints else ()
        for run in found:
            live = self._runs.get(run.id)
            if live is None:
                live = self._runs[run.id] = _Live(run)
            live.users.add(bound)
            touched.add(live)
        for run in set(bound.runs) - set(found):
            live = self._runs[run.id]
            live.users.discard(bound)
            touched.add(live)
        bound.runs = found

    def _place(self, id_: EndpointId, endpoint: WorkloadEndpoint | None, touched: set[_Live]) -> None:
        _, before = self._of.pop(id_, (None, None))
        after = self._bound(endpoint.tiers) if endpoint is not None else None
        if endpoint is not None and after is not None:
            self._of[id_] = endpoint, after
            after.endpoints.add(id_)
            if len(after.endpoints) == 1:
                self._choose(after, touched)
        if before is None or before is after:
            return
        before.endpoints.discard(id_)
        if not before.endpoints:
            self._choose(before, touched)
            del self._bounds[before.tiers]
            for policy in _policies(before.tiers):
                _take_out(self._governed, policy, before)

    def _bound(self, tiers: tuple[TierBinding, ...]) -> _Bound:
        bound = self._bounds.get(tiers)
        if bound is None:
            bound = self._bounds[tiers] = _Bound(tiers)
            for policy in _policies(tiers):
                self._governed.setdefault(policy, set()).add(bound)
        return bound

    def _adjust(self, key: SetKey, delta: SetDelta, pace: Pace) -> Generator[None, None, None]:
        """Addresses have come to a set, or gone from it."""
        for live in self._using.get(key.id, ()):
            if not live.filled:
                continue
            for addresses in (delta.added, delta.removed):
                for count, address in enumerate(addresses, 1):
                    live.put(key.family, address, self._mask(live, key.family, address))
                    if count % _ADDRESSES_A_UNIT == 0 and pace.due():
                        yield
                self._stats.askings += len(addresses)

    def _mask(self, live: _Live, family: int, address: str) -> int:
        mask = 0
        for bit, wanted in enumerate(live.wants):
            if any(address in self._membership.members(SetKey(id_, family)) for id_ in wanted):
                mask |= 1 << bit
        return mask

    def _settle(
        self, touched: set[_Live], restless: set[EndpointId], pace: Pace
    ) -> Generator[None, None, tuple[dict[SetKey, SetKind | None], dict[SetKey, SetDelta], dict[SetId, Merged | None]]]:
        """Maps and runs, as far as they are others than was last said; adds to the restless."""
        for live in touched:
            if not live.users:
                del self._runs[live.run.id]
        share = runs.share(len(self._runs))
        if share != self._share:
            self._share = share
            touched.update(self._runs.values())
        sets: dict[SetKey, SetKind | None] = {}
        members: dict[SetKey, SetDelta] = {}
        merged: dict[SetId, Merged | None] = {}
        for live in touched:
            fits = yield from self._size(live, pace)
            said = live.said
            self._say(live, fits and runs.few(live.masks), sets, members)
            if live.said != said:
                merged[live.run.id] = live.said
            if (live.said is None) != (said is None):
                restless.update(*(bound.endpoints for bound in live.users))
            if not fits:
                live.empty()
            if pace.due(1 + sum(map(len, live.askers.values())) // _ADDRESSES_A_UNIT):
                yield
        return sets, members, merged

    def _size(self, live: _Live, pace: Pace) -> Generator[None, None, bool]:
        """True if a run has users, and not too many addresses; then it is known who asks for which."""
        wants = self._wants(live)
        if wants != live.wants:
            for id_ in frozenset[SetId]().union(*live.wants):
                _take_out(self._using, id_, live)
            for id_ in frozenset[SetId]().union(*wants):
                self._using.setdefault(id_, set()).add(live)
            live.wants, live.filled = wants, False
        fits = bool(live.users) and runs.size(wants, self._families, self._membership.members) <= self._share
        if fits and not live.filled:
            yield from self._fill(live, pace)
        return fits

    def _wants(self, live: _Live) -> tuple[Asked, ...]:
        """What each of its policies asks for now; a run that nobody has asks for nothing."""
        nothing: Asked = frozenset()
        direction = live.run.direction
        return tuple(self._asked.get((id_, direction), nothing) for id_ in live.run.policies) if live.users else ()

    def _fill(self, live: _Live, pace: Pace) -> Generator[None, None, None]:
        self._stats.mergings += 1
        for family in _FAMILIES:
            found: dict[str, int] = {}
            for step in runs.asking_steps(live.wants, family, self._membership.members, found):
                if pace.due(1 + step // _ADDRESSES_A_UNIT):
                    yield
            for count, address in enumerate({**live.askers[family], **found}, 1):
                live.put(family, address, found.get(address, 0))
                if count % _ADDRESSES_A_UNIT == 0 and pace.due():
                    yield
        live.filled = True

    def _say(
        self, live: _Live, merged: bool, sets: dict[SetKey, SetKind | None], members: dict[SetKey, SetDelta]
    ) -> None:
        families = self._families if merged else ()
        for family in _FAMILIES:
            here, there = family in live.families, family in families
            delta = live.delta(family, here=here, there=there)
            if delta.added or delta.removed:
                members[SetKey(live.run.id, family)] = delta
            if here != there:
                sets[SetKey(live.run.id, family)] = "askers" if there else None
            live.before[family] = {}
        live.families = families
        live.said = Merged(run=live.run, masks=tuple(sorted(live.masks))) if merged else None

    def _tell(self, restless: Iterable[EndpointId]) -> dict[EndpointId, WorkloadEndpoint | None]:
        """The endpoints that are others than was last said."""
        tiers: dict[_Bound, tuple[TierBinding, ...]] = {}
        moved: dict[EndpointId, WorkloadEndpoint | None] = {}
        for id_ in restless:
            old, new = self.endpoints.pop(id_, None), None
            if id_ in self._of:
                endpoint, bound = self._of[id_]
                if bound not in tiers:
                    mine = [run for run in bound.runs if self._runs[run.id].said is not None]
                    tiers[bound] = runs.bound(bound.tiers, mine)
                new = self.endpoints[id_] = structs.replace(endpoint, tiers=tiers[bound])
            if new != old:
                moved[id_] = new
        return moved


def _policies(tiers: Iterable[TierBinding]) -> set[PolicyId]:
    return {id_ for binding in tiers for id_ in (*binding.ingress, *binding.egress)}


def _take_out(groups: dict[K, set[V]], key: K, value: V) -> None:
    """Out of its group; an empty one goes."""
    groups[key].discard(value)
    if not groups[key]:
        del groups[key]


def _texts(askers: Mapping[str, int]) -> frozenset[str]:
    return frozenset(asker_member(address, mask) for address, mask in askers.items())
