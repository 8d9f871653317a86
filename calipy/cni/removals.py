"""The way back: DEL, GC, a failed ADD, and what an earlier agent left half done.

There is one, `take_back`, in one order: no packet of the container's passes any more, its link is gone, no flow of its
addresses is tracked, and only then may another have them. Each step is fine with what isn't there.
"""

from __future__ import annotations

import asyncio
import logging

from calipy.cni.attachments import Attachment, leaving
from calipy.cni.errors import CniError
from calipy.cni.inputs import AttachmentName
from calipy.cni.protocol import Request
from calipy.cni.sites import Site, patiently, pod_of
from calipy.datastore.stores import StoreError
from calipy.resources.metadata import Refused

log = logging.getLogger("calipy.cni.removals")


class Removals:
    """Takes attachments back."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.put_off = asyncio.Event()
        """Set when something could not be taken back wholly and is on record."""

    async def delete(self, request: Request) -> None:
        """DEL: detaches a container; done as well where nothing of it is left, or nothing was ever there. With the
        store away it is detached, its release is on record, and the addresses stay taken. Raises CniError."""
        site = self._site
        attachment = site.attachments.get(request.network, request.container_id, request.interface)
        if attachment is None:
            attachment = self._unknown(request)
        interface = site.interface(request.pod, request.container_id)
        if attachment.endpoint is not None:
            interface = attachment.endpoint.interface
        async with site.turn(request.container_id, interface):
            # An ADD may have ended while this waited.
            await self.take_back(site.attachments.get(*_place(attachment)) or attachment)

    async def undo(self, request: Request) -> None:
        """Takes an attachment back whose ADD succeeded without anybody hearing of it; not one that another ADD has
        answered for, before it or since. Raises CniError."""
        attachment = self._site.attachments.get(request.network, request.container_id, request.interface)
        if attachment is not None:
            await self._in_turn(attachment, unless_told=True)

    def _unknown(self, request: Request) -> Attachment:
        """What can be said of an attachment without a record. Of a container that is known by another network or
        interface this one has nothing but, perhaps, addresses."""
        others = self._site.attachments.of_container(request.container_id)
        return Attachment(
            network=request.network,
            container_id=request.container_id,
            interface=request.interface,
            state="leaving",
            endpoint=None if others else self._site.endpoint(request),
        )

    async def take_back(self, attachment: Attachment) -> None:
        """Takes an attachment back; the caller has its turn. Raises CniError and OSError with the record kept, so that
        it can be done again; where the store is away, or what it has can't be read, the release is put off."""
        self._site.told_again.discard(attachment.key)
        self._note(attachment)
        await self._detach(attachment)
        try:
            await self._release(attachment)
        except (StoreError, Refused) as error:
            log.warning("addresses of container %s are released later: %s", attachment.container_id, error)
            await self._site.attachments.put_durably(leaving(attachment))
            self.put_off.set()
            return
        self._site.attachments.remove(attachment)

    def _note(self, attachment: Attachment) -> None:
        """An agent killed from here on leaves no record of an attachment whose addresses another may have by then."""
        if attachment.state != "attached":
            return
        try:
            self._site.attachments.put(leaving(attachment))
        except CniError as error:
            log.warning("container %s is detached without a note of it: %s", attachment.container_id, error)

    async def _detach(self, attachment: Attachment) -> None:
        endpoint = attachment.endpoint
        if endpoint is None:
            return
        removed = self._site.endpoints.remove(endpoint.id, endpoint.container_id)
        await patiently(endpoint.id, removed, "its rules and routes are in the kernel still")
        link = self._site.kernel.find(endpoint.interface)
        # The pod's next sandbox has a link of the same name. One without an alias is a killed agent's, half made.
        if link is not None and link.alias in (endpoint.container_id, "" if attachment.state == "adding" else None):
            await self._site.kernel.remove(link.index)

    async def _release(self, attachment: Attachment) -> None:
        """First the pod's annotation, while no other pod can have the address."""
        site, endpoint = self._site, attachment.endpoint
        known = endpoint.addresses if endpoint else ()
        addresses = known or await site.addresses.addresses_of(attachment.handle)
        if addresses:
            await site.flows.flush(addresses)
        pod = pod_of(attachment)
        if pod is not None:
            await site.pods.blank(pod, attachment.container_id)
        await site.addresses.release(attachment.handle)

    async def collect(self, request: Request, *, dry_run: bool) -> tuple[Attachment, ...]:
        """GC: takes back this network's attachments that aren't in the runtime's list, but none whose ADD is in
        flight; gives those taken back. `dry_run`: only gives them. Raises CniError or OSError for the first that
        can't go, after all others."""
        stale = tuple(entry for entry in self._site.attachments if self._is_stale(entry, request))
        if dry_run:
            return stale
        failures: list[CniError | OSError] = []
        for entry in stale:
            try:
                await self._in_turn(entry)
            except (CniError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return stale

    def _is_stale(self, entry: Attachment, request: Request) -> bool:
        name = AttachmentName(entry.container_id, entry.interface)
        return entry.network == request.network and name not in request.valid and entry.key not in self._site.adding

    async def replay(self) -> int:
        """Takes back what is on record as half made or half gone, and in no ADD's hands; gives how many are left."""
        for entry in self._site.attachments:
            if entry.state != "attached" and entry.key not in self._site.adding:
                try:
                    await self._in_turn(entry)
                except Exception as error:
                    # One container's misfortune is not that of the others, nor the agent's.
                    foreseen = isinstance(error, CniError | OSError)
                    message = "container %s is not wholly taken back: %s"
                    log.warning(message, entry.container_id, error, exc_info=not foreseen)
        return sum(entry.state != "attached" and entry.key not in self._site.adding for entry in self._site.attachments)

    async def _in_turn(self, entry: Attachment, *, unless_told: bool = False) -> None:
        interface = entry.endpoint.interface if entry.endpoint else ""
        async with self._site.turn(entry.container_id, interface):
            # A DEL, or a new ADD, may have been before us.
            if unless_told and entry.key in self._site.told_again:
                return
            if self._site.attachments.get(*_place(entry)) == entry:
                await self.take_back(entry)


def _place(attachment: Attachment) -> tuple[str, str, str]:
    return attachment.network, attachment.container_id, attachment.interface
