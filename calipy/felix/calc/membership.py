"""The sets of the rules in force, and who is in them: workloads and network sets by their labels, services by their
endpoints, lists by what they say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from calipy.conversion import endpoint_slices
from calipy.felix.calc import policies
from calipy.felix.calc.change import SetDelta, SetKey
from calipy.felix.calc.live_sets import LiveSet
from calipy.felix.calc.matching import Match, Matcher, Subject
from calipy.felix.calc.pace import Pace
from calipy.felix.calc.policies import SetSpec
from calipy.felix.calc.stats import Stats
from calipy.model.selectables import NamedPort, Selectable
from calipy.model.sets import EndpointSet, NetSet, PortSet, SetKind
from calipy.resources.endpoint_slices import EndpointSlice
from calipy.resources.metadata import Key

Service = tuple[str, str]
"""Namespace and name."""
_NETS_A_UNIT, _PART = 20, 500
G = TypeVar("G")


class _Holder:
    """Somebody who brings addresses into sets."""

    __slots__ = ("nets", "ports", "subject")

    def __init__(self, subject: Subject[_Holder], nets: Collection[str], ports: tuple[NamedPort, ...]) -> None:
        self.subject = subject
        self.nets = nets
        self.ports = ports

    def same(self, subject: Subject[_Holder], selectable: Selectable) -> bool:
        """True if it would be just so again."""
        return self.subject is subject and self.nets == selectable.nets and self.ports == selectable.ports


class Membership:
    """Holders and sets."""

    def __init__(self, inherited: Callable[[str], Mapping[str, str]], stats: Stats) -> None:
        self._stats = stats
        self._matcher: Matcher[_Holder] = Matcher(inherited, stats)
        self._holders: dict[Hashable, _Holder] = {}
        self._sets: dict[SetKey, LiveSet] = {}
        self._by_selector: dict[str, dict[SetKey, LiveSet]] = {}
        self._by_service: dict[Service, dict[SetKey, LiveSet]] = {}
        self._slices: dict[Key, EndpointSlice] = {}
        self._slices_of: dict[Service, set[Key]] = {}
        self._touched: set[LiveSet] = set()
        self._left: dict[SetKey, frozenset[str]] = {}
        """Sets that have ceased since the last `moved`, and their members as were last said."""

    # --- who holds what ---

    def relabel(self, profile: str, pace: Pace) -> Generator[None, None, None]:
        """A profile may hand down other labels now."""
        for match in self._matcher.relabel(profile, pace):
            if match is None:
                yield
            else:
                yield from self._take_match(match, pace)

    def _take_match(self, match: Match[_Holder], pace: Pace) -> Generator[None, None, None]:
        for live in self._by_selector.get(match.pattern.text, {}).values():
            for holder in match.subject.holders:
                if match.begun:
                    yield from self._bring(live, holder.nets, holder.ports, pace)
                else:
                    yield from self._take(live, holder.nets, holder.ports, pace)

    def nets(self, id_: Hashable) -> Collection[str]:
        """The addresses that a holder brings now."""
        holder = self._holders.get(id_)
        return holder.nets if holder is not None else ()

    def place(self, id_: Hashable, selectable: Selectable | None, pace: Pace) -> Generator[None, None, None]:
        """A holder has come, has become another, or is gone (None). Without addresses it holds nothing."""
        old, new = self._holders.pop(id_, None), None
        if selectable is not None and selectable.nets:
            like = old.subject if old is not None else None
            subject = self._matcher.subject(selectable.labels, selectable.profiles, like)
            if old is not None and old.same(subject, selectable):
                new = old
            else:
                new = _Holder(subject, selectable.nets, selectable.ports)
            self._holders[id_] = new
        if new is not old:
            yield from self._replace(old, new, pace)

    def _replace(self, old: _Holder | None, new: _Holder | None, pace: Pace) -> Generator[None, None, None]:
        before, after = (holder.subject.patterns if holder is not None else frozenset() for holder in (old, new))
        if new is not None:
            new.subject.holders.add(new)
            for pattern in after - before:
                for live in self._by_selector[pattern.text].values():
                    yield from self._bring(live, new.nets, new.ports, pace)
        if old is None:
            return
        for pattern in before - after:
            for live in self._by_selector[pattern.text].values():
                yield from self._take(live, old.nets, old.ports, pace)
        if new is not None:
            both = [live for pattern in before & after for live in self._by_selector[pattern.text].values()]
            yield from self._exchange(old, new, both, pace)
        self._matcher.leave(old.subject, old)

    def _exchange(self, old: _Holder, new: _Holder, sets: Iterable[LiveSet], pace: Pace) -> Generator[None, None, None]:
        """In sets that hold both only the difference moves."""
        came, went = new.nets, old.nets
        if old.ports == new.ports:
            if old.nets == new.nets:
                return
            yield  # there may be a hundred thousand of them: then each of these steps takes a while
            here = frozenset(old.nets)
            yield
            came = [net for net in new.nets if net not in here]
            yield
            went = here.difference(new.nets)
        for live in sets:
            yield from self._bring(live, came, new.ports, pace)
            yield from self._take(live, went, old.ports, pace)

    # --- services ---

    def put_slice(self, key: Key, value: EndpointSlice | None) -> None:
        """Endpoints of a service have come, have changed, or are gone (None)."""
        old = self._slices.pop(key, None)
        if value is not None:
            self._slices[key] = value
            self._slices_of.setdefault(_service(value), set()).add(key)
            for live in self._by_service.get(_service(value), {}).values():
                self._count(live, live.bring(_endpoints(value, live)))
        if old is None:
            return
        for live in self._by_service.get(_service(old), {}).values():
            self._count(live, live.take(_endpoints(old, live)))
        if value is None or _service(value) != _service(old):
            self._slices_of[_service(old)].discard(key)
            if not self._slices_of[_service(old)]:
                del self._slices_of[_service(old)]

    # --- sets ---

    def want(self, key: SetKey, spec: SetSpec, pace: Pace) -> Generator[None, None, None]:
        """A set has come into force: it is filled."""
        live = self._sets[key] = LiveSet(key, spec)
        self._stats.fillings += 1
        self._touched.add(live)
        if isinstance(spec, NetSet | PortSet):
            live.bring(policies.listed(spec, key.family))
        elif isinstance(spec, EndpointSet) and spec.service:
            service = spec.namespace, spec.service
            self._by_service.setdefault(service, {})[key] = live
            for slice_ in self._slices_of.get(service, ()):
                live.bring(_endpoints(self._slices[slice_], live))
                if pace.due(10):
                    yield
        else:
            pattern = yield from self._matcher.require(spec.selector, pace)
            self._by_selector.setdefault(spec.selector, {})[key] = live
            for subject in pattern.subjects:
                for holder in subject.holders:
                    yield from self._bring(live, holder.nets, holder.ports, pace)

    def drop(self, key: SetKey, pace: Pace) -> Generator[None, None, None]:
        """A set has ceased to be in force."""
        live = self._sets.pop(key)
        self._touched.discard(live)
        self._left[key] = live.told()
        if isinstance(live.spec, EndpointSet) and live.spec.service:
            _forget(self._by_service, (live.spec.namespace, live.spec.service), key)
        elif not isinstance(live.spec, NetSet | PortSet) and _forget(self._by_selector, live.spec.selector, key):
            yield from self._matcher.release(live.spec.selector, pace)

    def _bring(
        self, live: LiveSet, nets: Collection[str], ports: Collection[NamedPort], pace: Pace
    ) -> Generator[None, None, None]:
        for part in _parts(nets):
            self._count(live, live.bring(live.of(part, ports)))
            if pace.due(1 + len(part) // _NETS_A_UNIT):
                yield

    def _take(
        self, live: LiveSet, nets: Collection[str], ports: Collection[NamedPort], pace: Pace
    ) -> Generator[None, None, None]:
        for part in _parts(nets):
            self._count(live, live.take(live.of(part, ports)))
            if pace.due(1 + len(part) // _NETS_A_UNIT):
                yield

    def _count(self, live: LiveSet, moved: int) -> None:
        if moved:
            self._stats.memberships += moved
            self._touched.add(live)

    def moved(self, pace: Pace) -> Generator[None, None, tuple[dict[SetKey, SetKind | None], dict[SetKey, SetDelta]]]:
        """Kinds and members of sets, as far as they are others than was last said."""
        kinds: dict[SetKey, SetKind | None] = dict.fromkeys(self._left)
        members = {key: SetDelta(removed=told) for key, told in self._left.items() if told}
        for live in self._touched:
            kind, delta = live.moved()
            if kind is not None:
                kinds[live.key] = kind
            if delta.added or delta.removed:
                members[live.key] = delta
            if pace.due(1 + (len(delta.added) + len(delta.removed)) // _NETS_A_UNIT):
                yield
        self._touched, self._left = set(), {}
        return kinds, members

    def kind(self, key: SetKey) -> SetKind | None:
        """What a set is, as of the last `moved`; None: it isn't in force."""
        return self._sets[key].kind if key in self._sets else None

    def members(self, key: SetKey) -> Collection[str]:
        """Who is in a set; nobody in one that isn't in force."""
        return self._sets[key].members if key in self._sets else ()

    def sets(self) -> Iterator[LiveSet]:
        """All that are in force."""
        return iter(self._sets.values())


def _forget(groups: dict[G, dict[SetKey, LiveSet]], group: G, key: SetKey) -> bool:
    """Takes a set out of its group; True if it was the last."""
    del groups[group][key]
    if groups[group]:
        return False
    del groups[group]
    return True


def _parts(nets: Collection[str]) -> Iterator[Collection[str]]:
    """Many networks in parts of a few hundred."""
    if len(nets) <= _PART:
        yield nets
        return
    rest = iter(nets)
    while part := list(islice(rest, _PART)):
        yield part


def _service(found: EndpointSlice) -> Service:
    return found.metadata.namespace, found.service


def _endpoints(found: EndpointSlice, live: LiveSet) -> Iterator[str]:
    """Those of a family."""
    assert isinstance(live.spec, EndpointSet)
    for member in endpoint_slices.members(found, with_ports=live.spec.with_ports):
        if (":" in member.partition(",")[0]) == (live.key.family == 6):
            yield member
