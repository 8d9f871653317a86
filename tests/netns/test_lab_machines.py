"""Lab machines on the real kernel: what they show, what they hide, what outlives what."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from calipy.lab.machines import Machine, MachineError
from calipy.lab.processes import Liveness

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
FOREVER = ("sleep", "600")
PASSWORDS = Path("/etc/passwd").read_bytes()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    """A machine that is on, with one folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix=f"calipy-t{os.getpid()}-", dir="/tmp"))
    made = Machine("m1", folder / "m1", {"/var/lib/kept": folder / "kept"})
    await made.start()
    yield made
    await made.power_cut()
    shutil.rmtree(folder)


async def until(condition: Callable[[], Any], what: str) -> None:
    """Waits for what no event tells of here."""
    async with asyncio.timeout(10):
        for _ in range(100_000):
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


def namespaces_of(pid: int) -> dict[str, int]:
    """Inodes of a process's namespaces."""
    return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in ("net", "mnt", "uts", "ipc", "pid")}


async def test_a_computer_of_its_own(machine: Machine) -> None:
    assert (await machine.run("hostname")).text == "m1\n"
    assert (await machine.run("sh", "-c", "ip -br link | cut -d' ' -f1")).text == "lo\n"
    assert "UP" in (await machine.run("ip", "link", "show", "lo")).text
    assert (await machine.run("ls", "/sys/class/net")).text == "lo\n"
    assert (await machine.run("cat", "/proc/1/comm")).text.startswith("python")
    own, host = namespaces_of(machine.pid), namespaces_of(os.getpid())
    assert not set(own.values()) & set(host.values())


@pytest.mark.parametrize("place", ["/etc", "/opt", "/var/lib", "/var/log", "/run", "/tmp"])
async def test_what_it_writes_does_not_reach_the_host(machine: Machine, place: str) -> None:
    path = f"{place}/calipy-test-{os.getpid()}"
    await machine.run("sh", "-c", f"echo x >{path}; mkdir -p {path}-folder")
    assert (await machine.run("cat", path)).text == "x\n"
    assert not there(path)
    assert not there(f"{path}-folder")


def there(path: str) -> bool:
    """Whether the host has it."""
    return Path(path).exists()


async def test_it_sees_the_hosts_programs_and_settings(machine: Machine) -> None:
    assert (await machine.run("cat", "/etc/passwd")).stdout == PASSWORDS
    done = await machine.run(sys.executable, "-P", "-c", "import calipy; print(calipy.__file__)")
    assert done.text.strip().endswith("calipy/__init__.py")


async def test_bound_folders_are_kept_and_all_else_goes_with_a_power_cut(machine: Machine) -> None:
    await machine.run("sh", "-c", "echo kept >/var/lib/kept/a; echo gone >/var/lib/b; echo gone >/etc/c")
    assert (machine.binds["/var/lib/kept"] / "a").read_text() == "kept\n"
    await machine.power_cut()
    await machine.power_cut()
    await machine.start()
    found = await machine.run("sh", "-c", "cat /var/lib/kept/a; ls /var/lib/b /etc/c 2>/dev/null", check=False)
    assert found.text == "kept\n"


async def test_a_power_cut_leaves_nothing(machine: Machine) -> None:
    await machine.make_netns("pod")
    await machine.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", "1")
    await machine.spawn("worker", ("sh", "-c", "setsid sleep 600 & sleep 600 & wait"), ENV)
    await until(lambda: len(processes_in(namespaces_of(machine.pid)["pid"])) >= 4, "process 1, a shell, two sleeps")
    inside = namespaces_of(machine.pid)
    pids = processes_in(inside["pid"])
    assert len(pids) >= 4
    mounts = mounted()
    await machine.power_cut()
    assert processes_in(inside["pid"]) == []
    assert mounted() == mounts
    assert str(machine.folder.parent) not in mounts
    assert machine.identity is None
    with pytest.raises(MachineError, match="machine m1 is off; switch it on first"):
        await machine.run("true")
    with pytest.raises(MachineError, match="machine m1 is off"):
        await machine.spawn("x", FOREVER, ENV)


def mounted() -> str:
    """The host's mounts."""
    return Path("/proc/self/mountinfo").read_text()


def processes_in(namespace: int) -> list[str]:
    """The host's numbers of the processes of a PID namespace."""
    found = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [entry.name for entry in found if pid_namespace(entry) == namespace]


def pid_namespace(entry: Path) -> int:
    """The inode of a process's PID namespace; 0 for one that has just ended, or that may not be seen."""
    try:
        return os.stat(entry / "ns/pid").st_ino
    except OSError:
        return 0


async def test_it_outlives_the_command_that_started_it() -> None:
    folder = Path(tempfile.mkdtemp(prefix=f"calipy-t{os.getpid()}-", dir="/tmp"))
    code = (
        "import asyncio, sys; from pathlib import Path; from calipy.lab.machines import Machine\n"
        "async def main():\n"
        "    machine = Machine('m2', Path(sys.argv[1]))\n"
        "    await machine.start()\n"
        "    await machine.spawn('worker', ('sleep', '600'), {'PATH': '/usr/bin:/bin'})\n"
        "asyncio.run(main())\n"
    )
    try:
        argv = (sys.executable, "-c", code, str(folder / "m2"))
        starter = await asyncio.create_subprocess_exec(*argv, start_new_session=True)
        assert await starter.wait() == 0
        machine = Machine("m2", folder / "m2")
        status = await machine.process("worker").status()
        assert status.pid
        with pytest.raises(MachineError, match="m2 is on already"):
            await machine.start()
        await machine.process("worker").stop()
    finally:
        await Machine("m2", folder / "m2").power_cut()
        shutil.rmtree(folder)


