"""How a plug-in's failure reads: libcni's words, which runtimes show to their users."""

from __future__ import annotations

import json
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from calipy.console.failures import Told
from calipy.lab.executions import Completed

T = TypeVar("T")
_VERBS: Final = {"ADD": "add", "DEL": "delete", "CHECK": "check", "STATUS": "status", "GC": "gc", "VERSION": "version"}
"""As libcni's messages call them."""


class CniFailure(Told):
    """A verb failed. Reads as libcni's error, which runtimes show to their users."""

    def __init__(self, code: int, msg: str, details: str = "", plugin: str = "", verb: str = "") -> None:
        """`code`: the plug-in's; 0 where nobody gave one. `plugin`: its type; empty where none was reached. `verb`:
        what it was asked (ADD)."""
        where = f'plugin type="{plugin}" failed ({_VERBS[verb]}): ' if plugin else ""
        super().__init__(f"{where}{msg}" + (f"; {details}" if details else ""))
        self.code = code
        self.msg = msg
        self.details = details
        self.plugin = plugin


class _Complaint(Struct, frozen=True, gc=False):
    code: int = 0
    msg: str = ""
    details: str = ""


def failed(done: Completed, plugin: str, verb: str) -> CniFailure:
    """The failure of a plug-in that ended with another status than 0."""
    complaint = _complaint(done)
    return CniFailure(complaint.code, complaint.msg, complaint.details, plugin, verb)


def _complaint(done: Completed) -> _Complaint:
    """What a plug-in says of its failure, in libcni's words where it says nothing that can be read."""
    if not done.stdout:
        stderr = done.stderr.decode(errors="replace")
        if stderr:
            return _Complaint(msg=f"netplugin failed: {json.dumps(stderr)}")
        return _Complaint(msg=f"netplugin failed with no error message: exit status {done.status}")
    try:
        return msgspec.json.decode(done.stdout, type=_Complaint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        said = json.dumps(done.stdout.decode(errors="replace"))
        return _Complaint(msg=f"netplugin failed but error parsing its diagnostic message {said}: {error}")


def decoded(said: bytes, kind: type[T], plugin: str, verb: str) -> T:
    """What a plug-in printed. Raises CniFailure if it can't be read."""
    try:
        return msgspec.json.decode(said, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CniFailure(0, f"can't read the answer: {error}", plugin=plugin, verb=verb) from error
