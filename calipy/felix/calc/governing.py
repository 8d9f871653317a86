"""Which policies and profiles are in force on a node, and which of them govern each of its endpoints, in what order."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from msgspec import structs

from calipy.conversion import tiers
from calipy.conversion.policies import profile
from calipy.felix.calc import policies
from calipy.felix.calc.change import SetKey
from calipy.felix.calc.inheritance import Inheritance
from calipy.felix.calc.matching import Matcher, Pattern, Subject
from calipy.felix.calc.pace import Pace
from calipy.felix.calc.policies import Place, PolicyResource, SetSpec
from calipy.felix.calc.set_uses import SetUses
from calipy.felix.calc.stats import Stats
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Policy, PolicyId, PolicyRule, Profile, Tier, TierBinding
from calipy.model.selectables import Selectable
from calipy.resources.metadata import Key
from calipy.resources.tiers import Tier as TierResource

_RULE_UNITS, _NETS_A_UNIT, _PLACES_A_UNIT = 3, 3, 10


class _Here:
    """An endpoint of this node."""

    __slots__ = ("endpoint", "profiles", "subject")

    def __init__(self, endpoint: WorkloadEndpoint, profiles: tuple[str, ...], subject: Subject[EndpointId]) -> None:
        self.endpoint = endpoint
        self.profiles = profiles
        self.subject = subject


class Governing:
    """Policies, tiers and profiles on one side, this node's endpoints on the other."""

    def __init__(self, inheritance: Inheritance, uses: SetUses, stats: Stats) -> None:
        self._inheritance = inheritance
        self._uses = uses
        self._stats = stats
        self._matcher: Matcher[EndpointId] = Matcher(inheritance.labels, stats)
        self._tiers: dict[str, Tier] = dict(tiers.BUILT_IN)
        self._resources: dict[Key, PolicyResource] = {}
        self._heads: dict[Key, Policy] = {}
        self._by_selector: dict[str, set[Key]] = {}
        self._patterns: dict[str, Pattern[EndpointId]] = {}
        self._in_force: dict[Key, Policy] = {}
        self._places: dict[Key, Place] = {}
        self._here: dict[EndpointId, _Here] = {}
        self._users: dict[str, set[EndpointId]] = {}
        """Profile -> endpoints that have it."""
        self._profiles: dict[str, Profile] = {}
        """Those in force: profiles of endpoints here, if they have rules."""
        self._families: tuple[int, ...] = ()
        self.endpoints: dict[EndpointId, WorkloadEndpoint] = {}
        """With all that governs them, each policy by itself, as of the last flush."""
        self._changed: set[Key] = set()
        """Policies whose rules may be others."""
        self._unsettled: set[Key] = set()
        """Policies that may have come into force, or out of it."""
        self._unbound: set[Subject[EndpointId]] = set()
        """Subjects that other policies may govern now, or in another order."""
        self._shaken: set[EndpointId] = set()
        """Endpoints that are others now."""
        self._shaken_profiles: set[str] = set()

    @property
    def policies(self) -> Mapping[PolicyId, Policy]:
        """Those in force."""
        return {policy.id: policy for policy in self._in_force.values()}

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """Those in force."""
        return dict(self._profiles)

    # --- what happens ---

    def put_tier(self, name: str, value: TierResource | None) -> None:
        """A tier has come, has changed, or is gone (None)."""
        if name in tiers.BUILT_IN:
            return
        new = tiers.tier(value) if value is not None else None
        if self._tiers.get(name) == new:
            return
        if new is None:
            del self._tiers[name]
        else:
            self._tiers[name] = new
        for key, place in self._places.items():
            if place.tier == name:
                self._unbind(key)

    def put_policy(self, key: Key, value: PolicyResource | None, pace: Pace) -> Generator[None, None, None]:
        """A policy has come, has changed, or is gone (None)."""
        if self._resources.get(key) == value:
            return
        self._changed.add(key)
        old, new = self._heads.pop(key, None), policies.head(value) if value is not None else None
        if old is not None and (new is None or new.selector != old.selector):
            self._unbound |= self._patterns[old.selector].subjects
            self._by_selector[old.selector].discard(key)
            if not self._by_selector[old.selector]:
                del self._by_selector[old.selector], self._patterns[old.selector]
                yield from self._matcher.release(old.selector, pace)
        if value is None or new is None:
            del self._resources[key]
            return
        self._resources[key], self._heads[key] = value, new
        if new.selector not in self._patterns:
            self._patterns[new.selector] = yield from self._matcher.require(new.selector, pace)
        self._by_selector.setdefault(new.selector, set()).add(key)
        if old is None or new.selector != old.selector:
            self._unbound |= self._patterns[new.selector].subjects

    def put_profile(self, name: str) -> None:
        """The Profile of this name has come, has changed, or is gone."""
        self._shaken_profiles.add(name)

    def relabel(self, name: str, pace: Pace) -> Generator[None, None, None]:
        """A profile may hand down other labels now."""
        for match in self._matcher.relabel(name, pace):
            if match is None:
                yield
                continue
            self._unbound.add(match.subject)
            self._unsettled |= self._by_selector[match.pattern.text]

    def put_endpoint(self, id_: EndpointId, endpoint: WorkloadEndpoint, selectable: Selectable) -> None:
        """An endpoint has come, or has changed."""
        old = self._here.get(id_)
        like = old.subject if old is not None else None
        subject = self._matcher.subject(selectable.labels, selectable.profiles, like)
        subject.holders.add(id_)
        self._here[id_] = _Here(endpoint, selectable.profiles, subject)
        self._moved(id_, old, subject, selectable.profiles)

    def drop_endpoint(self, id_: EndpointId) -> None:
        """An endpoint is gone."""
        self._moved(id_, self._here.pop(id_, None), None, ())

    def _moved(
        self, id_: EndpointId, old: _Here | None, subject: Subject[EndpointId] | None, profiles: tuple[str, ...]
    ) -> None:
        self._shaken.add(id_)
        before = old.subject if old is not None else None
        if subject is not before:
            for pattern in _patterns(before) ^ _patterns(subject):
                self._unsettled |= self._by_selector[pattern.text]
            if before is not None:
                self._matcher.leave(before, id_)
        had = old.profiles if old is not None else ()
        for name in set(had) - set(profiles):
            self._users[name].discard(id_)
            if not self._users[name]:
                del self._users[name]
                self._shaken_profiles.add(name)
        for name in set(profiles) - set(had):
            if name not in self._users:
                self._users[name] = set()
                self._shaken_profiles.add(name)
            self._users[name].add(id_)

    def _unbind(self, key: Key) -> None:
        self._unbound |= self._patterns[self._heads[key].selector].subjects

    # --- what it leads to ---

    def flush_policies(
        self, families: tuple[int, ...], pace: Pace
    ) -> Generator[None, None, tuple[dict[PolicyId, Policy | None], dict[str, Profile | None]]]:
        """The policies and profiles that have come into force, are others, or have gone out of it (None)."""
        if families != self._families:
            self._families = families
            yield from self._use_again(pace)
        moved: dict[PolicyId, Policy | None] = {}
        for key in self._changed | self._unsettled:
            yield from self._settle(key, moved, pace)
        self._changed, self._unsettled = set(), set()
        moved_profiles: dict[str, Profile | None] = {}
        for name in self._shaken_profiles:
            yield from self._settle_profile(name, moved_profiles, pace)
        self._shaken_profiles = set()
        return moved, moved_profiles

    def _use_again(self, pace: Pace) -> Generator[None, None, None]:
        users: list[tuple[Key | str, Policy | Profile]] = [*self._in_force.items(), *self._profiles.items()]
        for user, found in users:
            yield from self._use(user, found, pace)

    def _settle(self, key: Key, moved: dict[PolicyId, Policy | None], pace: Pace) -> Generator[None, None, None]:
        head, old = self._heads.get(key), self._in_force.get(key)
        if head is None or not (head.everywhere or self._patterns[head.selector].subjects):
            if old is not None:
                del self._in_force[key], self._places[key]
                self._uses.put(key, {})
                moved[old.id] = None
        elif old is None or key in self._changed:
            new = yield from self._made(key, head, pace)
            if new == old:
                return
            self._in_force[key] = moved[new.id] = new
            yield from self._use(key, new, pace)
            place = policies.place(new)
            if place != self._places.get(key):
                self._places[key] = place
                self._unbind(key)

    def _made(self, key: Key, head: Policy, pace: Pace) -> Generator[None, None, Policy]:
        """A policy with its rules."""
        self._stats.conversions += 1
        made: dict[str, tuple[PolicyRule, ...]] = {}
        for direction in policies.DIRECTIONS:
            if head.rules(direction) is None:
                continue
            found = []
            for rule in policies.rules(self._resources[key], direction):
                found.append(rule)
                if pace.due(_weight(rule)):
                    yield
            made[direction] = tuple(found)
        return structs.replace(head, **made)

    def _settle_profile(self, name: str, moved: dict[str, Profile | None], pace: Pace) -> Generator[None, None, None]:
        old, new = self._profiles.get(name), None
        if name in self._users:
            self._stats.conversions += 1
            new = profile(name, self._inheritance.profile(name))
            if not (new.ingress or new.egress):
                new = None
        if new == old:
            return
        moved[name] = new
        if new is None:
            del self._profiles[name]
            self._uses.put(name, {})
        else:
            self._profiles[name] = new
            yield from self._use(name, new, pace)
        if new is None or old is None:
            self._shaken |= self._users.get(name, set())

    def _use(self, user: Key | str, found: Policy | Profile, pace: Pace) -> Generator[None, None, None]:
        """Says which sets a policy or a profile needs."""
        sets: dict[SetKey, SetSpec] = {}
        for rule in policies.rules_of(found):
            sets.update(policies.sets_of(rule, self._families))
            if pace.due():
                yield
        self._uses.put(user, sets)

    def flush_endpoints(self, pace: Pace) -> Generator[None, None, dict[EndpointId, WorkloadEndpoint | None]]:
        """The endpoints that have come, are others or are governed otherwise, or are gone (None)."""
        for subject in self._unbound:
            self._shaken |= subject.holders
        bound: dict[Subject[EndpointId], tuple[TierBinding, ...]] = {}
        moved: dict[EndpointId, WorkloadEndpoint | None] = {}
        for id_ in self._shaken:
            here = self._here.get(id_)
            if here is not None and here.subject not in bound:
                places = self._governing(here.subject)
                bound[here.subject] = policies.bindings(places, self._tiers)
                self._stats.bindings += 1
                if pace.due(1 + len(places) // _PLACES_A_UNIT):
                    yield
            self._settle_endpoint(id_, bound[here.subject] if here is not None else (), moved)
        self._unbound, self._shaken = set(), set()
        return moved

    def _governing(self, subject: Subject[EndpointId]) -> Sequence[Place]:
        return [self._places[key] for pattern in subject.patterns for key in self._by_selector[pattern.text]]

    def _settle_endpoint(
        self,
        id_: EndpointId,
        bound: tuple[TierBinding, ...],
        moved: dict[EndpointId, WorkloadEndpoint | None],
    ) -> None:
        here, old, new = self._here.get(id_), self.endpoints.get(id_), None
        if here is not None:
            mine = tuple(name for name in here.profiles if name in self._profiles)
            new = self.endpoints[id_] = structs.replace(here.endpoint, tiers=bound, profiles=mine)
        elif old is not None:
            del self.endpoints[id_]
        if new != old:
            moved[id_] = new


def _patterns(subject: Subject[EndpointId] | None) -> set[Pattern[EndpointId]]:
    return subject.patterns if subject is not None else set()


def _weight(rule: PolicyRule) -> int:
    """Units of work to make it: its networks are most of it."""
    ends = (rule.source, rule.destination)
    nets = sum(len(each.nets) for end in ends for each in (end.nets, end.not_nets) if each is not None)
    return _RULE_UNITS + nets // _NETS_A_UNIT
