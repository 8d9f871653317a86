"""What this node has given out and not wholly taken back: one small file an attachment, under the state folder.

The record is written before an address is drawn and goes when the last trace of the attachment is gone. So an agent
that was killed half-way through ADD knows what to take back, one that could not reach the store in DEL knows what it
still has to release, and GC knows what there is. Only a record that must outlive a power cut is synced: after one, no
link is left, and the runtime asks for each container's DEL or GC.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, structs

from calipy.cni.errors import CniError, Code
from calipy.cni.inputs import AttachmentName
from calipy.model.endpoints import WorkloadEndpoint

log = logging.getLogger("calipy.cni.attachments")

_ROOM, _PAGE = 1024, 4096
_SPARES_MOST = 64
State = Literal["adding", "attached", "leaving"]


class Attachment(Struct, frozen=True, gc=False, kw_only=True):
    """One container's interface on one network."""

    network: str
    container_id: str
    interface: str
    """CNI_IFNAME: its name in the container."""
    state: State
    endpoint: WorkloadEndpoint | None = None
    """None where only the container's ID is known (a DEL without an ADD)."""
    blocks: tuple[str, ...] = ()
    """The block of each of the endpoint's addresses."""
    mtu: int = 0

    @property
    def handle(self) -> str:
        """The IPAM handle, Calico's: all addresses of a container on a network."""
        return f"{self.network}.{self.container_id}"

    @property
    def name(self) -> AttachmentName:
        """How GC's list names it."""
        return AttachmentName(self.container_id, self.interface)

    @property
    def key(self) -> str:
        """Its file's name: `@` is in no network's name and no container's ID."""
        return f"{self.network}@{self.container_id}@{self.interface}"


class Attachments:
    """The records, in memory and on disk."""

    def __init__(self, folder: Path, thread: Executor) -> None:
        """`thread` does what waits for the disk. The folder is made where it is missing, and one beside it, with
        `-spare` to its name, for files that were records."""
        self._folder = folder
        self._thread = thread
        self._known: dict[str, Attachment] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._spares = _Spares(folder.with_name(f"{folder.name}-spare"))
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                self._load(path)

    def __iter__(self) -> Iterator[Attachment]:
        return iter(tuple(self._known.values()))

    def get(self, network: str, container_id: str, interface: str) -> Attachment | None:
        """The record of an attachment."""
        return self._known.get(f"{network}@{container_id}@{interface}")

    def of_container(self, container_id: str) -> tuple[Attachment, ...]:
        """All records of a container, whatever the network."""
        return tuple(entry for entry in self._known.values() if entry.container_id == container_id)

    def put(self, attachment: Attachment) -> None:
        """Writes a record so that it outlives this process. Raises CniError 5."""
        self._write(attachment, durable=False)
        self._known[attachment.key] = attachment

    async def put_durably(self, attachment: Attachment) -> None:
        """Writes a record so that it outlives a power cut. Raises CniError 5."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._thread, lambda: self._write(attachment, durable=True))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The thread goes on: whoever comes next must not remove the record before it is written.
            await asyncio.wait([writing])
            if writing.exception() is None:
                self._known[attachment.key] = attachment
            raise
        self._known[attachment.key] = attachment

    def remove(self, attachment: Attachment) -> None:
        """Forgets an attachment; fine where there is no record."""
        with contextlib.suppress(FileNotFoundError):
            self._spares.take_in(self._path(attachment.key))
        self._known.pop(attachment.key, None)

    def _load(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            if not data:  # its writer was killed before the first word: nothing had been drawn
                path.unlink()
                return
            attachment = msgspec.json.decode(data, type=Attachment)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("record %s can't be read (%s): its container's DEL or GC will release what it had", path, error)
            return
        if attachment.key != path.name:
            log.error("record %s is %s's, from before a power cut: it is removed", path, attachment.key)
            path.unlink()
            return
        self._known[attachment.key] = attachment

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}"

    def _write(self, attachment: Attachment, *, durable: bool) -> None:
        path = self._path(attachment.key)
        data = _padded(msgspec.json.encode(attachment))
        try:
            if durable or not (self._written_new(attachment.key, data) or _written_in_place(path, data)):
                self._replace(attachment.key, data, durable=durable)
        except OSError as error:
            message = f"record {path} can't be written: {error.strerror}"
            raise CniError(Code.IO_FAILURE, message, "make room or mend that file system, then try again") from error

    def _written_new(self, key: str, data: bytes) -> bool:
        return key not in self._known and self._spares.give_out(self._path(key), data)

    def _replace(self, key: str, data: bytes, *, durable: bool) -> None:
        new, path = self._path(f".{key}"), self._path(key)
        try:
            with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(new, path)
            if durable:
                _sync(self._folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise


class _Spares:
    """Files that were records, for new ones: ext4 takes 0.2 ms to make a file where others were deleted in the last
    seconds, and a tenth of that to rename one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._paths = [str(path) for path in folder.iterdir()]
        self._number = max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)

    def take_in(self, path: str) -> None:
        """Removes a record: its file is kept, or deleted where there are enough. Raises FileNotFoundError."""
        if len(self._paths) < _SPARES_MOST:
            self._number += 1
            spare = f"{self._folder}/{self._number}"
            with contextlib.suppress(OSError):  # there is no room for the new name, or no folder any more
                os.rename(path, spare)
                self._paths.append(spare)
                return
        os.unlink(path)

    def give_out(self, path: str, data: bytes) -> bool:
        """Writes a new record with a spare file, whole or not at all; False where there is none."""
        while self._paths:
            spare = self._paths.pop()
            try:
                _refill(spare, data)
                os.rename(spare, path)
            except FileNotFoundError:  # somebody has tidied up
                continue
            except OSError:
                self._paths.append(spare)
                raise
            return True
        return False


def _refill(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.pwrite(descriptor, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if os.fstat(descriptor).st_size > len(data):
            os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _padded(data: bytes) -> bytes:
    """A record's file has room for what comes to it on its way from `adding` to `leaving`."""
    return data.ljust(-(-len(data) // _ROOM) * _ROOM)


def _written_in_place(path: str, data: bytes) -> bool:
    """Writes a new record, or over one of the same size, where it fits one page: that is whole or not at all, whoever
    is killed, and needs no room on the disk that the file doesn't have. (A rename over a file makes ext4 write its data
    to the disk, which costs a millisecond or two.)"""
    if len(data) > _PAGE:
        return False
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        former = os.fstat(descriptor).st_size
        if former not in (0, len(data)):
            return False
        try:
            return os.pwrite(descriptor, data, 0) == len(data)
        except OSError:
            if not former:
                os.unlink(path)
            raise
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leaving(attachment: Attachment) -> Attachment:
    """The release record of an attachment."""
    return structs.replace(attachment, state="leaving")
