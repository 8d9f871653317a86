"""The socket: requests with descriptors, a bound on those at work, and callers that die."""

import asyncio
import contextlib
import json
import os
import socket

import pytest

from calipy.cni import server as module
from calipy.cni.server import Answer, Server


class Handler:
    """Answers when it may."""

    def __init__(self):
        self.may = asyncio.Event()
        self.may.set()
        self.at_work = 0
        self.most = 0
        self.log = []
        self.began = asyncio.Queue()
        self.failing = None

    async def answer(self, call, namespace):
        name = call.env["CNI_CONTAINERID"]
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        self.began.put_nowait(name)
        try:
            await self.may.wait()
            if self.failing:
                raise self.failing
            inode = os.fstat(namespace).st_ino if namespace is not None else 0
            self.log.append(f"{name} done")
            return Answer(call.env["CNI_COMMAND"] != "FAIL", f"{name} {inode} {len(call.stdin)}".encode())
        except asyncio.CancelledError:
            self.log.append(f"{name} rolled back")
            raise
        finally:
            self.at_work -= 1

    def gives_way(self, call):
        return call.env["CNI_COMMAND"] == "ADD"

    async def undo(self, call):
        self.log.append(f"{call.env['CNI_CONTAINERID']} undone")


async def until(condition):
    """Turns of the loop until something is so."""
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(condition)


@contextlib.asynccontextmanager
async def serving(path, handler):
    server = Server(path, handler)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await until(path.exists)
        try:
            yield server
        finally:
            handler.may.set()
            task.cancel()


def line(name, verb="ADD", stdin="{}"):
    return json.dumps({"env": {"CNI_COMMAND": verb, "CNI_CONTAINERID": name}, "stdin": stdin}).encode() + b"\n"


def dial(path, request, descriptors=()):
    """As the forwarder does: one line, the descriptor with the first byte, no more to send."""
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(path))
    if descriptors:
        socket.send_fds(raw, [request], list(descriptors))
    else:
        raw.sendall(request)
    raw.shutdown(socket.SHUT_WR)
    raw.setblocking(False)
    return raw


async def read(raw):
    loop, data = asyncio.get_running_loop(), b""
    with raw:
        while chunk := await loop.sock_recv(raw, 65536):
            data += chunk
    return data


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "cni.sock"


@pytest.fixture
def some_file():
    descriptor = os.open("/etc/hostname", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


async def test_one_request(path, some_file):
    handler = Handler()
    async with serving(path, handler):
        assert path.stat().st_mode & 0o777 == 0o600
        assert await read(dial(path, line("a"), [some_file])) == f"0a {os.fstat(some_file).st_ino} 2".encode()
        assert await read(dial(path, line("b", "FAIL"))) == b"1b 0 2"


async def test_a_large_request(path):
    async with serving(path, Handler()):
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(path))
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(raw, line("a", stdin="x" * 1_000_000))
        assert await read(raw) == b"0a 0 1000000"


async def test_descriptors_are_closed(path, some_file):
    handler = Handler()
    async with serving(path, handler):
        await read(dial(path, line("a")))
        before = descriptors()
        for request in (line("a"), line("b", "FAIL"), b"rubbish\n", b"no end", b""):
            await read(dial(path, request, [some_file] if request else []))
        handler.failing = RuntimeError("x")
        await read(dial(path, line("c"), [some_file]))
        assert descriptors() == before


@pytest.mark.parametrize("request_line", [b"rubbish\n", b'{"env": 5}\n', b'{"env": {"A": "\xff"}}\n'])
async def test_what_cannot_be_read_is_answered(path, request_line):
    async with serving(path, Handler()):
        answer = await read(dial(path, request_line))
        assert answer[:1] == b"1"
        assert json.loads(answer[1:])["code"] == 6


async def test_a_misfortune_ends_one_request_only(path, caplog):
    handler = Handler()
    async with serving(path, handler):
        handler.failing = RuntimeError("surprise")
        assert await read(dial(path, line("a"))) == b""
        assert "surprise" in caplog.text
        handler.failing = None
        assert await read(dial(path, line("b"))) == b"0b 0 2"


async def test_no_more_than_so_many_at_work(path):
    handler = Handler()
    handler.may.clear()
    async with serving(path, handler):
        callers = [dial(path, line(f"c{n}")) for n in range(module.AT_WORK_MOST + 8)]
        for _ in range(module.AT_WORK_MOST):
            await handler.began.get()
        handler.may.set()
        answers = await asyncio.gather(*map(read, callers))
    assert all(answer.startswith(b"0c") for answer in answers)
    assert handler.most == module.AT_WORK_MOST


async def test_a_dead_caller_is_rolled_back(path):
    handler = Handler()
    handler.may.clear()
    async with serving(path, handler):
        caller = dial(path, line("a"))
        await handler.began.get()
        caller.close()
        await until(lambda: handler.log)
        assert handler.log == ["a rolled back"]
        handler.may.set()
        assert await read(dial(path, line("b"))) == b"0b 0 2"


async def test_a_dead_callers_del_is_finished(path):
    handler = Handler()
    handler.may.clear()
    async with serving(path, handler):
        caller = dial(path, line("a", "DEL"))
        await handler.began.get()
        caller.close()
        other = dial(path, line("b", "ADD"))
        await handler.began.get()
        handler.may.set()
        await read(other)
        await until(lambda: "a done" in handler.log)
        assert "a rolled back" not in handler.log


async def test_the_dead_leave_the_queue(path):
    handler = Handler()
    handler.may.clear()
    async with serving(path, handler) as server:
        working = [dial(path, line(f"w{n}")) for n in range(module.AT_WORK_MOST)]
        for _ in working:
            await handler.began.get()
        queued = dial(path, line("q", "DEL"))
        await until(lambda: len(server._connections) > module.AT_WORK_MOST)
        queued.close()
        await until(lambda: len(server._connections) == module.AT_WORK_MOST)
        handler.may.set()
        await asyncio.gather(*map(read, working))
    assert not any(entry.startswith("q") for entry in handler.log)


async def test_an_answer_that_nobody_takes_is_undone(path):
    handler = Handler()
    handler.may.clear()
    async with serving(path, handler):
        caller = dial(path, line("a"))
        await handler.began.get()
        # Both in one turn of the loop: the work ends before the hang-up is seen.
        handler.may.set()
        caller.close()
        await until(lambda: len(handler.log) == 2 or "a rolled back" in handler.log)
    assert handler.log in (["a done", "a undone"], ["a rolled back"])


async def test_the_end_rolls_back_those_at_work(path):
    handler = Handler()
    handler.may.clear()
    server = Server(path, handler)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await until(path.exists)
        caller = dial(path, line("a", "DEL"))
        await handler.began.get()
        task.cancel()
    assert handler.log == ["a rolled back"]
    assert await read(caller) == b""


async def test_an_earlier_agents_socket_is_replaced(path):
    path.parent.mkdir()
    path.touch()
    async with serving(path, Handler()):
        await until(path.is_socket)
        assert await read(dial(path, line("a"))) == b"0a 0 2"
