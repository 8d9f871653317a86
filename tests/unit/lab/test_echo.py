"""The echo process of a pod."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing

import pytest

from calipy.lab import echo
from calipy.lab.machines import PACKAGES


def free_port():
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_STREAM)) as taken:
        taken.bind(("::", 0))
        return taken.getsockname()[1]


@pytest.fixture
def port():
    number = free_port()
    ports = f"TCP/{number}", f"UDP/{number}"
    command = [sys.executable, "-S", "-E", "-m", "calipy.lab.echo", *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PACKAGES) as process:
        assert process.stdout.readline() == f"{echo.LISTENS} {' '.join(ports)}\n"
        yield number
        process.kill()


def connected(address, port, kind):
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    found.settimeout(5)
    found.connect((address, port))
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_is_sent_comes_back_in_both_families_and_to_two_at_once(address, kind, port):
    with closing(connected(address, port, kind)) as one, closing(connected(address, port, kind)) as other:
        for connection, text in ((one, b"one"), (other, b"other")):
            connection.send(text)
            assert connection.recv(100) == text
