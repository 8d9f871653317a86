"""Reports of `ipam check`, read again by `ipam release --from-report`: which of their leaks may be taken back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from calipy.console.failures import Failure


class ReportedAllocation(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """An allocation as a report tells of it."""

    ip: str
    in_use: bool
    sequence_number: int
    handle: str | None = None


class ReportedHandle(Struct, frozen=True, gc=False, kw_only=True, rename="pascal"):
    """A handle without addresses."""

    id: str = msgspec.field(name="ID")
    uid: str | None = msgspec.field(name="UID", default=None)
    revision: str = ""


class Report(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A report, as calicoctl and this program write it."""

    version: str
    cluster_guid: str = msgspec.field(name="clusterGUID")
    cluster_information_revision: str = ""
    allocations: dict[str, tuple[ReportedAllocation, ...]] = {}
    leaked_handles: tuple[ReportedHandle, ...] = ()


class Named(Struct, frozen=True, gc=False):
    """A report, and the file that it is in."""

    file: str
    report: Report


def decoded(file: str, text: bytes) -> Named:
    """A report. Raises Failure."""
    try:
        return Named(file, msgspec.json.decode(text, type=Report))
    except msgspec.MsgspecError as error:
        remedy = "write one with `ipam check -o FILE`"
        raise Failure(f"report {file}", f"can't be read: {error}", remedy) from error


def check(reports: Sequence[Named], *, guid: str, revision: str, version: str, force: bool) -> None:
    """Raises Failure where the reports aren't of this cluster or of this program (`force`: of any), or all are old.
    `guid`, `revision`: of ClusterInformation now."""
    for named in reports:
        if named.report.cluster_guid != guid:
            reason = f"is of another cluster: its clusterGUID is not {guid or 'empty'}"
            raise Failure(f"report {named.file}", reason, "write one of this cluster", value=named.report.cluster_guid)
        if named.report.version != version and not force:
            reason = f"was written by another version of this program than {version}"
            raise Failure(
                f"report {named.file}", reason, "write a new one, or give --force", value=named.report.version
            )
    if revision not in {named.report.cluster_information_revision for named in reports}:
        files = ", ".join(named.file for named in reports)
        reason = "is of a time before ClusterInformation was last changed"
        raise Failure(f"report {files}", reason, "write a new one with `ipam check -o FILE`, and give it too")


def leaks(reports: Iterable[Report]) -> tuple[ReportedAllocation, ...]:
    """The allocations that all reports call unused, under the same sequence number: what has been unused for long."""
    found: dict[tuple[str, int], ReportedAllocation] | None = None
    for report in reports:
        unused = {(each.ip, each.sequence_number): each for each in _all(report) if not each.in_use}
        found = unused if found is None else {key: each for key, each in unused.items() if key in found}
    return tuple((found or {}).values())


def _all(report: Report) -> Iterable[ReportedAllocation]:
    return (each for allocations in report.allocations.values() for each in allocations)


def leaked_handles(reports: Iterable[Report]) -> tuple[ReportedHandle, ...]:
    """The handles without addresses that all reports tell of, unchanged."""
    found: dict[ReportedHandle, None] | None = None
    for report in reports:
        told = dict.fromkeys(report.leaked_handles)
        found = told if found is None else {each: None for each in told if each in found}
    return tuple(found or ())
