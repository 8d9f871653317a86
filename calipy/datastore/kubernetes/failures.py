"""What an API server's refusals mean: an HTTP status and a Status object (meta/v1) become a store's error. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from calipy.datastore.kubernetes.calls import Call
from calipy.datastore.stores import Conflict, Exists, Expired, NotFound, StoreError, Unauthorized, Unavailable
from calipy.resources.metadata import Problem, Refused


class Cause(Struct, frozen=True, gc=False):
    """meta/v1 StatusCause."""

    reason: str = ""
    message: str = ""
    field: str = ""


class Details(Struct, frozen=True, gc=False):
    """meta/v1 StatusDetails."""

    name: str = ""
    kind: str = ""
    causes: tuple[Cause, ...] | None = ()


class Status(Struct, frozen=True, gc=False):
    """meta/v1 Status."""

    kind: Literal["Status"]
    code: int = 0
    reason: str = ""
    message: str = ""
    details: Details | None = None

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What is wrong, one by one."""
        return (self.details.causes or ()) if self.details else ()


class Answer(Struct, frozen=True, gc=False):
    """What came back. `retry_after_s` is the Retry-After header in seconds, None without one."""

    status: int
    body: bytes
    retry_after_s: float | None = None


def status_of(code: int, body: bytes) -> Status:
    """The Status in an answer; where there is none, as from a proxy, one that says what there is."""
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = body[:200].decode(errors="replace").strip()
        return Status("Status", code=code, message=said or "without an explanation")


def failure(server: str, call: Call, answer: Answer) -> StoreError | Refused:
    """The error for an answer that is none of success."""
    return of_status(server, call, answer.status, status_of(answer.status, answer.body))


def of_status(server: str, call: Call, code: int, status: Status) -> StoreError | Refused:
    """The same where the code stands in an event of a watch."""
    if status.reason == "Forbidden" and any(cause.reason == "NamespaceTerminating" for cause in status.causes):
        reason, remedy = "is being deleted", "wait until it is gone, and make it anew"
        return Refused(call.what, [Problem("metadata.namespace", call.namespace, reason, remedy)])
    match code:
        case 400 | 422:
            return Refused(call.what, _problems(status))
        case 401:
            remedy = "renew its token or certificate"
            return Unauthorized(f"{call.what}: {server} doesn't know who asks (HTTP 401: {status.message}); {remedy}")
        case 403:
            return Unauthorized(_forbidden(call, status))
        case 404:
            return _not_found(server, call, status)
        case 409 if status.reason == "AlreadyExists":
            return Exists(f"{call.what} exists already; read it and update it")
        case 409:
            return Conflict(f"{call.what} has changed: {status.message}; read it again")
        case 410:
            return Expired(f"{call.what}: {status.message}; list again")
        case 429:
            return Unavailable(f"{server} has too much to do ({call.verb} {call.resource}: HTTP 429); try again later")
    remedy = "look at the logs of kube-apiserver and etcd, and at its /readyz"
    return Unavailable(f"{server}: {call.verb} {call.resource}: HTTP {code}: {status.message}; {remedy}")


def _forbidden(call: Call, status: Status) -> str:
    where = f" in namespace {call.namespace}" if call.namespace else ""
    remedy = f"allow verb {call.verb!r} on resource {call.resource!r}{where} in its Role or ClusterRole"
    return f"{call.what}: may not {call.verb} {call.resource}{where} (HTTP 403: {status.message}); {remedy}"


def _not_found(server: str, call: Call, status: Status) -> StoreError:
    details = status.details or Details()
    if details.kind == "namespaces" and call.resource != "namespaces":
        return NotFound(f"{call.what}: Namespace/{call.namespace} does not exist; create it first")
    if details.name:
        return NotFound(f"{call.what} does not exist (any more)")
    remedy = "apply the CustomResourceDefinitions: kubectl apply -k crds/"
    return Unavailable(f"{server} has no {call.resource} (HTTP 404 for {call.path}); {remedy}")


def _problems(status: Status) -> Iterator[Problem]:
    for cause in status.causes:
        value, reason = _value_and_reason(cause.message)
        yield Problem(cause.field or "the object", value, reason, "write what the API server allows")
    if not status.causes:
        yield Problem("the object", "", status.message, "write what the API server allows")


_TYPED = re.compile(r"(?:Invalid|Unsupported|Duplicate) value: |Too (?:long|many|few): |Not found: ")
"""How field.Error (k8s.io/apimachinery) begins where a value follows."""


def _value_and_reason(message: str) -> tuple[object, str]:
    """`Invalid value: "x": must be y` -> ("x", the whole without the value)."""
    typed = _TYPED.match(message)
    if not typed:
        return "", message
    what, rest = typed[0].removesuffix(": "), message[typed.end() :]
    text, reason = _split(rest)
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    return value, f"{what}: {reason}" if reason else what


def _split(rest: str) -> tuple[str, str]:
    """The value as Go wrote it, and what is behind it."""
    quoted = re.match(r'"(?:[^"\\]|\\.)*"', rest)
    if quoted:
        return quoted[0], rest[quoted.end() :].removeprefix(": ")
    text, _, reason = rest.partition(": ")
    return text, reason
