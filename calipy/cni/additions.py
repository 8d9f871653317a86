"""ADD: a container gets addresses, policy, a link and routes, in this order; all of it, or nothing."""

from __future__ import annotations

import logging

from msgspec import structs

from calipy.cni import annotations as notes
from calipy.cni.annotations import Wishes
from calipy.cni.attachments import Attachment
from calipy.cni.checks import difference
from calipy.cni.errors import CniError, Code
from calipy.cni.needs import Demand
from calipy.cni.pods import Found, Mark
from calipy.cni.protocol import Request
from calipy.cni.removals import Removals
from calipy.cni.results import Result
from calipy.cni.sites import Site, patiently, result_of, wiring_of
from calipy.cni.turns import Gate
from calipy.cni.wires import Connected
from calipy.cni.wiring import Wiring
from calipy.conversion.workloads import named_ports
from calipy.datastore.stores import StoreError
from calipy.model.endpoints import WorkloadEndpoint

ATTACHED_AT_ONCE, _GATE_PATIENCE_S = 4, 0.5
"""All is work of one processor: with 30 at once, 4 at a time, half of them are done in 60 ms, all together in 95."""
log = logging.getLogger("calipy.cni.additions")


class Additions:
    """Attaches containers."""

    def __init__(self, site: Site, removals: Removals) -> None:
        self._site = site
        self._removals = removals
        self._gate = Gate(ATTACHED_AT_ONCE, _GATE_PATIENCE_S)

    async def add(self, request: Request, namespace: int | None) -> Result:
        """ADD. `namespace` is a descriptor of the container's network namespace. Repeated for an attachment that stands
        as it should, it gives the same result again. Raises CniError, StoreError, OSError."""
        descriptor = self._judge(request, namespace)
        interface = self._site.interface(request.pod, request.container_id)
        async with self._site.turn(request.container_id, interface):
            place = await self._gate.enter()
            try:
                return await self._add(request, descriptor)
            finally:
                self._gate.leave(place)

    async def _add(self, request: Request, namespace: int) -> Result:
        standing = await self._standing(request, namespace)
        if standing is not None:
            return standing
        wishes, found = await self._wishes(request)
        demand = self._demand(request, wishes, found)
        attachment = self._begin(request, wishes, found)
        try:
            return await self._attach(request, attachment, demand, namespace)
        except BaseException:
            await self._roll_back(attachment)
            raise
        finally:
            self._site.adding.discard(attachment.key)

    def _judge(self, request: Request, namespace: int | None) -> int:
        wanted, name = request.configuration.node, self._site.node.name
        if wanted and wanted != name:
            message = f"network configuration: nodename is {wanted!r}, this node is {name!r}"
            raise CniError(Code.INVALID_CONFIGURATION, message, "leave nodename out")
        return self._site.kernel.judge(namespace, request.netns)

    async def _standing(self, request: Request, namespace: int) -> Result | None:
        """The result of an earlier ADD if all that it made is there; else what is left of it is taken back."""
        attachments = self._site.attachments
        for other in attachments.of_container(request.container_id):
            if (other.network, other.interface) != (request.network, request.interface) and other.state == "attached":
                raise _second(request, other)
        attachment = attachments.get(request.network, request.container_id, request.interface)
        if attachment is None:
            return None
        if attachment.state == "attached" and not await difference(self._site, attachment, request, namespace):
            self._site.told_again.add(attachment.key)
            return result_of(attachment, request)
        await self._removals.take_back(attachment)
        if attachments.get(request.network, request.container_id, request.interface) is not None:
            message = f"addresses of an earlier attachment of container {request.container_id} can't be released yet"
            raise CniError(Code.TRY_AGAIN, message, "the store is away: the agent's log says why")
        return None

    async def _wishes(self, request: Request) -> tuple[Wishes, Found | None]:
        if request.pod is None:
            return notes.read(request.annotations, {}), None
        found = await self._site.pods.find(request.pod)
        if found is None:
            raise CniError(Code.TRY_AGAIN, f"there is no Pod {request.pod} in the store", "create it first")
        # The runtime's copy may lack what was annotated since; the store's is the one that counts.
        own = {**request.annotations, **found.pod.metadata.annotations}
        return notes.read(own, found.namespace_annotations), found

    def _begin(self, request: Request, wishes: Wishes, found: Found | None) -> Attachment:
        """The record comes first: whatever follows can be taken back by it."""
        endpoint = structs.replace(self._site.endpoint(request), mac=wishes.mac)
        if found is not None:
            account, labels = found.pod.spec.service_account_name, found.pod.metadata.labels
            endpoint = structs.replace(endpoint, service_account=account, labels=labels, ports=named_ports(found.pod))
        attachment = Attachment(
            network=request.network,
            container_id=request.container_id,
            interface=request.interface,
            state="adding",
            endpoint=endpoint,
            mtu=request.configuration.mtu or self._site.node.mtu(),
        )
        self._site.attachments.put(attachment)
        self._site.adding.add(attachment.key)
        return attachment

    def _demand(self, request: Request, wishes: Wishes, found: Found | None) -> Demand:
        pools = {family: request.configuration.pools(family) for family in (4, 6)}
        return Demand(
            handle=f"{request.network}.{request.container_id}",
            addresses=wishes.addresses or ((request.address,) if request.address else ()),
            families=wishes.families or self._families(request),
            pools={family: names for family, names in {**pools, **wishes.pools}.items() if names},
            pod=request.pod,
            namespace_labels=found.namespace_labels if found else {},
        )

    def _families(self, request: Request) -> tuple[int, ...]:
        said = {4: request.configuration.ipv4, 6: request.configuration.ipv6}
        default = self._site.node.families()
        families = tuple(family for family in (4, 6) if (family in default if said[family] is None else said[family]))
        if not families:
            message = "no address family for this container: neither the configuration's ipam nor a pool names one"
            raise CniError(Code.NO_ADDRESS, message, 'create an IPPool, or set ipam.assign_ipv4 to "true"')
        return families

    async def _attach(self, request: Request, attachment: Attachment, demand: Demand, namespace: int) -> Result:
        site = self._site
        drawn = await site.addresses.draw(demand)
        assert attachment.endpoint is not None
        endpoint = structs.replace(attachment.endpoint, addresses=tuple(entry.address for entry in drawn))
        attachment = structs.replace(attachment, endpoint=endpoint, blocks=tuple(entry.block for entry in drawn))
        # The addresses are on record by their handle. Flows of their last holder go before there is a route that would
        # take them to the new one.
        await site.flows.flush(endpoint.addresses)
        await patiently(endpoint.id, site.endpoints.add(endpoint), "its policy is not in force")
        connected = await self._connect(wiring_of(attachment, request), namespace)
        endpoint = structs.replace(endpoint, mac=connected.mac)
        await patiently(endpoint.id, site.endpoints.routed(endpoint), "its host route is not in the kernel")
        await self._mark(request, endpoint)
        attachment = structs.replace(attachment, endpoint=endpoint, state="attached")
        site.attachments.put(attachment)
        return result_of(attachment, request)

    async def _mark(self, request: Request, endpoint: WorkloadEndpoint) -> None:
        if request.pod is None:
            return
        mark = Mark(endpoint.container_id, endpoint.addresses)
        if not await self._site.pods.mark(request.pod, mark, request.annotations):
            raise CniError(Code.TRY_AGAIN, f"Pod {request.pod} was deleted while it was attached", "create it anew")

    async def _connect(self, plan: Wiring, namespace: int) -> Connected:
        stale = self._site.kernel.find(plan.interface)
        if stale is not None:
            log.info("link %s of container %s makes room for %s", stale.name, stale.alias, plan.container_id)
            await self._site.kernel.remove(stale.index)
        return await self._site.kernel.connect(plan, namespace)

    async def _roll_back(self, attachment: Attachment) -> None:
        """The runtime hears why ADD failed; what can't be taken back now stays on record and is taken back later."""
        record = self._site.attachments.get(attachment.network, attachment.container_id, attachment.interface)
        try:
            await self._removals.take_back(record or attachment)
        except Exception as error:
            # Whatever it was must not hide why ADD failed.
            foreseen = isinstance(error, CniError | StoreError | OSError)
            message = "a failed ADD of container %s is not wholly taken back: %s"
            log.error(message, attachment.container_id, error, exc_info=not foreseen)
            self._removals.put_off.set()


def _second(request: Request, other: Attachment) -> CniError:
    message = (
        f"container {request.container_id} has interface {other.interface} on network {other.network} already: "
        f"it can't have {request.interface} on {request.network} besides"
    )
    return CniError(Code.ALREADY_ATTACHED, message, "a container has one interface here: DEL that one first")
