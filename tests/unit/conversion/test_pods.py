"""A Pod -> its addresses: which source counts, and when it has none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from calipy.conversion.pods import pod_addresses
from calipy.resources.pods import Pod

C = "cni.projectcalico.org/"


def addresses(*, spec: Any = None, status: Any = None, **notes: str) -> tuple[str, ...]:
    annotations = {f"{C}{name}": text for name, text in notes.items()}
    document = {"metadata": {"name": "a", "namespace": "b", "annotations": annotations}}
    return pod_addresses(msgspec.convert({**document, "spec": spec or {}, "status": status or {}}, Pod))


BOTH = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "FD00::1"}]}


@pytest.mark.parametrize(
    ("pod", "found"),
    [
        ({}, ()),
        ({"status": BOTH}, ("10.0.0.1", "fd00::1")),
        ({"status": {"podIP": "10.0.0.1"}}, ("10.0.0.1",)),
        ({"podIPs": "10.0.0.1/32,fd00::1/128", "podIP": "10.0.0.9/32"}, ("10.0.0.1", "fd00::1")),
        ({"podIP": "10.0.0.1/32"}, ("10.0.0.1",)),
        ({"status": {"podIP": "10.0.0.1"}, "podIPs": "10.0.0.2/32"}, ("10.0.0.1",)),
        ({"podIPs": "nonsense", "podIP": "10.0.0.1/32"}, ("10.0.0.1",)),
        ({"status": {**BOTH, "phase": "Running"}}, ("10.0.0.1", "fd00::1")),
        ({"status": {**BOTH, "phase": "Succeeded"}}, ()),
        ({"status": {**BOTH, "phase": "Failed"}}, ()),
        ({"status": BOTH, "spec": {"hostNetwork": True}}, ()),
    ],
)
def test_pod_addresses(pod: dict[str, Any], found: tuple[str, ...]) -> None:
    assert addresses(**pod) == found
