"""Network namespaces for measurements; removed at the end, and swept if an earlier run crashed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "calipy-b"


class Namespace:
    """A network namespace with lo up."""

    def __init__(self, name: str) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{name}"
        self.path = Path("/run/netns") / self.name
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self.run("ip", "link", "set", "lo", "up")

    def argv(self, *command: str) -> list[str]:
        """The command line that runs `command` inside."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command: str, text: str | None = None) -> str:
        """Runs a command inside, with `text` as its input; what it prints."""
        done = subprocess.run(self.argv(*command), input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def close(self) -> None:
        """Removes it."""
        os.close(self.fd)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def sweep() -> None:
    """Removes what runs before this one left."""
    for entry in Path("/run/netns").glob(f"{_PREFIX}*"):
        pid = entry.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            subprocess.run(["ip", "netns", "delete", entry.name], check=False)


@contextlib.contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """One for as long as the context lasts."""
    made = Namespace(name)
    try:
        yield made
    finally:
        made.close()
