"""The way that a packet takes from node to node, as far as the datastore's objects tell. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from calipy.explain.inhabitants import World
from calipy.explain.views import View
from calipy.model.routes import Route
from calipy.resources.block_affinities import BlockAffinity

Means = Literal["nowhere", "same node", "VXLAN", "same subnet", "BGP", "network", "dropped"]
_MEANS: dict[str, Means] = {"vxlan": "VXLAN", "vxlan-same-subnet": "same subnet", "same-subnet": "same subnet"}
"""Class of a route's origin -> what carries the packet."""


class Way(Struct, frozen=True, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """From which node to which, and by what."""

    source_node: str = ""
    """Empty: outside of the cluster."""
    destination_node: str = ""
    means: Means
    """`BGP`: nodes tell each other the block. `same subnet`: BGP isn't asked, no router lies between. `network`: what
    lies around the cluster, of which the datastore knows nothing. `dropped`: nobody has the address."""
    block: str = ""
    """The block that the destination lies in, and the node whose it is."""
    holder: str = ""
    borrowed: bool = False
    """True where the destination's node isn't the block's."""


def way(world: World, view_of: Callable[[str], View], sender: str, receiver: str, destination: str) -> Way:
    """The way to `destination`, whose node is `receiver`."""
    block, holder = _block(world, destination)
    means = _means(view_of, sender, receiver, destination, holder)
    return Way(
        source_node=sender, destination_node=receiver, means=means, block=block, holder=holder,
        borrowed=bool(receiver and holder and holder != receiver),
    )  # fmt: skip


def _means(view_of: Callable[[str], View], sender: str, receiver: str, destination: str, holder: str) -> Means:
    if not sender and not receiver and not holder:
        return "nowhere"
    if holder and not receiver:
        return "dropped"
    if sender == receiver:
        return "same node"
    if not sender:
        return "network"
    route = _route(view_of(sender), destination)
    if route is not None and route.origin.kind in _MEANS:
        return _MEANS[route.origin.kind]
    return "BGP" if holder else "network"


def _route(view: View, destination: str) -> Route | None:
    """The narrowest of the node's routes that holds the address."""
    address = ipaddress.ip_address(destination)
    found = [
        (network.prefixlen, route)
        for route in view.state.routes.values()
        if address in (network := ipaddress.ip_network(route.prefix))
    ]
    return max(found, key=lambda each: each[0])[1] if found else None


def _block(world: World, destination: str) -> tuple[str, str]:
    """The confirmed block that holds an address, and its node; where two claim it, the first name."""
    address = ipaddress.ip_address(destination)
    found = [
        (claim.spec.node, claim.spec.cidr)
        for claim in world.values()
        if isinstance(claim, BlockAffinity) and claim.confirmed and address in ipaddress.ip_network(claim.spec.cidr)
    ]
    node, cidr = min(found, default=("", ""))
    return cidr, node
