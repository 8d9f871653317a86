"""The world as far as this node knows it: the input of the calculation, and the events that move it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from msgspec import Struct, structs

from calipy.felix.calc import local
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import ForeignRoute, Link, LinkAddress
from calipy.model.routes import LearnedRoute
from calipy.resources.felix_configurations import Value
from calipy.resources.metadata import Key, Resource

WATCHED = (
    "Node",
    "Namespace",
    "Pod",
    "ServiceAccount",
    "EndpointSlice",
    "IPPool",
    "BlockAffinity",
    "FelixConfiguration",
    "Tier",
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "KubernetesNetworkPolicy",
    "NetworkSet",
    "GlobalNetworkSet",
    "Profile",
)
"""Kinds that the calculation reads."""


class World(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that is known, newest accepted values only."""

    node: str
    """This node's name."""
    process_settings: Mapping[str, Mapping[str, Value]] = {}
    """Felix parameters of this process: source ("file", "environment") -> FelixConfiguration name -> value."""
    resources: Mapping[Key, Resource] = {}
    attachments: Mapping[EndpointId, WorkloadEndpoint] = {}
    """What CNI has attached here. Labels, service account and ports come from the Pod: here are those that CNI has
    read, for as long as there is no Pod, and those that a Pod had when it went."""
    links: Mapping[int, Link] = {}
    addresses: frozenset[LinkAddress] = frozenset()
    foreign_routes: frozenset[ForeignRoute] = frozenset()
    learned: Mapping[str, LearnedRoute] = {}
    """By prefix."""


class ResourcePut(Struct, frozen=True, gc=False):
    """A resource is there, or has a new value."""

    key: Key
    value: Resource
    revision: int


class ResourceGone(Struct, frozen=True, gc=False):
    """A resource has been deleted."""

    key: Key
    revision: int


class Bookmark(Struct, frozen=True, gc=False):
    """Nothing moved in a kind up to a revision."""

    kind: str
    revision: int


class Attached(Struct, frozen=True, gc=False):
    """CNI attaches an endpoint."""

    endpoint: WorkloadEndpoint


class Detached(Struct, frozen=True, gc=False):
    """CNI has let go of an endpoint."""

    id: EndpointId


class LinkSeen(Struct, frozen=True, gc=False):
    """A link is there, or has changed."""

    link: Link


class LinkGone(Struct, frozen=True, gc=False):
    """A link has vanished, its addresses with it."""

    index: int


class AddressSeen(Struct, frozen=True, gc=False):
    """A link has an address."""

    address: LinkAddress


class AddressGone(Struct, frozen=True, gc=False):
    """A link has lost an address."""

    address: LinkAddress


class ForeignRoutesRead(Struct, frozen=True, gc=False):
    """The main table's routes of others, all of them."""

    routes: frozenset[ForeignRoute]


class RoutesLearned(Struct, frozen=True, gc=False):
    """BGP's outcome by prefix; None = withdrawn."""

    routes: Mapping[str, LearnedRoute | None]


Event = (
    ResourcePut
    | ResourceGone
    | Bookmark
    | Attached
    | Detached
    | LinkSeen
    | LinkGone
    | AddressSeen
    | AddressGone
    | ForeignRoutesRead
    | RoutesLearned
)


def advance(world: World, events: Iterable[Event]) -> World:
    """The world after the events: the definition that the incremental graph is held against."""
    for event in events:
        world = _step(world, event)
    return world


def _step(world: World, event: Event) -> World:
    replace = partial(structs.replace, world)
    match event:
        case ResourcePut():
            resources = {**world.resources, event.key: event.value}
            return replace(resources=resources, attachments=_kept(world, event.key, event.value))
        case ResourceGone():
            resources = {k: v for k, v in world.resources.items() if k != event.key}
            return replace(resources=resources, attachments=_kept(world, event.key, None))
        case Attached():
            return replace(attachments={**world.attachments, event.endpoint.id: event.endpoint})
        case Detached():
            return replace(attachments={k: v for k, v in world.attachments.items() if k != event.id})
        case RoutesLearned():
            moved = {**world.learned, **event.routes}
            return replace(learned={prefix: route for prefix, route in moved.items() if route is not None})
        case Bookmark():
            return world
        case _:
            return _kernel_step(world, event)


def _kept(world: World, key: Key, value: Resource | None) -> Mapping[EndpointId, WorkloadEndpoint]:
    if key.kind != "Pod":
        return world.attachments
    before, after = (local.own(pod, world.node) for pod in (world.resources.get(key), value))
    return {
        id_: local.keep(attachment, before, after) if local.pod_key(attachment) == key else attachment
        for id_, attachment in world.attachments.items()
    }


def _kernel_step(world: World, event: LinkSeen | LinkGone | AddressSeen | AddressGone | ForeignRoutesRead) -> World:
    replace = partial(structs.replace, world)
    match event:
        case LinkSeen():
            return replace(links={**world.links, event.link.index: event.link})
        case LinkGone():
            return replace(
                links={index: link for index, link in world.links.items() if index != event.index},
                addresses=frozenset(a for a in world.addresses if a.index != event.index),
            )
        case AddressSeen():
            return replace(addresses=world.addresses | {event.address})
        case AddressGone():
            return replace(addresses=world.addresses - {event.address})
        case ForeignRoutesRead():
            return replace(foreign_routes=event.routes)
