"""Names of chains, sets and the objects that they are."""

from __future__ import annotations

import base64
import hashlib

from calipy.felix.calc.change import SetKey
from calipy.felix.objects import ObjectName
from calipy.model.policies import Direction, PolicyId
from calipy.model.sets import SetId, SetKind

FROM_WORKLOAD, TO_WORKLOAD = "cali-from-wl-dispatch", "cali-to-wl-dispatch"
"""Dispatch chains, and the verdict maps of the same names with `-map`."""
WORKLOAD_TO_HOST = "cali-wl-to-host"
NAT_OUTGOING = "cali-nat-outgoing"
SOURCES = {4: "cali40-workload-sources", 6: "cali60-workload-sources"}
"""Which source addresses may come in by which interface."""

_LONGEST = 128
"""Bytes of a chain's name that nft takes."""


def map_of(dispatch: str) -> str:
    """The verdict map of a dispatch chain."""
    return f"{dispatch}-map"


def from_chain(interface: str) -> str:
    """Calico's name of the chain for packets from a workload."""
    return f"cali-fw-{interface}"


def to_chain(interface: str) -> str:
    """Calico's name of the chain for packets to a workload."""
    return f"cali-tw-{interface}"


def workload_chain(interface: str, direction: Direction) -> str:
    """The chain for packets from a workload (egress) or to it (ingress)."""
    return from_chain(interface) if direction == "egress" else to_chain(interface)


def tier_chain(interface: str, direction: Direction, number: int) -> str:
    """The chain of one of an endpoint's tiers, where that tier needs one of its own."""
    return f"{workload_chain(interface, direction)}-{number}"


def policy_chain(id_: PolicyId, direction: Direction) -> str:
    """Calico's name of a policy's chain."""
    return _limited("cali-pi-" if direction == "ingress" else "cali-po-", str(id_))


def askers_chain(run: SetId, mask: int) -> str:
    """The chain that asks those policies of a run whose bits are set."""
    return f"{verdicts_of(run)}-{mask:x}"


def verdicts_of(run: SetId) -> str:
    """The verdict map of a run by mask."""
    return f"cali-{run.replace(':', '-')}"


def profile_chain(name: str, direction: Direction) -> str:
    """Calico's name of a profile's chain."""
    return _limited("cali-pri-" if direction == "ingress" else "cali-pro-", name)


def _limited(prefix: str, name: str) -> str:
    """A name too long becomes `_` and a hash, as in Calico, which a name of full length that begins so must, too."""
    length = len(prefix) + len(name)
    if length < _LONGEST or (length == _LONGEST and not name.startswith("_")):
        return prefix + name
    hashed = base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()).decode().rstrip("=")
    return f"{prefix}_{hashed}"


def set_name(key: SetKey, kind: SetKind) -> str:
    """A set's name in the kernel, in letters that `nft` takes. The kind is part of it: a set that turns from addresses
    to prefixes is another one, and the rules move over in the same batch."""
    family = f"{key.family}0" if key.family else ""
    return f"cali{family}-{key.id.replace(':', '-')}" + ("-nets" if kind == "prefixes" else "")


def chain(name: str) -> ObjectName:
    """The object that a chain is."""
    return ObjectName("chain", name)


def set_(name: str) -> ObjectName:
    """The object that a set or map is."""
    return ObjectName("set", name)


def members(set_name_: str) -> ObjectName:
    """The object that all members of a set are."""
    return ObjectName("members", set_name_)


def element(set_name_: str, key: str) -> ObjectName:
    """The object that an element is; a pair's parts are joined by a space."""
    return ObjectName("element", f"{set_name_} {key}")
