"""Pod (core v1) and Calico's annotations on it -> addresses."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from calipy.resources import pods
from calipy.resources.pods import Pod


def pod_addresses(pod: Pod) -> tuple[str, ...]:
    """A pod's own addresses, canonical: none for a finished pod or one on its host's network.

    Calico's order of sources: status.podIPs, status.podIP, the annotations podIPs and podIP. What can't be read counts
    as absent.
    """
    if pod.finished or pod.spec.host_network:
        return ()
    notes = pod.metadata.annotations
    for texts in (
        [entry.ip for entry in pod.status.pod_ips],
        [pod.status.pod_ip],
        notes.get(pods.POD_IPS, "").split(","),
        [notes.get(pods.POD_IP, "")],
    ):
        found = tuple(filter(None, map(_address, texts)))
        if found:
            return found
    return ()


@lru_cache(maxsize=16384)
def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_interface(text.strip()).ip)
    except ValueError:
        return ""
