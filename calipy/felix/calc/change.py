"""The node's desired state, and a change of it: the only value that travels from the calculation downstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, cast

from msgspec import Struct, structs

from calipy.felix.calc.settings import FelixSettings
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.policies import Merged, Policy, PolicyId, Profile
from calipy.model.routes import Route, RouteKey
from calipy.model.sets import SetId, SetKind
from calipy.model.tunnels import Tunnel

K = TypeVar("K")
V = TypeVar("V")


class SetKey(NamedTuple):
    """One kernel set: a set's identity and an address family (4 or 6)."""

    id: SetId
    family: int


class SetDelta(Struct, frozen=True, gc=False):
    """Members that came and went."""

    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()

    def applied(self, members: frozenset[str]) -> frozenset[str]:
        """The members after it. Costs one copy of them, which the smaller set on the left makes a quick one."""
        return (((self.removed - self.added) & members) | (self.added - members)) ^ members

    def then(self, later: SetDelta) -> SetDelta:
        """Both in one: the later wins."""
        return SetDelta(
            (self.added - later.removed) | later.added,
            (self.removed - later.added) | later.removed,
        )


class NodeState(Struct, frozen=True, gc=False, kw_only=True):
    """What this node's kernel is to hold."""

    settings: FelixSettings
    endpoints: Mapping[EndpointId, WorkloadEndpoint] = {}
    policies: Mapping[PolicyId, Policy] = {}
    """Those in force here: that govern an endpoint of this node, or are to be everywhere."""
    profiles: Mapping[str, Profile] = {}
    """Those of the endpoints here, by name."""
    runs: Mapping[SetId, Merged] = {}
    """Runs of policies that endpoints here have merged; `sets` has their maps."""
    sets: Mapping[SetKey, SetKind] = {}
    members: Mapping[SetKey, frozenset[str]] = {}
    """Canonical addresses or CIDRs, and what other kinds have; a key for each of `sets`."""
    routes: Mapping[RouteKey, Route] = {}
    tunnels: Mapping[str, Tunnel] = {}
    """By device name."""


class Change(Struct, frozen=True, gc=False, kw_only=True):
    """What moved: new values by key, None where one is gone.

    A set that goes has a delta that removes each of its members: so a later rebirth starts empty after a merge too.
    """

    settings: FelixSettings | None = None
    endpoints: Mapping[EndpointId, WorkloadEndpoint | None] = {}
    policies: Mapping[PolicyId, Policy | None] = {}
    profiles: Mapping[str, Profile | None] = {}
    runs: Mapping[SetId, Merged | None] = {}
    sets: Mapping[SetKey, SetKind | None] = {}
    members: Mapping[SetKey, SetDelta] = {}
    routes: Mapping[RouteKey, Route | None] = {}
    tunnels: Mapping[str, Tunnel | None] = {}
    revisions: Mapping[str, int] = {}
    """Kind -> highest store revision folded in, those that changed nothing here too."""

    def __bool__(self) -> bool:
        """True if anything but revisions moved."""
        policy = (self.endpoints, self.policies, self.profiles, self.runs, self.sets, self.members)
        return self.settings is not None or any((*policy, self.routes, self.tunnels))


def apply(state: NodeState, change: Change) -> NodeState:
    """The state after the change."""
    return take(
        structs.replace(
            state,
            endpoints=dict(state.endpoints),
            policies=dict(state.policies),
            profiles=dict(state.profiles),
            runs=dict(state.runs),
            sets=dict(state.sets),
            members=dict(state.members),
            routes=dict(state.routes),
            tunnels=dict(state.tunnels),
        ),
        change,
    )


def take(state: NodeState, change: Change) -> NodeState:
    """The state after the change, made of the very maps of `state`: for its one owner, since copies would cost each
    change what the node holds in all."""
    for values, moved in (
        (state.endpoints, change.endpoints),
        (state.policies, change.policies),
        (state.profiles, change.profiles),
        (state.runs, change.runs),
        (state.sets, change.sets),
        (state.routes, change.routes),
        (state.tunnels, change.tunnels),
    ):
        _write(cast("dict[Any, Any]", values), moved)
    _write_members(cast("dict[SetKey, frozenset[str]]", state.members), change)
    return state if change.settings is None else structs.replace(state, settings=change.settings)


def merge(first: Change, then: Change) -> Change:
    """One change that does what both do, one after the other. Associative."""
    return Change(
        settings=then.settings or first.settings,
        endpoints={**first.endpoints, **then.endpoints},
        policies={**first.policies, **then.policies},
        profiles={**first.profiles, **then.profiles},
        runs={**first.runs, **then.runs},
        sets={**first.sets, **then.sets},
        members=_merge_members(first, then),
        routes={**first.routes, **then.routes},
        tunnels={**first.tunnels, **then.tunnels},
        revisions=later(first.revisions, then.revisions),
    )


def later(first: Mapping[str, int], then: Mapping[str, int]) -> Mapping[str, int]:
    """The higher revision of each kind."""
    return {kind: max(first.get(kind, 0), then.get(kind, 0)) for kind in {**first, **then}}


def earlier(first: Mapping[str, int], then: Mapping[str, int]) -> Mapping[str, int]:
    """The lower revision of each kind that both have."""
    return {kind: min(revision, then[kind]) for kind, revision in first.items() if kind in then}


def difference(old: NodeState, new: NodeState) -> Change:
    """The change that leads from one state to another."""
    members: dict[SetKey, SetDelta] = {}
    for key in {**old.members, **new.members}:
        before, after = old.members.get(key, frozenset()), new.members.get(key, frozenset())
        if before != after:
            members[key] = SetDelta(after - before, before - after)
    return Change(
        settings=new.settings if new.settings != old.settings else None,
        endpoints=_moved(old.endpoints, new.endpoints),
        policies=_moved(old.policies, new.policies),
        profiles=_moved(old.profiles, new.profiles),
        runs=_moved(old.runs, new.runs),
        sets=_moved(old.sets, new.sets),
        members=members,
        routes=_moved(old.routes, new.routes),
        tunnels=_moved(old.tunnels, new.tunnels),
    )


def everything(state: NodeState) -> Change:
    """A change that names every owner of a state: applied to that state it moves nothing."""
    whole = difference(NodeState(settings=state.settings), state)
    return structs.replace(whole, settings=state.settings)


def _write(values: dict[K, V], moved: Mapping[K, V | None]) -> None:
    for key, value in moved.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value


def _moved(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, V | None]:
    moved: dict[K, V | None] = {key: value for key, value in new.items() if old.get(key) != value}
    moved.update((key, None) for key in old if key not in new)
    return moved


def _write_members(members: dict[SetKey, frozenset[str]], change: Change) -> None:
    for key, kind in change.sets.items():
        if kind is None:
            members.pop(key, None)
        else:
            members.setdefault(key, frozenset())
    for key, delta in change.members.items():
        if key in members:
            members[key] = delta.applied(members[key])


def _merge_members(first: Change, then: Change) -> Mapping[SetKey, SetDelta]:
    merged = {**first.members, **then.members}
    for key in first.members.keys() & then.members.keys():
        merged[key] = first.members[key].then(then.members[key])
    return merged
