"""CHECK: is everything there that ADD has made?"""

from __future__ import annotations

from calipy.cni.attachments import Attachment
from calipy.cni.differences import first_difference
from calipy.cni.errors import CniError, Code
from calipy.cni.inputs import Previous
from calipy.cni.protocol import Request
from calipy.cni.results import prefix
from calipy.cni.sites import Site, wiring_of
from calipy.model.endpoints import WorkloadEndpoint


async def check(site: Site, request: Request, namespace: int | None) -> None:
    """CHECK. Raises CniError 101 naming the first difference; StoreError."""
    descriptor = site.kernel.judge(namespace, request.netns)
    async with site.turn(request.container_id, site.interface(request.pod, request.container_id)):
        attachment = site.attachments.get(request.network, request.container_id, request.interface)
        if attachment is None or attachment.state != "attached":
            found = f"container {request.container_id} has no interface {request.interface} on {request.network}"
        else:
            found = _previous(attachment, request.previous or Previous())
            found = found or await difference(site, attachment, request, descriptor)
    if found:
        raise CniError(Code.DIFFERS, found, "DEL and ADD the container anew, or see who changed it")


async def difference(site: Site, attachment: Attachment, request: Request, namespace: int) -> str:
    """The first difference between what is there and what ADD has made; empty if there is none. Raises StoreError."""
    endpoint = attachment.endpoint
    assert endpoint is not None
    plan = wiring_of(attachment, request)
    found = first_difference(plan, site.kernel.observe(plan, namespace), endpoint.mac)
    return found or _endpoint(site, endpoint) or await _allocation(site, attachment, endpoint)


def _previous(attachment: Attachment, previous: Previous) -> str:
    endpoint = attachment.endpoint
    assert endpoint is not None
    for name, said, right in (
        ("interface on the node", previous.host_interface, endpoint.interface),
        ("MAC address in the container", previous.mac, endpoint.mac),
        ("addresses", previous.addresses, tuple(map(prefix, endpoint.addresses))),
    ):
        if said and said != right:
            return f"prevResult: {name} is {said!r}, ADD has made {right!r}"
    return ""


def _endpoint(site: Site, endpoint: WorkloadEndpoint) -> str:
    current = site.endpoints.current(endpoint.id)
    if current is None:
        return f"endpoint {endpoint.id} has no chain: the agent doesn't know it"
    if current.container_id != endpoint.container_id:
        return f"endpoint {endpoint.id} is container {current.container_id}'s by now"
    refusal = site.endpoints.refusal(endpoint.id)
    return f"endpoint {endpoint.id}: {refusal}" if refusal else ""


async def _allocation(site: Site, attachment: Attachment, endpoint: WorkloadEndpoint) -> str:
    held = await site.addresses.addresses_of(attachment.handle)
    missing = [address for address in endpoint.addresses if address not in held]
    return f"address {missing[0]} is not allocated to handle {attachment.handle}" if missing else ""
