"""IPReservation (projectcalico.org/v3): addresses that automatic assignment leaves alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.definitions import Constraint, Definition, Validation
from calipy.resources.metadata import Kind, Problem, Resource


class IPReservationSpec(Struct, frozen=True, gc=False, kw_only=True):
    """The ranges (Calico's IPReservationSpec)."""

    reserved_cidrs: tuple[str, ...] = field(name="reservedCIDRs", default=())
    """Addresses and CIDRs that are given out to nobody who doesn't ask for one by its address. What is given out
    already stays."""


class IPReservation(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="IPReservation"
):
    """Addresses of pools that are not given out by themselves."""

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
    definition=Definition(
        constraints=(
            Constraint(path="spec.reservedCIDRs", list_type="set", max_items=100_000),
            Constraint(path="spec.reservedCIDRs[]", max_length=43),
        ),
        validations=(
            Validation(
                path="spec.reservedCIDRs[]",
                rule="isCIDR(self) || isIP(self)",
                message="is neither an address nor a CIDR: write 10.244.0.0/28",
            ),
        ),
    ),
)  # fmt: skip
