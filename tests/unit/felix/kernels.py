"""Drivers of kernels that are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from calipy.felix.objects import ObjectName, Op, Outcome, Owner, Put, fingerprint


class Kernel:
    """A driver whose kernel takes everything."""

    name, transactional = "nftables", True

    def __init__(self) -> None:
        self.holds: dict[ObjectName, Struct] = {}

    def order(self, kind: str, gone: bool) -> int:
        return not gone

    def weight(self, op: Op) -> int:
        return 1

    def fingerprint(self, value: Struct) -> bytes:
        return fingerprint(value)

    def leftover(self, name: ObjectName) -> Owner:
        return Owner("leftover", "")

    def read(self) -> Iterator[Mapping[ObjectName, bytes] | None]:
        yield {}

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        for op in ops:
            if isinstance(op, Put):
                self.holds[op.name] = op.value
            else:
                self.holds.pop(op.name, None)
        return Outcome()
