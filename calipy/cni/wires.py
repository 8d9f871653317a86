"""A pod's veth pair and what lies in its namespace, made, looked at and taken away.

Building is three sends to the kernel, half a millisecond, done on the event loop with nothing awaited inside: the pair,
the pod's end, the host's end. The host's comes last, so that it has its carrier at once and is told of once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from calipy.cni import wiring as plans
from calipy.cni.deletions import Deletions
from calipy.cni.differences import Observed
from calipy.cni.errors import CniError, Code
from calipy.cni.wiring import PodRoute, Sysctl, Wiring
from calipy.netlink import rtnetlink as rt
from calipy.netlink.messages import Message
from calipy.netlink.rtnetlink import Link
from calipy.netlink.socket import ROUTE, NetlinkSocket, inside

_GET_INDEX, _GET_MAC = 0x8933, 0x8927
"""SIOCGIFINDEX, SIOCGIFHWADDR (netdevice(7)): a microsecond each, where a link with all that it has takes thirty."""
_IFREQ = struct.Struct("=16si20x")
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


class Connected(Struct, frozen=True, gc=False):
    """A pair that was made: the host end's index, the pod end's MAC."""

    index: int
    mac: str


class Wires:
    """The kernel's side of pods' links, in the network namespace in which this is made."""

    def __init__(self, sysctls: Path) -> None:
        """`sysctls` is /proc/sys/net or where it can be written."""
        self._sysctls = sysctls
        self._socket = NetlinkSocket.open(ROUTE)
        self._deletions = Deletions()

    def close(self) -> None:
        """Lets go of sockets and threads."""
        self._socket.close()
        self._deletions.close()

    @property
    def ports(self) -> frozenset[int]:
        """The netlink ports that the kernel names as the origin of what is done here on the node."""
        return self._deletions.ports | {self._socket.port}

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
        return _link(self._socket, name) if _index(self._socket, name) is not None else None

    async def connect(self, wiring: Wiring, namespace: int) -> Connected:
        """Makes the pair and all that belongs to it. Raises CniError 102 with nothing left behind."""
        where = f"link {wiring.interface}"
        peer = f"its other end {wiring.pod_interface} in the container"
        _demand(self._socket, [plans.create(wiring, namespace)], f"{where}, {peer}: can't be made")
        index = _index(self._socket, wiring.interface)
        if index is None:
            raise CniError(Code.KERNEL_REFUSED, f"{where} vanished while it was made", "somebody deletes it; try again")
        try:
            _write(self._sysctls, plans.host_sysctls(wiring))
            with self._pod_socket(wiring, namespace) as pod:
                inner, mac = _set_up_pod(pod, wiring)
                messages = (*plans.host_settings(wiring, index), *plans.host_rise(wiring, index))
                _demand(self._socket, (*messages, *plans.host_neighbours(wiring, index, mac)), where)
                # The pod's end was up without a carrier: until the kernel's link watch has seen that it has one, it
                # drops what it should send. To be asked for the link makes it look (Linux 6.8 and later).
                _demand(pod, [rt.get_link(inner)], f"{where}, {peer}")
            return Connected(index, mac)
        except BaseException:
            await self.remove(index)
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
        """Deletes a link by index; fine where it is gone. Raises CniError 102."""
        await self._deletions.remove(index)

    def _pod_socket(self, wiring: Wiring, namespace: int) -> NetlinkSocket:
        """A socket in the pod's namespace, whose own settings are made."""
        with inside(namespace):
            _write(self._sysctls, plans.pod_sysctls(wiring))
            return NetlinkSocket.open(ROUTE)


def _set_up_pod(pod: NetlinkSocket, wiring: Wiring) -> tuple[int, str]:
    """Gives the pod end's index and MAC."""
    where = f"link {wiring.pod_interface} in the container"
    index, mac = _index(pod, wiring.pod_interface), _mac(pod, wiring.pod_interface)
    if index is None or mac is None:
        raise CniError(Code.KERNEL_REFUSED, f"{where} vanished while it was made", "is the namespace dying?")
    _demand(pod, plans.pod_settings(wiring, index), where)
    return index, mac


def _wrong_namespace(name: str, reason: str) -> CniError:
    message = f"environment variable CNI_NETNS is {name!r}: {reason}"
    return CniError(Code.INVALID_ENVIRONMENT, message, "pass the path of the container's network namespace")


def _demand(socket: NetlinkSocket, messages: Sequence[Message], where: str) -> None:
    refusals = socket.request(messages)
    if refusals:
        first = refusals[0]
        raise CniError(Code.KERNEL_REFUSED, f"{where}: the kernel says {first.text} (errno {first.errno})")


def _index(socket: NetlinkSocket, name: str) -> int | None:
    """A link's index; None where there is none of that name."""
    found = _ask(socket, _GET_INDEX, name)
    return int(_IFREQ.unpack(found)[1]) if found is not None else None


def _mac(socket: NetlinkSocket, name: str) -> str | None:
    found = _ask(socket, _GET_MAC, name)
    return found[18:24].hex(":") if found is not None else None


def _ask(socket: NetlinkSocket, question: int, name: str) -> bytes | None:
    try:
        return fcntl.ioctl(socket.fileno(), question, _IFREQ.pack(name.encode(), 0))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _link(socket: NetlinkSocket, name: str) -> Link | None:
    try:
        return rt.parse_link(socket.get(rt.get_link(name)))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _write(root: Path, settings: Iterable[Sysctl]) -> None:
    for setting in settings:
        path = f"{root}/{setting.path}"
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
