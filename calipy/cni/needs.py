"""What the verbs need from the rest of the agent: narrow Protocols, each with the one sentence that it must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from calipy.cni.differences import Observed
from calipy.cni.pods import Found, Mark
from calipy.cni.protocol import PodReference
from calipy.cni.wires import Connected
from calipy.cni.wiring import Wiring
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.netlink.rtnetlink import Link


class NodeFacts(Struct, frozen=True, gc=False, kw_only=True):
    """What the verbs ask of this node; what may change while the agent runs is asked for each time."""

    name: str
    interface_prefix: str
    """First entry of FelixConfiguration interfacePrefix."""
    mtu: Callable[[], int]
    """The pods' MTU where the network's configuration says none."""
    families: Callable[[], tuple[int, ...]]
    """The families (4, 6) that a pod gets where the configuration doesn't say: those that have pools."""
    obstacle: Callable[[], str]
    """Why pods can't be attached now; empty if they can."""


class Demand(Struct, frozen=True, gc=False, kw_only=True):
    """The addresses that an attachment needs: these very ones, or one of each family."""

    handle: str
    addresses: tuple[str, ...] = ()
    families: tuple[int, ...] = ()
    pools: Mapping[int, tuple[str, ...]] = {}
    """Names or CIDRs by family; a family that isn't there draws from any pool."""
    pod: PodReference | None = None
    namespace_labels: Mapping[str, str] = {}


class Drawn(Struct, frozen=True, gc=False):
    """An address that was drawn, without prefix length, and its block."""

    address: str
    block: str


class Addresses(Protocol):
    """The allocator. Every method raises StoreError where the store is away."""

    async def draw(self, demand: Demand) -> tuple[Drawn, ...]:
        """All that is demanded, IPv4 first, or nothing at all; raises CniError with the reason."""
        ...

    async def release(self, handle: str) -> None:
        """Gives back all of a handle's addresses; fine where it has none."""
        ...

    async def addresses_of(self, handle: str) -> tuple[str, ...]:
        """A handle's addresses."""
        ...


class Endpoints(Protocol):
    """The dataplane. What the kernel refuses is raised as CniError 102."""

    async def add(self, endpoint: WorkloadEndpoint) -> None:
        """Takes an endpoint in, in place of an older one with its ID; returns when its chains, its dispatch entry and
        its sets are in the kernel, and the older one's host routes out."""
        ...

    async def routed(self, endpoint: WorkloadEndpoint) -> None:
        """Returns when its host routes are in the kernel. Its link is there, and its MAC known by now."""
        ...

    async def remove(self, endpoint: EndpointId, container_id: str) -> None:
        """Returns when dispatch entry, chains and host routes of that container's endpoint are out; fine where the ID
        is unknown or another container's by now. At once where nothing is programmed yet because the store is away."""
        ...

    def current(self, endpoint: EndpointId) -> WorkloadEndpoint | None:
        """The endpoint as it is in force."""
        ...

    def refusal(self, endpoint: EndpointId) -> str:
        """Which of its chains or routes the kernel has not taken, and why; empty if it has all."""
        ...


class Pods(Protocol):
    """Pod objects in the store. Every method raises StoreError."""

    async def find(self, reference: PodReference) -> Found | None:
        """The Pod and what its Namespace says; None where there should be a Pod and is none."""
        ...

    async def mark(self, reference: PodReference, mark: Mark, annotations: Mapping[str, str]) -> bool:
        """Annotates the Pod with its container and addresses; False where there is no such Pod any more. Where nobody
        else makes Pods, a missing one is made, with these annotations besides."""
        ...

    async def blank(self, reference: PodReference, container_id: str) -> None:
        """Takes the addresses away if they are still that container's."""
        ...


class Flows(Protocol):
    """Connection tracking."""

    async def flush(self, addresses: Sequence[str]) -> None:
        """Deletes all flows from or to these addresses, before or after translation."""
        ...


class Kernel(Protocol):
    """Pods' links. Failures are CniErrors 102."""

    def judge(self, namespace: int | None, name: str) -> int:
        """The descriptor, if it is a container's network namespace; raises CniError 4. `name` is CNI_NETNS."""
        ...

    def find(self, name: str) -> Link | None:
        """The node's link of that name."""
        ...

    async def connect(self, wiring: Wiring, namespace: int) -> Connected:
        """Makes the pair and all that belongs to it, or nothing."""
        ...

    def observe(self, wiring: Wiring, namespace: int) -> Observed:
        """What the kernel has of it."""
        ...

    async def remove(self, index: int) -> None:
        """Deletes a link; fine where it is gone."""
        ...
