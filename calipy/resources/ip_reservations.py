"""IPReservation (projectcalico.org/v3): addresses that automatic assignment leaves alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Problem, Resource


class IPReservationSpec(Struct, frozen=True, gc=False, kw_only=True):
    """Calico IPReservationSpec."""

    reserved_cidrs: tuple[str, ...] = field(name="reservedCIDRs", default=())


class IPReservation(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPReservation"
):
    """Reserved ranges."""

    spec: IPReservationSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(reservation: IPReservation) -> Iterator[Problem]:
    """Each entry is an address or a CIDR."""
    for index, cidr in enumerate(reservation.spec.reserved_cidrs):
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            yield Problem(
                f"spec.reservedCIDRs[{index}]", cidr, "is neither an address nor a CIDR", "write 10.244.0.0/28"
            )


KIND = Kind(
    name="IPReservation", group="projectcalico.org", version="v3", plural="ipreservations", type=IPReservation,
    problems=problems, short_names=("reservation", "reservations"),
)  # fmt: skip
