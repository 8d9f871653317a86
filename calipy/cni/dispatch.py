"""One request, one answer: every error becomes one that the runtime understands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from calipy.cni import results
from calipy.cni.additions import Additions
from calipy.cni.checks import check
from calipy.cni.errors import CniError, Code
from calipy.cni.protocol import Request, Verb, parse, version_of
from calipy.cni.removals import Removals
from calipy.cni.server import Answer, Call
from calipy.cni.sites import Site
from calipy.datastore.stores import StoreError, Unavailable
from calipy.resources.metadata import Refused

Observe = Callable[[str, str, float], None]
"""Hears of each answer: verb, code ("0" = success), seconds."""
log = logging.getLogger("calipy.cni.dispatch")


class Dispatcher:
    """Answers the calls that the server takes."""

    def __init__(self, site: Site, removals: Removals, observe: Observe) -> None:
        self._site = site
        self._additions = Additions(site, removals)
        self._removals = removals
        self._observe = observe

    async def answer(self, call: Call, namespace: int | None) -> Answer:
        """The answer to a call; raises nothing but its cancellation."""
        began = time.monotonic()
        verb, container = call.env.get("CNI_COMMAND", ""), call.env.get("CNI_CONTAINERID", "")
        try:
            answer, code = Answer(True, await self._output(call, namespace)), 0
        except Exception as problem:
            error = understandable(problem)
            log.error("%s of container %s failed: code %d: %s", verb, container or "-", error.code, error)
            answer, code = Answer(False, results.render_error(error, version_of(call.stdin))), int(error.code)
        took_s = time.monotonic() - began
        log.debug("%s of container %s: code %d in %.1f ms", verb, container or "-", code, took_s * 1e3)
        self._observe(verb if verb in Verb.__members__ else "unknown", str(code), took_s)
        return answer

    def gives_way(self, call: Call) -> bool:
        """An ADD whose caller is dead is rolled back. The other verbs are finished: they only take away."""
        return call.env.get("CNI_COMMAND") == Verb.ADD

    async def undo(self, call: Call) -> None:
        """An ADD whose result nobody got is taken back."""
        if self.gives_way(call):
            request = parse({**call.env, "CNI_COMMAND": Verb.DEL}, call.stdin)
            log.warning("the caller of ADD of container %s is dead", request.container_id)
            await self._removals.undo(request)

    async def _output(self, call: Call, namespace: int | None) -> bytes:
        request = parse(call.env, call.stdin)
        match request.verb:
            case Verb.VERSION:
                return results.render_versions(request.version)
            case Verb.STATUS:
                self._demand_readiness(Code.NOT_AVAILABLE)
                return b""
            case Verb.ADD:
                self._demand_readiness(Code.TRY_AGAIN)
                return results.render(await self._additions.add(request, namespace), request.version)
            case Verb.DEL:
                await self._removals.delete(request)
                return b""
            case Verb.CHECK:
                self._demand_readiness(Code.TRY_AGAIN)
                await check(self._site, request, namespace)
                return b""
            case Verb.GC:
                return await self._collect(request, dry_run=call.dry_run)

    async def _collect(self, request: Request, *, dry_run: bool) -> bytes:
        found = await self._removals.collect(request, dry_run=dry_run)
        for entry in found if not dry_run else ():
            log.info("GC: container %s, interface %s is taken back", entry.container_id, entry.interface)
        shown = [(entry.name, entry.endpoint.addresses if entry.endpoint else ()) for entry in found]
        return results.render_attachments(shown) if dry_run else b""

    def _demand_readiness(self, code: Code) -> None:
        obstacle = self._site.node.obstacle()
        if obstacle:
            raise CniError(code, f"node {self._site.node.name} can't attach pods now: {obstacle}", "try again later")


def understandable(problem: Exception) -> CniError:
    """Any exception as an error for the runtime. What nobody foresaw is logged with its traceback."""
    match problem:
        case CniError():
            return problem
        case Unavailable():
            return CniError(Code.TRY_AGAIN, f"the store is away: {problem}", "try again later")
        case StoreError() | Refused():
            return CniError(Code.STORE_REFUSED, f"the store refuses: {problem}", "the agent's log says more")
        case OSError():
            log.error("a CNI request met an error of the system", exc_info=problem)
            return CniError(Code.IO_FAILURE, f"{problem.strerror}: {problem.filename or ''}", "see the agent's log")
        case _:
            log.error("a CNI request met an error that nobody foresaw", exc_info=problem)
            return CniError(
                Code.INTERNAL, f"{type(problem).__name__}: {problem}", "please report it with the agent's log"
            )
