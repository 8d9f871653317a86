"""VXLAN devices and what makes them work: address, permanent neighbours, forwarding entries."""

from __future__ import annotations

import errno
from collections.abc import Container, Generator, Iterator, Mapping
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from calipy.felix.drivers.offloads import Offloads
from calipy.felix.ledger import LEFTOVER
from calipy.felix.objects import ObjectName, Op, Outcome, Owner, Put, Refusal, fingerprint
from calipy.felix.plans import DeviceAddress, ForwardingEntry, TunnelNeighbour, VxlanDevice
from calipy.netlink import rtnetlink
from calipy.netlink.messages import Message
from calipy.netlink.socket import NetlinkSocket

DEVICES = ("vxlan.calico", "vxlan-v6.calico")
_GONE = frozenset({errno.ESRCH, errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL})
_RANKS = {"device": 0, "address": 1, "neighbour": 2, "forwarding": 3}
_SLICE = 200
"""Answers between two points at which a reading may pause."""
_BROADCAST_MAC = "00:00:00:00:00:00"


class LinksDriver:
    """Reads and writes tunnel devices; implements `objects.Driver`."""

    name = "links"
    transactional = False

    def __init__(self, socket: NetlinkSocket, namespace: int | None = None) -> None:
        """`namespace` is the descriptor of the socket's network namespace, None = this one."""
        self._socket = socket
        self._offloads = Offloads(namespace)
        self._deleted: set[int] = set()
        self._indices: dict[str, int] = {}
        self._devices: dict[str, VxlanDevice] = {}
        self._entries: dict[str, dict[ObjectName, Struct]] = {}
        """What hangs on a device, by its name: it goes with it."""

    def close(self) -> None:
        """Lets go of what it opened itself."""
        self._offloads.close()

    def fingerprint(self, value: Struct) -> bytes:
        """Of any of the values in `plans` that belong to tunnels."""
        return fingerprint(value)

    def leftover(self, name: ObjectName) -> Owner:
        """No difference is made."""
        return LEFTOVER

    def order(self, kind: str, gone: bool) -> int:
        """Devices come first and go last."""
        rank = _RANKS[kind]
        return -rank - 1 if gone else rank

    def weight(self, op: Op) -> int:
        """Each is one message or a few."""
        return 1

    def read(self) -> Iterator[Mapping[ObjectName, bytes] | None]:
        """The devices of ours and all that hangs on them."""
        found: dict[ObjectName, Struct] = {}
        names: dict[int, str] = {}
        links: list[rtnetlink.Link] = []
        for count, body in enumerate((yield from self._dump(rtnetlink.dump_links()))):
            links.append(rtnetlink.parse_link(body))
            if count % _SLICE == _SLICE - 1:
                yield None
        by_index = {link.index: link.name for link in links}
        for link in links:
            if link.name in DEVICES and link.vxlan is not None:
                names[link.index] = link.name
                parent = by_index.get(link.vxlan.device or 0, "")
                found[ObjectName("device", link.name)] = self._device(link, link.vxlan, parent)
        yield None
        if names:
            yield from self._read_addresses(names, found)
            yield from self._read_neighbours(names, found)
        prints: dict[ObjectName, bytes] = {}
        entries: dict[str, dict[ObjectName, Struct]] = {}
        for count, (name, value) in enumerate(found.items()):
            prints[name] = fingerprint(value)
            if name.kind != "device":
                entries.setdefault(name.name.partition(" ")[0], {})[name] = value
            if count % _SLICE == _SLICE - 1:
                yield None
        self._devices = {name.name: value for name, value in found.items() if isinstance(value, VxlanDevice)}
        self._entries = entries
        yield prints

    def _remember(self, name: ObjectName, value: Struct | None) -> None:
        device = name.name.partition(" ")[0]
        if isinstance(value, VxlanDevice):
            self._devices[device] = value
        elif name.kind == "device":
            self._devices.pop(device, None)
        elif value is not None:
            self._entries.setdefault(device, {})[name] = value
        else:
            self._entries.get(device, {}).pop(name, None)

    @property
    def deleted(self) -> Container[int]:
        """Indices of devices that this driver has deleted."""
        return self._deleted

    def looks(self, device: str, mtu: int, mac: str, up: bool) -> bool:
        """True if the device, as last read or written, looks so."""
        found = self._devices.get(device)
        return found is not None and (found.mtu, found.mac, found.up) == (mtu, mac, up)

    def forwards(self, device: str, mac: str, remote: str) -> bool:
        """True if the device, as last read or written, has that forwarding entry."""
        name = ObjectName("forwarding", f"{device} {mac}")
        entry = ForwardingEntry(device=device, mac=mac, remote=remote)
        return self._entries.get(device, {}).get(name) == entry

    def _device(self, link: rtnetlink.Link, vxlan: rtnetlink.Vxlan, parent: str) -> VxlanDevice:
        return VxlanDevice(
            vni=vxlan.vni,
            port=vxlan.port,
            local=vxlan.local or "",
            parent=parent,
            mac=link.mac or "",
            mtu=link.mtu,
            learning=vxlan.learning,
            group=vxlan.group or "",
            offload=self._offloads.get(link.name),
            up=link.up,
        )

    def _dump(self, message: Message) -> Generator[None, None, list[memoryview]]:
        bodies: list[memoryview] = []
        for step in self._socket.dump_slices(message):
            bodies = step or bodies
            yield
        return bodies

    def _read_addresses(self, names: Mapping[int, str], found: dict[ObjectName, Struct]) -> Iterator[None]:
        for count, body in enumerate((yield from self._dump(rtnetlink.dump_addresses()))):
            if count % _SLICE == _SLICE - 1:
                yield
            address = rtnetlink.parse_address(body)
            if address.index in names and not address.address.startswith("fe80:"):
                device = names[address.index]
                value = DeviceAddress(device=device, address=address.address)
                found[ObjectName("address", f"{device} {address.address}")] = value

    def _read_neighbours(self, names: Mapping[int, str], found: dict[ObjectName, Struct]) -> Iterator[None]:
        for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6, rtnetlink.AF_BRIDGE):
            for count, body in enumerate((yield from self._dump(rtnetlink.dump_neighbours(family)))):
                if count % _SLICE == _SLICE - 1:
                    yield
                entry = rtnetlink.parse_neighbour(body)
                if entry.index not in names or not entry.state & rtnetlink.NUD_PERMANENT or not entry.mac:
                    continue
                device = names[entry.index]
                if family != rtnetlink.AF_BRIDGE:
                    value: Struct = TunnelNeighbour(device=device, address=entry.address or "", mac=entry.mac)
                    found[ObjectName("neighbour", f"{device} {entry.address}")] = value
                elif entry.address and entry.mac != _BROADCAST_MAC:
                    value = ForwardingEntry(device=device, mac=entry.mac, remote=entry.address)
                    found[ObjectName("forwarding", f"{device} {entry.mac}")] = value

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        """Writes devices one by one, and what hangs on them in between together."""
        refusals: list[Refusal] = []
        vanished: list[ObjectName] = []
        for devices, group in groupby(ops, key=lambda op: op.name.kind == "device"):
            if not devices:
                refusals += self._write_entries(tuple(group))
                continue
            for op in group:
                self._indices = {}
                found = self._perform(op)
                refusals += found
                if not found:
                    vanished += self._lost_entries(op) if isinstance(op, Put) else ()
                    self._remember(op.name, op.value if isinstance(op, Put) else None)
        return Outcome(refusals=tuple(refusals), vanished=tuple(vanished))

    def _write_entries(self, ops: tuple[Op, ...]) -> list[Refusal]:
        messages: list[Message] = []
        sent: list[Op] = []
        refusals: list[Refusal] = []
        self._indices = {}
        for op in ops:
            try:
                messages += self._messages(op)
                sent.append(op)
            except OSError as error:
                if isinstance(op, Put):
                    refusals.append(Refusal(op.name, error.errno or 0, error.strerror or str(error)))
        for answer in self._socket.request(messages):
            op = sent[answer.index]
            if isinstance(op, Put) or answer.errno not in _GONE:
                refusals.append(Refusal(op.name, answer.errno, answer.text))
        refused = {refusal.name for refusal in refusals}
        for op in sent:
            if op.name not in refused:
                self._remember(op.name, op.value if isinstance(op, Put) else None)
        return refusals

    def _perform(self, op: Op) -> list[Refusal]:
        try:
            messages = list(self._messages(op))
        except OSError as error:
            if not isinstance(op, Put):
                return []
            return [Refusal(op.name, error.errno or 0, error.strerror or str(error))]
        return [
            Refusal(op.name, refusal.errno, refusal.text)
            for refusal in self._socket.request(messages)
            if isinstance(op, Put) or refusal.errno not in _GONE
        ] or list(self._set_offload(op))

    def _set_offload(self, op: Op) -> Iterator[Refusal]:
        if isinstance(op, Put) and isinstance(op.value, VxlanDevice):
            try:
                if self._offloads.get(op.name.name) != op.value.offload:
                    self._offloads.set(op.name.name, op.value.offload)
            except OSError as error:
                yield Refusal(op.name, error.errno or 0, f"checksum offload: {error.strerror}")

    def _lost_entries(self, op: Put) -> list[ObjectName]:
        """A new device has none; a new MAC costs the neighbours."""
        entries = self._entries.get(op.name.name, {})
        there = self._devices.get(op.name.name)
        if self._fits(op) and there is not None and isinstance(op.value, VxlanDevice) and there.mac == op.value.mac:
            return []
        lost = [name for name in entries if name.kind == "neighbour" or not self._fits(op)]
        for name in lost:
            del entries[name]
        return lost

    def _fits(self, op: Put) -> bool:
        """True if the device that is there only needs another MAC or MTU, or to be set up."""
        there, wanted = self._devices.get(op.name.name), op.value
        if not op.replaces or there is None or not isinstance(wanted, VxlanDevice):
            return False
        return replace(there, mac=wanted.mac, mtu=wanted.mtu, offload=wanted.offload, up=wanted.up) == wanted

    def _messages(self, op: Op) -> Iterator[Message]:
        if isinstance(op, Put):
            match op.value:
                case VxlanDevice() as device if self._fits(op):
                    index, there = self._index(op.name.name), self._devices[op.name.name]
                    mac = device.mac if device.mac != there.mac else None
                    yield rtnetlink.set_link(index, mac=mac, mtu=device.mtu, up=True)
                case VxlanDevice() as device:
                    if op.replaces:
                        yield self._delete(op.name.name)
                    yield rtnetlink.new_vxlan(
                        name=op.name.name,
                        vni=device.vni,
                        port=device.port,
                        local=device.local,
                        device=self._index(device.parent),
                        mac=device.mac,
                        mtu=device.mtu,
                    )
                case value:
                    yield self._entry(value, delete=False)
        elif op.name.kind == "device":
            yield self._delete(op.name.name)
        else:
            yield self._entry(_entry_of(op.name), delete=True)

    def _delete(self, name: str) -> Message:
        index = self._index(name)
        self._deleted.add(index)
        return rtnetlink.delete_link(index)

    def _index(self, name: str) -> int:
        """A link's index, asked for once in a run of entries. Raises OSError where there is none of that name."""
        if name not in self._indices:
            self._indices[name] = rtnetlink.parse_link(self._socket.get(rtnetlink.get_link(name))).index
        return self._indices[name]

    def _entry(self, value: Struct, *, delete: bool) -> Message:
        match value:
            case DeviceAddress(device=device, address=address):
                width = 128 if ":" in address else 32
                found = rtnetlink.Address(
                    index=self._index(device),
                    family=_family(address),
                    address=address,
                    prefix_length=width,
                )
                return rtnetlink.delete_address(found) if delete else rtnetlink.add_address(found)
            case TunnelNeighbour(device=device, address=address, mac=mac):
                entry = rtnetlink.Neighbour(
                    index=self._index(device),
                    family=_family(address),
                    address=address,
                    mac=mac or None,
                    state=rtnetlink.NUD_PERMANENT,
                )
            case ForwardingEntry(device=device, mac=mac, remote=remote):
                entry = rtnetlink.Neighbour(
                    index=self._index(device),
                    family=rtnetlink.AF_BRIDGE,
                    address=remote or None,
                    mac=mac,
                    state=rtnetlink.NUD_PERMANENT,
                    flags=rtnetlink.NTF_SELF,
                )
            case _:
                raise TypeError(f"{value!r} is no part of a tunnel")
        return rtnetlink.delete_neighbour(entry) if delete else rtnetlink.put_neighbour(entry)


def _entry_of(name: ObjectName) -> Struct:
    device, _, rest = name.name.partition(" ")
    match name.kind:
        case "address":
            return DeviceAddress(device=device, address=rest)
        case "neighbour":
            return TunnelNeighbour(device=device, address=rest, mac="")
        case _:
            return ForwardingEntry(device=device, mac=rest, remote="")


def _family(address: str) -> int:
    return rtnetlink.AF_INET6 if ":" in address else rtnetlink.AF_INET
