"""What this node has given out and not wholly taken back: one small file an attachment, under the state folder.

The record is written before an address is drawn and goes when the last trace of the attachment is gone. So an agent
that was killed half-way through ADD knows what to take back, one that could not reach the store in DEL knows what it
still has to release, and GC knows what there is. Only a record that must outlive a power cut is synced: after one, no
link is left, and the runtime asks for each container's DEL or GC.
"""

from __future__ import annotations

import asyncio
import contextlib
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
        """`thread` does what waits for the disk. The folder is made where it is missing."""
        self._folder = folder
        self._thread = thread
        self._known: dict[str, Attachment] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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
            os.unlink(self._folder / attachment.key)
        self._known.pop(attachment.key, None)

    def _load(self, path: Path) -> None:
        try:
            attachment = msgspec.json.decode(path.read_bytes(), type=Attachment)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("record %s can't be read (%s): its container's DEL or GC will release what it had", path, error)
            return
        self._known[attachment.key] = attachment

    def _write(self, attachment: Attachment, *, durable: bool) -> None:
        new = self._folder / f".{attachment.key}"
        try:
            with open(new, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(msgspec.json.encode(attachment))
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(new, self._folder / attachment.key)
            if durable:
                _sync(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(new)
            message = f"record {self._folder / attachment.key} can't be written: {error.strerror}"
            raise CniError(Code.IO_FAILURE, message, "make room or mend that file system, then try again") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leaving(attachment: Attachment) -> Attachment:
    """The release record of an attachment."""
    return structs.replace(attachment, state="leaving")
