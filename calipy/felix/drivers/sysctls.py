"""Settings below /proc/sys/net that belong to the node as a whole. Those of a pod's link are CNI's.

What nobody wants any more is left as it is: another program may count on it by now.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from calipy.felix.objects import ObjectName, Op, Outcome, Owner, Put, Refusal
from calipy.felix.plans import SYSCTLS, SYSCTLS_LEFTOVER, Sysctl
from calipy.netlink import rtnetlink
from calipy.netlink.socket import NetlinkSocket, inside

_FORWARDING_V6 = "ipv6/conf/all/forwarding"


class SysctlsDriver:
    """Reads and writes settings; implements `objects.Driver`."""

    name = "sysctls"
    transactional = False

    def __init__(self, socket: NetlinkSocket, folder: Path, namespace: int | None = None) -> None:
        """`folder` is /proc/sys/net or where it can be written; `namespace` is a descriptor, None = this one."""
        self._socket = socket
        self._folder = folder
        self._namespace = namespace
        self._absent: dict[ObjectName, bytes] = {}
        """Optional ones that this kernel doesn't have, with what was asked for: that counts as done."""

    def fingerprint(self, value: Struct) -> bytes:
        """Of a Sysctl's value."""
        assert isinstance(value, Sysctl)
        return value.value.encode()

    def leftover(self, name: ObjectName) -> Owner:
        """A setting that nobody wants stays."""
        return SYSCTLS_LEFTOVER

    def order(self, kind: str, gone: bool) -> int:
        """No difference is made."""
        return 0

    def weight(self, op: Op) -> int:
        """Each is one message or a few."""
        return 1

    def read(self) -> Iterator[Mapping[ObjectName, bytes] | None]:
        """Those that there are of all that might ever be wanted."""
        found = dict(self._absent)
        with self._inside():
            for path in SYSCTLS:
                with contextlib.suppress(FileNotFoundError):
                    found[ObjectName("sysctl", path)] = (self._folder / path).read_text().strip().encode()
        yield found

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        """Writes each for itself."""
        refusals: list[Refusal] = []
        with self._inside():
            for op in ops:
                if isinstance(op, Put):
                    assert isinstance(op.value, Sysctl)
                    refusals += self._write(op.name, op.value)
        return Outcome(refusals=tuple(refusals))

    def _write(self, name: ObjectName, wanted: Sysctl) -> Iterator[Refusal]:
        path = self._folder / name.name
        try:
            if name.name == _FORWARDING_V6 and wanted.value == "1":
                self._keep_advertised_routes()
            path.write_text(wanted.value)
        except FileNotFoundError as error:
            if not wanted.optional:
                yield Refusal(name, errno.ENOENT, f"{path}: {error.strerror}")
            else:
                self._absent[name] = self.fingerprint(wanted)
        except OSError as error:
            remedy = "is that file system mounted writable?" if error.errno in (errno.EROFS, errno.EACCES) else ""
            yield Refusal(name, error.errno or 0, f"{path}: {error.strerror}; {remedy}".removesuffix("; "))

    def _keep_advertised_routes(self) -> None:
        """A kernel that forwards IPv6 forgets the default routes that routers advertised, and hears of no new ones,
        unless the link's accept_ra is 2 before (Documentation/networking/ip-sysctl)."""
        for body in self._socket.dump(rtnetlink.dump_routes(6)):
            route = rtnetlink.parse_route(body)
            if route.protocol != rtnetlink.PROTOCOL_ADVERTISED or route.destination != "::/0":
                continue
            for index in {hop.device for hop in route.next_hops} | {route.device}:
                if index:
                    self._accept_advertisements(index)

    def _accept_advertisements(self, index: int) -> None:
        link = rtnetlink.parse_link(self._socket.get(rtnetlink.get_link(index)))
        path = self._folder / "ipv6/conf" / link.name / "accept_ra"
        if path.read_text().strip() == "1":
            path.write_text("2")

    def _inside(self) -> contextlib.AbstractContextManager[None]:
        return inside(self._namespace) if self._namespace is not None else contextlib.nullcontext()
