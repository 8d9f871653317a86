"""A pod's veth pair and what lies in its namespace, made, looked at and taken away.

Building is a handful of netlink messages, about a millisecond, done on the event loop with nothing awaited inside.
Deleting waits for an RCU grace period in the kernel: it is done on the kernel thread, and what waits at the same time
goes as one group.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from msgspec import Struct

from calipy.cni import wiring as plans
from calipy.cni.differences import Observed
from calipy.cni.errors import CniError, Code
from calipy.cni.wiring import PodRoute, Sysctl, Wiring
from calipy.netlink import rtnetlink as rt
from calipy.netlink.messages import Message
from calipy.netlink.rtnetlink import Link
from calipy.netlink.socket import ROUTE, NetlinkSocket, inside

DOOMED_GROUP = 0x63616C69
"""The link group (IFLA_GROUP) of those about to be deleted together."""
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


class Connected(Struct, frozen=True, gc=False):
    """A pair that was made: the host end's index, the pod end's MAC."""

    index: int
    mac: str


class Wires:
    """The kernel's side of pods' links, in the network namespace in which this is made."""

    def __init__(self, sysctls: Path, thread: Executor) -> None:
        """`sysctls` is /proc/sys/net or where it can be written; `thread` is the kernel thread."""
        self._sysctls = sysctls
        self._thread = thread
        self._socket = NetlinkSocket.open(ROUTE)
        self._deleting_socket = NetlinkSocket.open(ROUTE)
        self._turn = asyncio.Lock()
        self._doomed: dict[int, asyncio.Future[None]] = {}

    def close(self) -> None:
        """Lets go of the sockets."""
        self._socket.close()
        self._deleting_socket.close()

    @property
    def ports(self) -> frozenset[int]:
        """The netlink ports that the kernel names as the origin of what is done here on the node."""
        return frozenset({self._socket.port, self._deleting_socket.port})

    def judge(self, namespace: int | None, name: str) -> int:
        """The descriptor, if it is a network namespace other than this one; raises CniError 4 otherwise. `name` is
        CNI_NETNS."""
        if namespace is None:
            raise _wrong_namespace(name, "nothing can be opened there")
        try:
            kind = fcntl.ioctl(namespace, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != _CLONE_NEWNET:
            raise _wrong_namespace(name, "that is no network namespace")
        own, other = os.stat("/proc/thread-self/ns/net"), os.fstat(namespace)
        if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino):
            raise _wrong_namespace(name, "that is the node's own; a container on the host's network needs no plug-in")
        return namespace

    def find(self, name: str) -> Link | None:
        """The link of that name on the node."""
        return _link(self._socket, name)

    async def connect(self, wiring: Wiring, namespace: int) -> Connected:
        """Makes the pair and all that belongs to it. Raises CniError 102 with nothing left behind."""
        where = f"link {wiring.interface}"
        peer = f"its other end {wiring.pod_interface} in the container"
        _demand(self._socket, [plans.create(wiring, namespace)], f"{where}, {peer}: can't be made")
        link = self.find(wiring.interface)
        if link is None:
            raise CniError(Code.KERNEL_REFUSED, f"{where} vanished while it was made", "somebody deletes it; try again")
        try:
            self._set_up_host(wiring, link.index, where)
            mac = self._set_up_pod(wiring, namespace)
            _demand(self._socket, plans.host_neighbours(wiring, link.index, mac), where)
            return Connected(link.index, mac)
        except BaseException:
            await self.remove(link.index)
            raise

    def observe(self, wiring: Wiring, namespace: int) -> Observed:
        """What the kernel has of it."""
        host = self.find(wiring.interface)
        host_sysctls = _read(self._sysctls, plans.host_checks(wiring))
        with NetlinkSocket.open(ROUTE, namespace=namespace) as pod:
            link = _link(pod, wiring.pod_interface)
            with inside(namespace):
                pod_sysctls = _read(self._sysctls, plans.pod_sysctls(wiring))
            return Observed(
                host=host,
                pod=link,
                addresses=_addresses(pod, link.index) if link else (),
                routes=_routes(pod, link.index, wiring.families) if link else (),
                neighbours=_neighbours(pod, link.index, wiring.families) if link else {},
                sysctls={**host_sysctls, **pod_sysctls},
                host_routes=dict(_host_routes(self._socket, wiring.addresses)),
            )

    async def remove(self, index: int) -> None:
        """Deletes a link by index; fine where it is gone. Those that wait at the same time go together. Raises
        CniError 102."""
        future = self._doomed.get(index)
        if future is None:
            future = self._doomed[index] = asyncio.get_running_loop().create_future()
        async with self._turn:
            if not future.done():
                await self._remove_all()
        await future

    async def _remove_all(self) -> None:
        doomed, self._doomed = self._doomed, {}
        loop = asyncio.get_running_loop()
        try:
            refusal = await loop.run_in_executor(self._thread, _delete, self._deleting_socket, tuple(doomed))
        except BaseException:
            # Cancelled, the thread goes on, but nobody hears the end of it: the next in turn asks again.
            self._doomed = {**doomed, **self._doomed}
            raise
        for future in doomed.values():
            if refusal:
                future.set_exception(CniError(Code.KERNEL_REFUSED, f"links can't be deleted: {refusal}", "try again"))
                future.exception()
            else:
                future.set_result(None)

    def _set_up_host(self, wiring: Wiring, index: int, where: str) -> None:
        _demand(self._socket, plans.host_settings(wiring, index), where)
        _write(self._sysctls, plans.host_sysctls(wiring))
        _demand(self._socket, plans.host_rise(wiring, index), where)

    def _set_up_pod(self, wiring: Wiring, namespace: int) -> str:
        with inside(namespace):
            _write(self._sysctls, plans.pod_sysctls(wiring))
            socket = NetlinkSocket.open(ROUTE)
        with socket:
            link = _link(socket, wiring.pod_interface)
            where = f"link {wiring.pod_interface} in the container"
            if link is None:
                raise CniError(Code.KERNEL_REFUSED, f"{where} vanished while it was made", "is the namespace dying?")
            _demand(socket, plans.pod_settings(wiring, link.index), where)
            return link.mac


def _wrong_namespace(name: str, reason: str) -> CniError:
    message = f"environment variable CNI_NETNS is {name!r}: {reason}"
    return CniError(Code.INVALID_ENVIRONMENT, message, "pass the path of the container's network namespace")


def _delete(socket: NetlinkSocket, indices: Sequence[int]) -> str:
    """On the kernel thread: deletes links, the refusal or nothing."""
    if len(indices) == 1:
        refusals = socket.request([rt.delete_link(indices[0])])
    else:
        grouped = socket.request([rt.set_link(index, group=DOOMED_GROUP) for index in indices])
        last = socket.request([rt.delete_group(DOOMED_GROUP)]) if len(grouped) < len(indices) else ()
        refusals = (*grouped, *last)
    return next((refusal.text for refusal in refusals if refusal.errno != errno.ENODEV), "")


def _demand(socket: NetlinkSocket, messages: Sequence[Message], where: str) -> None:
    refusals = socket.request(messages)
    if refusals:
        first = refusals[0]
        raise CniError(Code.KERNEL_REFUSED, f"{where}: the kernel says {first.text} (errno {first.errno})")


def _link(socket: NetlinkSocket, name: str) -> Link | None:
    try:
        return rt.parse_link(socket.get(rt.get_link(name)))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _write(root: Path, settings: Iterable[Sysctl]) -> None:
    for setting in settings:
        path = root / setting.path
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(descriptor, setting.value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            if not setting.optional:
                remedy = "is IPv6 on in this kernel, and is that file system writable?"
                raise CniError(Code.KERNEL_REFUSED, f"setting {path}: {error.strerror}", remedy) from error


def _read(root: Path, settings: Iterable[Sysctl]) -> dict[str, str]:
    found: dict[str, str] = {}
    for setting in settings:
        try:
            found[setting.path] = (root / setting.path).read_text().strip()
        except FileNotFoundError:
            continue
    return found


def _addresses(socket: NetlinkSocket, index: int) -> tuple[str, ...]:
    found = map(rt.parse_address, socket.dump(rt.dump_addresses()))
    return tuple(f"{entry.address}/{entry.prefix_length}" for entry in found if entry.index == index)


def _routes(socket: NetlinkSocket, index: int, families: Iterable[int]) -> tuple[PodRoute, ...]:
    found = (rt.parse_route(body) for family in families for body in socket.dump(rt.dump_routes(family)))
    return tuple(PodRoute(route.destination, route.gateway or "") for route in found if route.device == index)


def _neighbours(socket: NetlinkSocket, index: int, families: Iterable[int]) -> dict[str, tuple[str, int]]:
    asked = (rt.dump_neighbours(plans.SOCKET_FAMILIES[family]) for family in families)
    found = (rt.parse_neighbour(body) for message in asked for body in socket.dump(message))
    return {entry.address: (entry.mac or "", entry.state) for entry in found if entry.index == index and entry.address}


def _host_routes(socket: NetlinkSocket, addresses: Iterable[str]) -> Iterable[tuple[str, tuple[str, int]]]:
    for address in addresses:
        try:
            route = rt.parse_route(socket.get(plans.route_question(address)))
        except OSError:
            continue  # ENETUNREACH, or a blackhole's EINVAL: no route of the pod's
        yield address, (route.destination, route.device or 0)
