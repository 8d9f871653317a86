"""The node's desired state, and a change of it: the only value that travels from the calculation downstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, cast

from msgspec import Struct, structs

from calipy.felix.calc.settings import FelixSettings
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
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
    sets: Mapping[SetKey, SetKind] = {}
    members: Mapping[SetKey, frozenset[str]] = {}
    """Canonical addresses or CIDRs; a key for each of `sets`."""
    routes: Mapping[RouteKey, Route] = {}
    tunnels: Mapping[str, Tunnel] = {}
    """By device name."""


class Change(Struct, frozen=True, gc=False, kw_only=True):
    """What moved: new values by key, None where one is gone.

    A set that goes has a delta that removes each of its members: so a later rebirth starts empty after a merge too.
    """

    settings: FelixSettings | None = None
    endpoints: Mapping[EndpointId, WorkloadEndpoint | None] = {}
    sets: Mapping[SetKey, SetKind | None] = {}
    members: Mapping[SetKey, SetDelta] = {}
    routes: Mapping[RouteKey, Route | None] = {}
    tunnels: Mapping[str, Tunnel | None] = {}
    revisions: Mapping[str, int] = {}
    """Kind -> highest store revision folded in, those that changed nothing here too."""

    def __bool__(self) -> bool:
        """True if anything but revisions moved."""
        return bool(self.settings or self.endpoints or self.sets or self.members or self.routes or self.tunnels)


def apply(state: NodeState, change: Change) -> NodeState:
    """The state after the change."""
    return take(
        structs.replace(
            state,
            endpoints=dict(state.endpoints),
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
        sets={**first.sets, **then.sets},
        members=_merge_members(first, then),
        routes={**first.routes, **then.routes},
        tunnels={**first.tunnels, **then.tunnels},
        revisions={
            kind: max(first.revisions.get(kind, 0), then.revisions.get(kind, 0))
            for kind in {*first.revisions, *then.revisions}
        },
    )


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
            members[key] = (members[key] - delta.removed) | delta.added


def _merge_members(first: Change, then: Change) -> Mapping[SetKey, SetDelta]:
    merged = {**first.members, **then.members}
    for key in first.members.keys() & then.members.keys():
        merged[key] = first.members[key].then(then.members[key])
    return merged
