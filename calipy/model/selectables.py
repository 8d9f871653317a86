"""What selectors match: workloads and network sets, with the addresses that they bring into a set."""

from __future__ import annotations

from msgspec import Struct


class NamedPort(Struct, frozen=True, gc=False, order=True):
    """A port of a container that has a name."""

    name: str
    protocol: int
    port: int


class Selectable(Struct, frozen=True, gc=False, kw_only=True):
    """A workload, or a network set, as a selector sees it."""

    labels: dict[str, str] = {}
    """Its own; they come before those that it inherits."""
    profiles: tuple[str, ...] = ()
    """Names of the profiles whose labels it inherits: an earlier one's come before a later one's."""
    nets: tuple[str, ...] = ()
    """Canonical addresses, and CIDRs that aren't whole addresses."""
    ports: tuple[NamedPort, ...] = ()
