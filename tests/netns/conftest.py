"""Network namespaces for tests: made on demand, removed whatever happens, swept if a run before this one crashed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from calipy.lab.places import Place

_PREFIX = "calipy-t"
HERE, THERE = {4: "10.77.1.2", 6: "fd00:77:1::2"}, {4: "10.77.2.2", 6: "fd00:77:2::2"}
"""Addresses of `network`."""


class Namespace:
    """A network namespace that lives as long as the test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, check: bool = True, timeout_s: float = 20, text: str | None = None) -> str:
        """What a command inside prints, with `text` to read; its exit status is checked."""
        argv = ["ip", "netns", "exec", self.name, *command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False, input=text)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} in {self.name}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def popen(self, *command: str, **options: object) -> subprocess.Popen[bytes]:
        """A process inside, which the test ends."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)  # type: ignore[call-overload,no-any-return]

    def close(self) -> None:
        """Removes it."""
        os.close(self.fd)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def _sweep() -> None:
    """Removes the namespaces of test runs whose process is gone."""
    for entry in Path("/run/netns").glob(f"{_PREFIX}*"):
        pid = entry.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            subprocess.run(["ip", "netns", "delete", entry.name], check=False)


@pytest.fixture
def namespaces() -> Iterator[Callable[[str], Namespace]]:
    """A factory: `namespaces("pod")` makes a namespace whose name carries this process's id."""
    _sweep()
    made: list[Namespace] = []

    def make(name: str) -> Namespace:
        namespace = Namespace(f"{_PREFIX}{os.getpid()}-{name}")
        made.append(namespace)
        return namespace

    yield make
    for namespace in reversed(made):
        namespace.close()


@pytest.fixture
def network(namespaces: Callable[[str], Namespace]) -> tuple[Namespace, Namespace, Namespace]:
    """here --- router --- there, with both families."""
    here, router, there = (namespaces(name) for name in ("here", "router", "there"))
    for namespace in (here, router, there):
        namespace.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for number, host in ((1, here), (2, there)):
        link = f"r{number}"
        router.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        for namespace, name, last in ((router, link, 1), (host, "eth0", 2)):
            namespace.run("ip", "address", "add", f"10.77.{number}.{last}/24", "dev", name)
            namespace.run("ip", "address", "add", f"fd00:77:{number}::{last}/64", "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        host.run("ip", "route", "add", "default", "via", f"10.77.{number}.1")
        host.run("ip", "route", "add", "default", "via", f"fd00:77:{number}::1")
    return here, router, there


def place_of(namespace: Namespace, addresses: Mapping[int, str]) -> Place:
    """A namespace of `network` as a place of a lab."""
    return Place(name=namespace.name.rpartition("-")[2], kind="pod", netns=namespace.path, addresses=addresses)