async def test_a_process_that_ends_is_started_again(machine: Machine) -> None:
    process = await machine.spawn("worker", ("sh", "-c", "echo run; sleep 600 & wait"), ENV)
    first = (await process.status()).pid
    await until(lambda: printed(process, "run\n"), "it runs")
    await process.kill()
    await until(lambda: alive_again(process, first), "it is back")
    status = await process.status()
    assert (status.restarts, status.status, status.over) == (1, -signal.SIGKILL, False)
    await until(lambda: printed(process, "run\nrun\n"), "it runs again")
    await process.restart()
    await until(lambda: restarted(process, 2), "it is back again")
    await process.stop()
    assert await machine.processes() == {}
    again = await machine.spawn("worker", FOREVER, ENV)
    with pytest.raises(MachineError, match="start worker: ValueError: process 'worker' is there already"):
        await machine.spawn("worker", FOREVER, ENV)
    await again.stop()


async def printed(process: Any, text: str) -> bool:
    return bool(process.log.read_text() == text)


async def alive_again(process: Any, former: int) -> bool:
    return (await process.status()).pid not in (0, former)


async def restarted(process: Any, times: int) -> bool:
    status = await process.status()
    return status.restarts == times and bool(status.pid)


async def test_an_unwell_process_is_killed(machine: Machine) -> None:
    liveness = Liveness(("test", "-e", "/run/well"), period_s=0.05, timeout_s=1, failures=2)
    process = await machine.spawn("worker", FOREVER, ENV, liveness=liveness)
    await until(lambda: unwell(process), "it was killed")
    await machine.run("touch", "/run/well")
    await process.stop()


async def unwell(process: Any) -> bool:
    status = await process.status()
    return status.unwell >= 1 and status.restarts >= 1


async def test_one_that_is_not_to_be_restarted_stays_down(machine: Machine) -> None:
    process = await machine.spawn("worker", ("sh", "-c", "exit 3"), ENV, restart=False)
    await until(lambda: over(process), "it has ended")
    status = await process.status()
    assert (status.pid, status.status, status.restarts) == (0, 3, 0)
    with pytest.raises(MachineError, match="no process other; there are: worker"):
        await machine.process("other").status()
    with pytest.raises(MachineError, match="start absent: FileNotFoundError"):
        await machine.spawn("absent", ("/does/not/exist",), ENV)


async def over(process: Any) -> bool:
    return (await process.status()).over


async def test_stop_takes_its_children_too(machine: Machine) -> None:
    process = await machine.spawn("worker", ("sh", "-c", "sleep 600 & sleep 600 & echo up; wait"), ENV)
    await until(lambda: "up" in process.log.read_text(), "it is up")
    before = len((await machine.run("ps", "-e", "-o", "pid=")).text.split())
    await process.stop()
    assert len((await machine.run("ps", "-e", "-o", "pid=")).text.split()) == before - 3


async def test_orphans_are_reaped(machine: Machine) -> None:
    await machine.run("sh", "-c", "setsid sh -c 'sleep 0.05' >/dev/null 2>&1 &")
    await until(lambda: no_zombies(machine), "reaped")


async def no_zombies(machine: Machine) -> bool:
    found = (await machine.run("ps", "-e", "-o", "stat=,comm=")).text
    return "sleep" not in found and "Z" not in found


async def test_commands_are_bounded_and_their_failures_told(machine: Machine) -> None:
    with pytest.raises(MachineError, match=r"m1: sh -c 'echo no >&2; exit 4': status 4: no"):
        await machine.run("sh", "-c", "echo no >&2; exit 4")
    assert (await machine.run("sleep", "60", timeout_s=0.1, check=False)).status == 124
    assert (await machine.run("cat", input=b"in")).stdout == b"in"
    await until(lambda: no_zombies(machine), "what was killed is gone")


@pytest.mark.parametrize(
    ("name", "folder", "words"),
    [
        ("M1", "/tmp/x", "machine 'M1': a name is"),
        ("a-name-that-is-too-long", "/tmp/x", "a name is 1 to 15"),
        ("m1", "/tmp/" + "x" * 100, "longer than a socket's path can be"),
    ],
)
def test_names_and_folders_that_can_not_be(name: str, folder: str, words: str) -> None:
    with pytest.raises(MachineError, match=words):
        Machine(name, Path(folder))


async def test_a_stale_identity_is_not_taken_for_another_process(machine: Machine) -> None:
    stranger = await asyncio.create_subprocess_exec(*FOREVER)
    try:
        identity = machine.folder / "identity.json"
        good = identity.read_text()
        identity.write_text(f'{{"pid": {stranger.pid}, "started": 1}}')
        assert machine.identity is None
        identity.write_text(good)
        assert machine.identity
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()
