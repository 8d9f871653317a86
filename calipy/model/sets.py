"""Sets of addresses that rules refer to."""

from __future__ import annotations

from typing import Literal, NewType

SetId = NewType("SetId", str)
"""Calico's identity of a set: `s:<hash of the canonical selector>`, or a fixed word for the built-in ones."""

SetKind = Literal["addresses", "prefixes"]
"""Hash set of whole addresses, or interval set of CIDRs."""

NETWORK_IP_POOLS = SetId("network-ip-pools")
"""All pools that pods live in: traffic to them is never masqueraded."""
MASQUERADED_IP_POOLS = SetId("masq-ipam-pools")
"""Pools with natOutgoing."""
ALL_HOSTS = SetId("all-hosts-net")
"""Addresses of all nodes, and externalNodesList."""
VXLAN_HOSTS = SetId("all-vxlan-net")
"""Addresses of the nodes that may send VXLAN to this one."""
