"""Requests to one API server: connections that are kept, time limits, patience with a server that is busy, counts."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import AddrInfoType, ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector
from yarl import URL

from calipy.datastore.kubernetes.calls import Call
from calipy.datastore.kubernetes.credentials import Credentials
from calipy.datastore.kubernetes.failures import Answer, failure
from calipy.datastore.kubernetes.resolver import Resolver
from calipy.datastore.stores import Unavailable

AT_ONCE = 16
"""Requests under way at most, each on a connection of its own; watches have more."""
_CONNECT_S = 5.0
_KEPT_S = 60.0
"""So long an idle connection is kept: less than the server keeps it (90 s), else a write could meet a closed one."""
_KEEPALIVE_IDLE_S, _KEEPALIVE_EACH_S, _KEEPALIVE_COUNT = 30, 10, 3
"""A watch may be silent for minutes: the kernel finds out after one that nobody is there any more."""
_BUSY = (429, 503)
_SUCCESS_END = 300
_AGENT = "calipy"
"""Who the server says has written a field (managedFields)."""
Observe = Callable[[str, str, str], object]
"""Told of each answer: verb, resource, HTTP status or `error`."""


class Client:
    """Make it on the event loop; `close` it there."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        observe: Observe,
        timeout_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`timeout_s` is for one request with all its attempts; `sleep` is a seam."""
        self.server = credentials.server
        self._credentials = credentials
        self._observe = observe
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._requests = _session(AT_ONCE)
        self._watches = _session(0)

    async def ask(self, call: Call) -> bytes:
        """The body of a successful answer. A busy server that says when to come back is asked again then. Raises what
        `failures` makes of others."""
        _, body = await self._answered(self._requests, call, goes_on=False)
        return body

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of an answer that goes on. Raises as `ask`, also while they are read."""
        response, _ = await self._answered(self._watches, call, goes_on=True)
        try:
            yield self._chunks(call, response)
        finally:
            response.close()

    async def close(self) -> None:
        """Lets go of all connections."""
        await self._requests.close()
        await self._watches.close()

    async def _answered(self, session: ClientSession, call: Call, *, goes_on: bool) -> tuple[ClientResponse, bytes]:
        """A successful answer and its body; the body is left to be read where the answer `goes_on`."""
        answer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    response = await self._send(session, call)
                    left = goes_on and response.status < _SUCCESS_END
                    body = b"" if left else await self._body(call, response)
                    answer = Answer(response.status, body, _retry_after_s(response))
                    if answer.retry_after_s is None:
                        break
                    await self._sleep(answer.retry_after_s * random.uniform(1.0, 1.25))
        except TimeoutError:
            if answer is None:
                raise self._unavailable(call, f"no answer within {self._timeout_s:g} s") from None
        if answer.status >= _SUCCESS_END:
            raise failure(self.server, call, answer)
        return response, answer.body

    async def _send(self, session: ClientSession, call: Call) -> ClientResponse:
        """With another token, if there is one, where the server doesn't take ours."""
        response = await self._send_once(session, call)
        if response.status == 401 and self._credentials.authorization.renew():
            response.release()
            response = await self._send_once(session, call)
        return response

    async def _send_once(self, session: ClientSession, call: Call) -> ClientResponse:
        who = self._credentials
        headers = {"Accept": "application/json", "Content-Type": call.content_type}
        if authorization := who.authorization.header():
            headers["Authorization"] = authorization
        try:
            response = await session.request(
                call.method, self._url(call), data=call.body or None, headers=headers, allow_redirects=False,
                ssl=who.tls or True, server_hostname=who.server_name or None, proxy=who.proxy or None,
            )  # fmt: skip
        except (ClientError, OSError) as error:
            self._observe(call.verb, call.resource, "error")
            raise self._unavailable(call, _said(error)) from error
        self._observe(call.verb, call.resource, str(response.status))
        return response

    async def _body(self, call: Call, response: ClientResponse) -> bytes:
        try:
            return await response.read()
        except (ClientError, OSError) as error:
            raise self._unavailable(call, f"the answer was cut off: {_said(error)}") from error

    async def _chunks(self, call: Call, response: ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (ClientError, OSError) as error:
            raise self._unavailable(call, f"the connection was lost: {_said(error)}") from error

    def _url(self, call: Call) -> URL:
        return URL(f"{self.server}{call.path}", encoded=True).with_query(dict(call.query))

    def _unavailable(self, call: Call, reason: str) -> Unavailable:
        remedy = f"check that kube-apiserver runs and can be reached from here ({self._credentials.source})"
        return Unavailable(f"{self.server}: {call.verb} {call.resource}: {reason}; {remedy}")


def _session(limit: int) -> ClientSession:
    connector = TCPConnector(
        limit=limit, resolver=Resolver(), keepalive_timeout=_KEPT_S, socket_factory=_socket, force_close=False
    )
    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S)
    agent = {"User-Agent": _AGENT}
    return ClientSession(connector=connector, timeout=timeout, headers=agent)


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S),
        (socket.TCP_KEEPINTVL, _KEEPALIVE_EACH_S),
        (socket.TCP_KEEPCNT, _KEEPALIVE_COUNT),
    ):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _retry_after_s(response: ClientResponse) -> float | None:
    """Of a server that is busy. A date instead of seconds is none (API servers send seconds)."""
    text = response.headers.get("Retry-After", "")
    return float(text) if response.status in _BUSY and text.isdecimal() else None


def _said(error: BaseException) -> str:
    """What went wrong, in words; of an error of TLS the reason that OpenSSL gives."""
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return str(getattr(inner, "verify_message", "") or inner.args[-1] if inner.args else "") or type(error).__name__
