"""Profiles: Calico keeps none in a Kubernetes cluster. Each Namespace and each ServiceAccount is one, and lets all
traffic pass; policies decide. So there is none to be read, and none can be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from calipy.datastore.stores import Event, Page
from calipy.resources import profiles
from calipy.resources.metadata import Key, Kind, Problem, R, Refused


def is_derived(kind: Kind[Any]) -> bool:
    """True for a kind that no API server has."""
    return kind.name == profiles.KIND.name


def nothing() -> Page[Any]:
    """All objects of such a kind."""
    return Page(items=(), revision=1)


async def silence(kind: Kind[R]) -> AsyncGenerator[Event[R], None]:
    """A watch of such a kind."""
    await asyncio.Event().wait()
    yield Event(type="bookmark", revision=1)


def refusal(key: Key) -> Refused:
    """Why such an object can't be written."""
    reason = "can't be written in a Kubernetes cluster: Namespaces and ServiceAccounts are its profiles"
    return Refused(str(key), [Problem("kind", key.kind, reason, "write a NetworkPolicy or GlobalNetworkPolicy")])
