"""Why a thing is there: a word that follows it into the kernel and back out to a person."""

from __future__ import annotations

from msgspec import Struct


class Origin(Struct, frozen=True, gc=False, order=True):
    """`kind` is a short class of reasons (workload, block, bgp, vxlan, static, ...), `name` the object behind it."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()
