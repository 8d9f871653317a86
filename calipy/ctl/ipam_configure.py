"""`ipam configure`: how addresses are given out, in the object that says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from calipy.console.failures import Failure
from calipy.datastore.stores import Conflict, Exists, NotFound, Store
from calipy.resources import ipam_configurations
from calipy.resources.ipam_configurations import DEFAULT, IPAMConfiguration, IPAMConfigurationSpec
from calipy.resources.metadata import accept

_MOST_TRIES = 5
"""So often a write is tried that loses against another writer."""


class Asked(Struct, frozen=True, gc=False, kw_only=True):
    """What is to be otherwise; None: as it is."""

    strict_affinity: bool | None = None
    max_blocks_per_host: int | None = None
    ip_cooldown_seconds: int | None = None
    kube_virt_vm_address_persistence: Literal["Enabled", "Disabled"] | None = None

    def given(self) -> dict[str, object]:
        """Attributes of IPAMConfigurationSpec, and their values."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


_CALLED = {
    "strict_affinity": "StrictAffinity",
    "max_blocks_per_host": "MaxBlocksPerHost",
    "ip_cooldown_seconds": "IPCooldownSeconds",
    "kube_virt_vm_address_persistence": "KubeVirtVMAddressPersistence",
}


async def configure(store: Store, asked: Asked) -> Iterator[str]:
    """Changes IPAMConfiguration `default`, or makes it; what to say of it. Raises Failure where nothing is asked for,
    or what calicoctl refuses; Refused; StoreError."""
    given = asked.given()
    if not given:
        raise Failure("ipam configure", "is told nothing to change", "see --help for the options")
    for last in (False,) * (_MOST_TRIES - 1) + (True,):
        try:
            await _write(store, given)
            break
        except (Conflict, Exists) as error:
            # Somebody was quicker: read again, change again.
            if last:
                raise error
    return (f"Successfully set {_CALLED[name]} to: {_shown(value)}" for name, value in given.items())


async def _write(store: Store, given: dict[str, object]) -> None:
    try:
        stored = await store.get(ipam_configurations.KIND, DEFAULT.metadata.name)
    except NotFound:
        await store.create(ipam_configurations.KIND, accept(ipam_configurations.KIND, _changed(DEFAULT, given)))
        return
    after = _changed(stored.value, given)
    await store.update(ipam_configurations.KIND, stored, accept(ipam_configurations.KIND, after, stored.value))


def _changed(old: IPAMConfiguration, given: dict[str, object]) -> IPAMConfiguration:
    spec: IPAMConfigurationSpec = msgspec.structs.replace(old.spec, **given)
    if spec.max_blocks_per_host and not spec.strict_affinity:
        reason = "is for strict affinity alone: without it a node at its limit would borrow"
        remedy = "give --strictaffinity=true as well, or 0 for no limit of its own"
        raise Failure("--max-blocks-per-host", reason, remedy, value=spec.max_blocks_per_host)
    return msgspec.structs.replace(old, spec=spec)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
