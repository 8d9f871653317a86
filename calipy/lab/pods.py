"""Pods of a lab: a network namespace each, attached by the node's container runtime, and what runs in it.

A file a pod, in its node's folder, is what a runtime remembers of its sandboxes; the Pod object in the store is what a
scheduler and a kubelet would have written.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, cast

import msgspec
from msgspec import Struct, structs

from calipy.console.failures import Failure
from calipy.datastore.stores import Conflict, Exists, NotFound, Store, StoreError
from calipy.lab import echo
from calipy.lab.cluster import Lab
from calipy.lab.cni_failures import CniFailure
from calipy.lab.machines import PACKAGES, Machine, MachineError
from calipy.lab.waiting import eventually, together
from calipy.resources import namespaces, pods
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import ObjectMeta, Problem, Refused, name_problems
from calipy.resources.namespaces import Namespace
from calipy.resources.pods import Container, ContainerPort, Pod, PodAddress, PodSpec, PodStatus

_FILE_MOST: Final = 255 - len("echo-.log")
"""Of namespace, dot and name: they name files, the longest that of the echo process's log (NAME_MAX, 255 bytes)."""
_LISTEN: Final = re.compile(r"(TCP|UDP|SCTP)/([1-9][0-9]{0,4})")
Protocol = Literal["TCP", "UDP", "SCTP"]
_ATTEMPTS: Final = 20


class Listen(Struct, frozen=True, gc=False, order=True):
    """A port on which a pod answers."""

    protocol: Protocol
    port: int

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port}"


