"""A site: one node's parts as the verbs share them, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from calipy.cni import wiring
from calipy.cni.attachments import Attachment, Attachments
from calipy.cni.errors import CniError, Code
from calipy.cni.needs import Addresses, Endpoints, Flows, Kernel, NodeFacts, Pods
from calipy.cni.protocol import PodReference, Request
from calipy.cni.results import Result
from calipy.cni.turns import Turn, Turns
from calipy.cni.wiring import Wiring
from calipy.model.endpoints import EndpointId, WorkloadEndpoint

PROGRAMMED_WITHIN_S = 60.0
"""The forwarder waits 90 s: by then the runtime must have heard the reason."""


class Site:
    """What the verbs work on."""

    def __init__(
        self,
        *,
        node: NodeFacts,
        addresses: Addresses,
        endpoints: Endpoints,
        pods: Pods,
        flows: Flows,
        kernel: Kernel,
        attachments: Attachments,
    ) -> None:
        self.node = node
        self.addresses = addresses
        self.endpoints = endpoints
        self.pods = pods
        self.flows = flows
        self.kernel = kernel
        self.attachments = attachments
        self.adding: set[str] = set()
        """Keys of the attachments whose ADD is in flight."""
        self.told_again: set[str] = set()
        """Keys of those that a repeated ADD has found standing: they are not one caller's alone any more."""
        self.turns = Turns()

    def turn(self, container_id: str, interface: str) -> Turn:
        """One container's requests are served one after another; so are those for one host interface, for a pod's next
        sandbox has the same. Always taken in this order."""
        return self.turns.of(f"container {container_id}", f"interface {interface}")

    def interface(self, pod: PodReference | None, container_id: str) -> str:
        """The host interface's name."""
        return wiring.host_interface(self.node.interface_prefix, pod, container_id)

    def endpoint(self, request: Request) -> WorkloadEndpoint:
        """The endpoint that a request is about, without addresses. A pod's is always `eth0`, as Calico has it."""
        pod, container_id = request.pod, request.container_id
        return WorkloadEndpoint(
            id=EndpointId("k8s", str(pod), "eth0") if pod else EndpointId("cni", container_id, request.interface),
            container_id=container_id,
            interface=self.interface(pod, container_id),
            addresses=(),
            namespace=pod.namespace if pod else "",
            pod=pod.name if pod else "",
        )


def pod_of(attachment: Attachment) -> PodReference | None:
    """The pod behind an attachment."""
    endpoint = attachment.endpoint
    return PodReference(endpoint.namespace, endpoint.pod) if endpoint and endpoint.pod else None


def wiring_of(attachment: Attachment, request: Request) -> Wiring:
    """What the links of an attachment are to be."""
    assert attachment.endpoint is not None
    return Wiring(
        interface=attachment.endpoint.interface,
        pod_interface=attachment.interface,
        container_id=attachment.container_id,
        mtu=attachment.mtu,
        addresses=attachment.endpoint.addresses,
        queues=request.configuration.queues,
        pod_mac=attachment.endpoint.mac,
        forwarding=request.configuration.forwarding,
    )


def result_of(attachment: Attachment, request: Request) -> Result:
    """What ADD answers."""
    assert attachment.endpoint is not None
    return Result(
        host_interface=attachment.endpoint.interface,
        container_interface=attachment.interface,
        sandbox=request.netns,
        mac=attachment.endpoint.mac,
        mtu=attachment.mtu,
        addresses=attachment.endpoint.addresses,
        routes=attachment.blocks,
    )


async def patiently(endpoint: EndpointId, work: Awaitable[None], what: str) -> None:
    """Waits for `work` as long as a runtime waits: then CniError 11 that says `what`."""
    try:
        async with asyncio.timeout(PROGRAMMED_WITHIN_S):
            await work
    except TimeoutError as error:
        message = f"endpoint {endpoint}: {what} after {PROGRAMMED_WITHIN_S:.0f} s"
        raise CniError(Code.TRY_AGAIN, message, "the agent's log says what the kernel refuses") from error
