"""Network namespaces for tests: made on demand, removed whatever happens, swept if a run before this one crashed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PREFIX = "calipy-t"


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
