"""A web server that stands before an API server, or in its place, and answers some requests wrongly, late or never."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

Behind = Callable[[web.Request], Awaitable[web.StreamResponse]]
Fault = Callable[[web.Request, Behind], Awaitable[web.StreamResponse]]


class Faulty:
    """`behind` answers what no fault takes."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._faults: list[tuple[str, Fault]] = []
        self.asked: list[str] = []
        """Method, path and query of each request."""
        self.tokens: list[str] = []
        """What each request said of who asks."""
        self.url = ""

    def next(self, verb: str, *faults: Fault) -> None:
        """The next requests of this verb (`GET`, `watch`, ...) meet these, one each."""
        self._faults += [(verb, fault) for fault in faults]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Faulty]:
        """While it serves, on the loopback."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        self.tokens.append(request.headers.get("Authorization", ""))
        verb = "watch" if "watch" in request.query else request.method
        for index, (meant, fault) in enumerate(self._faults):
            if meant == verb:
                del self._faults[index]
                return await fault(request, self._behind)
        return await self._behind(request)


def status(code: int, reason: str = "", message: str = "said", **headers: str) -> Fault:
    """An answer with a Status."""
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}

    async def answer(request: web.Request, behind: Behind) -> web.StreamResponse:
        return web.json_response(body, status=code, headers={name.replace("_", "-"): h for name, h in headers.items()})

    return answer


def text(code: int, body: str) -> Fault:
    """An answer as no API server gives it."""

    async def answer(request: web.Request, behind: Behind) -> web.StreamResponse:
        return web.Response(text=body, status=code)

    return answer


def lines(*events: dict[str, Any], cut: bool = False) -> Fault:
    """A stream of these events that ends then, by a broken connection with `cut`."""

    async def answer(request: web.Request, behind: Behind) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
        if cut:
            _break(request)
        return response

    return answer


def cut_off() -> Fault:
    """Half of an answer, and the end of the connection."""

    async def answer(request: web.Request, behind: Behind) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"kind":')
        _break(request)
        return response

    return answer


def silent() -> Fault:
    """No answer, until whoever asks goes away."""

    async def answer(request: web.Request, behind: Behind) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return answer


def _break(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def forwarding(session: ClientSession, server: str, trust: ssl.SSLContext) -> Behind:
    """To a real API server, as whoever asks."""

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name in ("Authorization", "Content-Type")}
        body = await request.read()
        url = f"{server}{request.path_qs}"
        async with session.request(
            request.method, url, data=body or None, headers=headers, ssl=trust, timeout=ClientTimeout(total=None)
        ) as found:
            response = web.StreamResponse(status=found.status, headers={"Content-Type": found.content_type})
            response.enable_chunked_encoding()
            await response.prepare(request)
            async for chunk in found.content.iter_any():
                await response.write(chunk)
        return response

    return forward


class Canned:
    """An API server for IPAMHandles that holds still: `objects`, and watches that tell nothing."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.revision = 10
        self._news = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """As an API server would."""
        if request.path == "/apis":
            return web.json_response({"kind": "APIGroupList", "groups": GROUPS})
        name = request.path.rpartition("/")[2]
        if "watch" in request.query:
            return await self._watch(request)
        if request.method == "POST":
            return self._create(await request.json())
        if name == "ipamhandles":
            return self._list(request)
        return self._get(name)

    def _create(self, document: dict[str, Any]) -> web.Response:
        self.revision += 1
        stamp = {"uid": f"u{self.revision}", "resourceVersion": str(self.revision), "generation": 1}
        document["metadata"] |= stamp
        self.objects[document["metadata"]["name"]] = document
        self._news.set()
        self._news = asyncio.Event()
        return web.json_response(document, status=201)

    def _list(self, request: web.Request) -> web.Response:
        start, most = int(request.query.get("continue", 0)), int(request.query["limit"])
        items = sorted(self.objects.values(), key=lambda item: item["metadata"]["name"])[start:]
        meta = {"resourceVersion": str(self.revision)}
        if len(items) > most:
            meta["continue"] = str(start + most)
        return web.json_response({"kind": "IPAMHandleList", "metadata": meta, "items": items[:most]})

    def _get(self, name: str) -> web.Response:
        if name in self.objects:
            return web.json_response(self.objects[name])
        details = {"name": name, "kind": "ipamhandles"}
        body = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found", "details": details}
        return web.json_response(body, status=404)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        told: set[str] = set()
        while True:
            for name, item in tuple(self.objects.items()):
                if int(item["metadata"]["resourceVersion"]) > since and name not in told:
                    told.add(name)
                    await response.write(json.dumps({"type": "ADDED", "object": item}).encode() + b"\n")
            await self._news.wait()


GROUPS = [{"name": "projectcalico.org", "versions": [{"groupVersion": "projectcalico.org/v3", "version": "v3"}]}]


@asynccontextmanager
async def before(server: str, authority: Path) -> AsyncIterator[Faulty]:
    """One before a real API server."""
    trust = ssl.create_default_context(cafile=str(authority))
    async with ClientSession() as session, Faulty(forwarding(session, server, trust)).serving() as faulty:
        yield faulty