class Sandbox(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """What the runtime remembers of a pod."""

    namespace: str
    name: str
    node: str
    container_id: str
    listens: tuple[Listen, ...] = ()
    addresses: tuple[str, ...] = ()
    """Without prefix lengths; empty until it is attached."""

    @property
    def netns(self) -> str:
        """The name of its network namespace on the node. No two pods of one node share it: namespaces have no dot."""
        return f"{self.namespace}.{self.name}"

    @property
    def netns_path(self) -> str:
        """Where that is, on the node."""
        return f"/run/netns/{self.netns}"

    @property
    def process(self) -> str:
        """What its echo process is called among the node's."""
        return f"echo-{self.netns}"

    @property
    def arguments(self) -> Mapping[str, str]:
        """CNI_ARGS as a kubelet's runtime has them."""
        return {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.container_id,
        }

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Wish(Struct, frozen=True, gc=False, kw_only=True):
    """A pod to be made."""

    name: str
    node: str
    namespace: str = "default"
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    listens: tuple[Listen, ...] = ()


def parse_listen(text: str) -> Listen:
    """`TCP/80`. Raises Failure."""
    match = _LISTEN.fullmatch(text.upper())
    if match is None or int(match[2]) > 65535:
        raise Failure("--listen", "is not a protocol and a port", "write TCP/80, UDP/53 or SCTP/80", value=text)
    return Listen(cast(Protocol, match[1]), int(match[2]))


def sandboxes(lab: Lab, node: str | None = None) -> tuple[Sandbox, ...]:
    """All pods, or those of one node, by node, namespace and name."""
    found = []
    for name in lab.nodes if node is None else (node,):
        places = sorted((lab.folder / name / "pods").glob("[!.]*"))
        found += [msgspec.json.decode(place.read_bytes(), type=Sandbox) for place in places]
    return tuple(found)


def find(lab: Lab, reference: str) -> Sandbox | None:
    """The pod that `name` (in namespace default), or `namespace/name`, means."""
    namespace, _, name = reference.rpartition("/")
    wanted = (namespace or "default", name)
    return next((pod for pod in sandboxes(lab) if (pod.namespace, pod.name) == wanted), None)


def named(lab: Lab, reference: str) -> Sandbox:
    """The same. Raises Failure if there is none."""
    found = find(lab, reference)
    if found is None:
        known = ", ".join(map(str, sandboxes(lab))) or "none yet: calipy lab pod add"
        raise Failure(f"pod {reference}", "the lab has none of that name", f"it has {known}")
    return found


async def add(lab: Lab, store: Store, wish: Wish) -> Sandbox:
    """Makes a pod; when it returns its network is complete. After a failure nothing is left of it, unless the node
    doesn't answer its DEL either; both have their limits (`runner`). Raises Refused for what no Pod can be called or
    labelled, Failure, CniFailure, MachineError, StoreError."""
    _check(lab, wish)
    machine = lab.need_power(wish.node)
    pod = Sandbox(
        namespace=wish.namespace, name=wish.name, node=wish.node, container_id=secrets.token_hex(32),
        listens=wish.listens,
    )  # fmt: skip
    _remember(lab, pod)
    try:
        await _ensure_namespace(store, wish.namespace)
        await store.create(pods.KIND, _object(wish))
        await machine.make_netns(pod.netns)
        added = await lab.runtime(wish.node).add(
            pod.container_id, pod.netns_path, args=pod.arguments,
            capabilities={"io.kubernetes.cri.pod-annotations": dict(wish.annotations)},
        )  # fmt: skip
        pod = structs.replace(pod, addresses=added.addresses)
        if pod.listens:
            await _listen(machine, pod)
        await _report_running(store, pod)
        _remember(lab, pod)
    except BaseException as failure:
        await _take_back(lab, store, pod, failure)
        raise
    return pod


async def delete(lab: Lab, store: Store, pod: Sandbox) -> None:
    """Removes a pod and all that belongs to it. Raises CniFailure, MachineError, StoreError; then it can be deleted
    again."""
    machine = lab.need_power(pod.node)
    if pod.process in await machine.processes():
        await machine.process(pod.process).stop()
    await lab.runtime(pod.node).delete(pod.container_id, pod.netns_path, args=pod.arguments)
    if await _has_netns(machine, pod):
        await machine.delete_netns(pod.netns)
    await _forget(lab, store, pod)


async def clear_after_power_cut(lab: Lab, store: Store, node: str) -> tuple[Sandbox, ...]:
    """What a runtime does when its node is back: the sandboxes went with the power, so each gets its DEL, without a
    namespace. The pods that are gone."""
    gone = sandboxes(lab, node)
    runtime = lab.runtime(node)

    async def clear(pod: Sandbox) -> None:
        await runtime.delete(pod.container_id, "", args=pod.arguments)
        await _forget(lab, store, pod)

    await together(clear(pod) for pod in gone)
    return gone


def _check(lab: Lab, wish: Wish) -> None:
    lab.node(wish.node)
    pod = _object(wish)
    problems = (*name_problems(pods.KIND, pod.metadata), *metadata_problems(pod.metadata), *_length_problems(wish))
    if problems:
        raise Refused(str(pods.KIND.key(pod)), problems)
    if wish.name in lab.machines:
        raise Failure("pod", "is a machine's name", "choose another: lab exec takes both", value=wish.name)
    reference = f"{wish.namespace}/{wish.name}"
    if found := find(lab, reference):
        remedy = f"delete it first: calipy lab pod delete {reference}"
        raise Failure(f"pod {reference}", f"is there already, on node {found.node}", remedy)


def _length_problems(wish: Wish) -> Iterator[Problem]:
    length = len(wish.namespace) + 1 + len(wish.name)
    if length > _FILE_MOST:
        reason = f"has {length} characters with its namespace, and files of the lab are called so"
        yield Problem("metadata.name", wish.name, reason, f"{_FILE_MOST} at most")


def _object(wish: Wish) -> Pod:
    ports = tuple(ContainerPort(container_port=listen.port, protocol=listen.protocol) for listen in wish.listens)
    metadata = ObjectMeta(
        name=wish.name, namespace=wish.namespace, labels=dict(wish.labels), annotations=dict(wish.annotations)
    )
    spec = PodSpec(node_name=wish.node, containers=(Container(name="echo", ports=ports),))
    return Pod(metadata=metadata, spec=spec, status=PodStatus(phase="Pending"))


async def _ensure_namespace(store: Store, name: str) -> None:
    metadata = ObjectMeta(name=name, labels={"kubernetes.io/metadata.name": name})
    try:
        await store.create(namespaces.KIND, Namespace(metadata=metadata))
    except Exists:
        return


async def _listen(machine: Machine, pod: Sandbox) -> None:
    """Starts a pod's echo process, and waits until it listens."""
    process = machine.process(pod.process)
    process.log.unlink(missing_ok=True)
    program = ("env", "-C", str(PACKAGES), sys.executable, "-S", "-E", "-m", "calipy.lab.echo")
    await machine.spawn(pod.process, ["ip", "netns", "exec", pod.netns, *program, *map(str, pod.listens)])

    async def listens() -> bool | str:
        said = process.log.read_text(errors="replace").strip()
        return said.startswith(echo.LISTENS) or said

    await eventually(listens, f"pod {pod}: its echo process")


async def _report_running(store: Store, pod: Sandbox) -> None:
    """What a kubelet writes into the Pod's status."""
    status = PodStatus(
        phase="Running", pod_ip=pod.addresses[0], pod_ips=tuple(PodAddress(ip=address) for address in pod.addresses)
    )
    for _ in range(_ATTEMPTS):
        stored = await store.get(pods.KIND, pod.name, pod.namespace)
        try:
            await store.update(pods.KIND, stored, structs.replace(stored.value, status=status))
        except Conflict:
            continue
        return
    raise Conflict(f"Pod/{pod} changed {_ATTEMPTS} times while its status was to be written; try again")


async def _take_back(lab: Lab, store: Store, pod: Sandbox, failure: BaseException) -> None:
    """After a failed ADD, as containerd does it. What can't be undone now stays remembered for `pod delete`."""
    try:
        await delete(lab, store, pod)
    except (CniFailure, MachineError, StoreError, Failure) as further:
        remedy = f"when its cause is gone: calipy lab pod delete {pod}"
        left = Failure(f"pod {pod}", f"is left half made: {further}", remedy)
        raise BaseExceptionGroup(f"pod {pod}", [failure, left]) from failure


async def _has_netns(machine: Machine, pod: Sandbox) -> bool:
    return not (await machine.run("test", "-e", pod.netns_path, check=False)).status


async def _forget(lab: Lab, store: Store, pod: Sandbox) -> None:
    for _ in range(_ATTEMPTS):
        try:
            await store.delete(pods.KIND, await store.get(pods.KIND, pod.name, pod.namespace))
        except Conflict:
            continue
        except NotFound:
            break
        break
    _place(lab, pod).unlink(missing_ok=True)


def _place(lab: Lab, pod: Sandbox) -> Path:
    return lab.folder / pod.node / "pods" / pod.netns


def _remember(lab: Lab, pod: Sandbox) -> None:
    place = _place(lab, pod)
    place.parent.mkdir(exist_ok=True)
    new = place.with_name(f".{place.name}")
    new.write_bytes(msgspec.json.encode(pod))
    new.replace(place)
