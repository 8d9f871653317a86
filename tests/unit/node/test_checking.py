"""When others' packet filters are looked at, what is told of it, and what is not told again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest

from calipy.netlink import nf_tables as nft
from calipy.node import checking
from calipy.node.check import Finding
from calipy.node.checking import Checks
from calipy.node.rulesets import Ruleset
from calipy.node.ways import Pods

PODS = Pods(prefixes=("cali",), nets=("10.244.0.0/16",), own=(), carriers=("eth0",), links={})


def finding(subject: str, severity: Any = "warning", words: str = "drops") -> Finding:
    return Finding(check="foreign-drop", subject=subject, words=words, remedy="accept it", severity=severity)


class Host:
    """What would be read and found, and how often it was asked for."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.error: OSError | None = None
        self.asked = 0
        self.read_s = 0.0
        self.checks = Checks(cast(Any, None), lambda: PODS, every_s=0.02)

    def read(self, _: object) -> Iterator[Ruleset | None]:
        self.asked += 1
        yield None
        if self.error is not None:
            raise self.error
        yield Ruleset()

    def judge(self, rules: Ruleset, pods: Pods) -> Iterator[Finding | None]:
        assert (rules, pods) == (Ruleset(), PODS)
        yield None
        yield from self.found

    async def looked(self) -> None:
        """Returns after a whole look that has begun from now on."""
        before = self.asked
        self.checks.changed()
        await until(lambda: self.asked > before and self.checks.pulse.silent_s() == 0)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Host]:
    caplog.set_level(logging.INFO)
    made = Host()
    monkeypatch.setattr(checking, "read", made.read)
    monkeypatch.setattr(checking, "judge", made.judge)
    monkeypatch.setattr(checking, "_GATHER_S", 0.01)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.checks.run())
        await until(lambda: made.asked)
        yield made
        running.cancel()


async def test_a_finding_is_told_once_and_again_when_it_is_gone(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.found = [finding("inet a c, handle 1")]
    for _ in range(3):
        await host.looked()
    assert caplog.messages == ["inet a c, handle 1: drops; accept it"]
    assert host.checks.problem() == "inet a c, handle 1: drops; accept it"
    assert host.checks.by_check() == {"foreign-drop": 1, "legacy-tables": 0}
    caplog.clear()
    host.found = []
    for _ in range(2):
        await host.looked()
    assert caplog.messages == ["no longer so: inet a c, handle 1: drops"]
    assert (host.checks.problem(), host.checks.by_check()["foreign-drop"]) == ("", 0)


async def test_notices_are_no_problem_and_the_worst_stands_first(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.found = [finding("n", "notice"), finding("w"), finding("e", "error")]
    await host.looked()
    assert [each.severity for each in host.checks.findings] == ["error", "warning", "notice"]
    assert host.checks.problem() == "e: drops; accept it; w: drops; accept it"
    assert host.checks.by_check()["foreign-drop"] == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "INFO"]


async def test_many_findings_fill_neither_log_nor_health(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.found = [finding(f"rule {number:03}") for number in range(100)]
    await host.looked()
    assert len(caplog.messages) == 11
    assert caplog.messages[-1].startswith("and 90 more;")
    assert host.checks.problem().endswith("; and 90 more")
    assert len(host.checks.findings) == 100


async def test_only_what_may_matter_leads_to_a_look(host: Host) -> None:
    await host.looked()
    before = host.asked
    host.checks.changed({(nft.INET, "calipy"), (nft.IPV4, "kube-proxy"), (7, "filter")})
    host.checks.heard(frozenset({"Pod", "NetworkPolicy"}))
    await asyncio.sleep(0.1)
    assert host.asked == before
    host.checks.changed({(nft.IPV4, "kube-proxy"), (nft.IPV4, "filter")})
    await until(lambda: host.asked > before)
    before = host.asked
    host.checks.heard(frozenset({"IPPool"}))
    await until(lambda: host.asked > before)


async def test_a_storm_of_changes_leads_to_a_look_now_and_then(host: Host) -> None:
    before, began = host.asked, asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 0.3:
        host.checks.changed({(nft.IPV4, "filter")})
        await asyncio.sleep(0.001)
    assert 2 <= host.asked - before <= 11, "every 30 ms"


async def test_a_look_that_costs_much_is_seldom(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: object) -> Iterator[Ruleset | None]:
        host.asked += 1
        until_s = asyncio.get_running_loop().time() + 0.005
        while asyncio.get_running_loop().time() < until_s:
            pass
        yield Ruleset()

    monkeypatch.setattr(checking, "read", slow)
    before = host.asked
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.4):
            while True:
                host.checks.changed()
                await asyncio.sleep(0.001)
    assert host.asked - before <= 2, "5 ms of looking, 250 ms of rest"


async def test_what_cannot_be_read_is_told_once_and_what_was_found_stays(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.found = [finding("a")]
    await host.looked()
    caplog.clear()
    host.error = OSError(errno.EPERM, "Operation not permitted")
    for _ in range(2):
        await host.looked()
    assert caplog.messages == ["packet filters of others can't be read: Operation not permitted"]
    assert host.checks.problem() == f"{caplog.messages[0]}; a: drops; accept it"
    host.error = None
    await host.looked()
    assert host.checks.problem() == "a: drops; accept it"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOENT])
async def test_a_dump_that_others_have_overtaken_is_asked_for_again(
    host: Host, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    await host.looked()
    host.error = OSError(number, "it moved")
    before = host.asked
    host.checks.changed()
    await until(lambda: host.asked >= before + 3)
    assert caplog.messages == []
    host.error, looks = None, host.checks.looks
    await until(lambda: host.checks.looks > looks)
