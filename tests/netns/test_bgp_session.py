"""The session with real ExaBGP, against a second one and against BIRD: what crosses, and what survives what failure."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from calipy.bgp.peers import Announcement, Peer, Topology
from calipy.bgp.session import Session
from calipy.bgp.sidecar import liveness_command
from calipy.model.routes import LearnedRoute
from calipy.resources.secrets import SecretKeySelector

HOLD_S, RESTART_S = 9, 20
ME, EXA, BIRD = "10.9.0.1", "10.9.0.2", "10.9.0.3"
MINE, THEIRS, BIRDS = "10.1.0.0/26", "10.2.0.0/26", "10.3.0.0/26"

MANY = tuple(f"10.1.{number // 4}.{number % 4 * 64}/26" for number in range(1000))


class Watch:
    """Waits for what the test is after, looking whenever anything has happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()

    async def until(self, true: Callable[[], Any], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self._event.clear()
                await self._event.wait()


class Speaker:
    """A node's BGP: session in this process, sidecar in a namespace."""

    def __init__(self, namespace: Any, address: str, folder: Path, watch: Watch, tasks: asyncio.TaskGroup) -> None:
        self.namespace, self.address, self.folder = namespace, address, folder
        self.watch, self.tasks = watch, tasks
        self.learned: dict[str, LearnedRoute] = {}
        self.posts: list[Mapping[str, LearnedRoute | None]] = []
        self.told = False
        self.topology = Topology(node="me", router_id=address)
        self.announced: tuple[str, ...] = ()
        self.metric = 1024
        self.passwords: dict[str, str] = {}
        self.start_agent()
        self.sidecar = self.start_sidecar()

    # --- agent ---

    def start_agent(self) -> None:
        self.learned, self.posts, self.told = {}, [], False
        self.session = Session(self.folder, self._post, self._tell)
        self.session.listen(self.watch.tell)
        self.task = self.tasks.create_task(self.session.run())

    async def kill_agent(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    def _post(self, routes: Mapping[str, LearnedRoute | None]) -> None:
        self.posts.append(routes)
        for prefix, route in routes.items():
            if route is None:
                del self.learned[prefix]
            else:
                self.learned[prefix] = route
        self.watch.tell()

    def _tell(self) -> None:
        self.told = True
        self.watch.tell()

    def peers(self, *peers: Peer) -> None:
        self.topology = replace(self.topology, peers=tuple(sorted(peers)))
        self.configure()

    def announce(self, *prefixes: str) -> None:
        self.announced = prefixes
        self.configure()

    def configure(self) -> None:
        told = {
            peer.name: tuple(
                Announcement(prefix=prefix, next_hop=peer.local_address, local_preference=2147483647 - self.metric)
                for prefix in self.announced
                if (":" in prefix) == (peer.family == 6)
            )
            for peer in self.topology.peers
        }
        self.session.configure(self.topology, self.passwords, told)

    def since(self, address: str) -> float | None:
        """Since when the session with a peer is up."""
        standing = self.session.standing(self.peer(address))
        return standing.since_s if standing.state == "up" else None

    def peer(self, address: str) -> Peer:
        return next(peer for peer in self.topology.peers if peer.address == address)

    # --- sidecar ---

    def start_sidecar(self) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-m", "calipy", "bgp")
        environment = {**os.environ, "CALIPY_RUN_DIR": str(self.folder)}
        with (self.folder / "exabgp.log").open("ab") as log:
            return start(self.namespace, *command, env=environment, stdout=log, stderr=log)

    def kill_sidecar(self) -> None:
        self.sidecar.kill()
        self.sidecar.wait()

    @property
    def pipe(self) -> int:
        pid = self.sidecar.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    @property
    def live(self) -> bool:
        return not subprocess.run(liveness_command(self.folder), check=False).returncode

    @property
    def log(self) -> str:
        return (self.folder / "exabgp.log").read_text()


class Bird:
    """BIRD in a namespace; its routes are in the namespace's main table, whose changes are watched."""

    def __init__(self, namespace: Any, folder: Path, watch: Watch) -> None:
        self.namespace, self.folder, self.watch = namespace, folder, watch
        self.password = ""
        self.changes: list[str] = []
        """Of what it has learned from us, as the kernel told of them."""
        self.routes: set[str] = set()
        self.configuration = folder / "bird.conf"
        self.write(BIRDS)
        self.process = start(namespace, "bird", "-f", "-c", str(self.configuration), "-s", str(folder / "bird.ctl"))
        self.monitor = start(namespace, "ip", "-o", "monitor", "route", stdout=subprocess.PIPE)
        assert self.monitor.stdout is not None
        os.set_blocking(self.monitor.stdout.fileno(), False)
        asyncio.get_running_loop().add_reader(self.monitor.stdout.fileno(), self._look)

    def _look(self) -> None:
        assert self.monitor.stdout is not None
        lines = self.monitor.stdout.read() or b""
        for line in lines.decode().splitlines():
            if "10.1." in line:
                self.changes.append(line.strip())
                prefix = line.removeprefix("Deleted ").split()[0]
                (self.routes.discard if line.startswith("Deleted ") else self.routes.add)(prefix)
        self.watch.tell()

    def write(self, *prefixes: str) -> None:
        routes = "".join(f"  route {prefix} blackhole;\n" for prefix in prefixes)
        self.configuration.write_text(f"""
router id {BIRD};
timeformat protocol iso long ms;
log "{self.folder}/bird.log" all;
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol static {{ ipv4;
{routes}}}
protocol bgp me {{
  local {BIRD} as 65000; neighbor {ME} as 65000;
  hold time {HOLD_S}; graceful restart on; graceful restart time {RESTART_S};
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  {f'password "{self.password}";' if self.password else ""}
  ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
}}
""")

    def announce(self, *prefixes: str) -> None:
        self.write(*prefixes)
        self.ask("configure")

    def ask(self, *command: str) -> str:
        return str(self.namespace.run("birdc", "-s", str(self.folder / "bird.ctl"), *command))

    @property
    def session(self) -> tuple[str, object]:
        """State of its session with us, and since when: BIRD works the time of day out anew each time it is asked."""
        line = next(line for line in self.ask("show", "protocols").splitlines() if line.startswith("me "))
        _, _, _, state, day, time_of_day, *info = line.split()
        since = datetime.fromisoformat(f"{day}T{time_of_day}").timestamp()
        return " ".join([state, *info]), pytest.approx(since, abs=0.1)

    def close(self) -> None:
        assert self.monitor.stdout is not None
        asyncio.get_running_loop().remove_reader(self.monitor.stdout.fileno())


started: list[subprocess.Popen[bytes]] = []


def start(namespace: Any, *command: str, **options: Any) -> subprocess.Popen[bytes]:
    """A process that ends with this one."""
    process: subprocess.Popen[bytes] = namespace.popen("setpriv", "--pdeathsig", "KILL", *command, **options)
    started.append(process)
    return process


class Lab:
    """This node, another one with ExaBGP, and BIRD on one segment."""

    def __init__(self, namespaces: Callable[[str], Any], folder: Path, tasks: asyncio.TaskGroup) -> None:
        self.watch = Watch()
        segment = namespaces("segment")
        segment.run("ip", "link", "add", "br0", "type", "bridge")
        segment.run("ip", "link", "set", "br0", "up")
        found = {}
        for name, address in (("me", ME), ("exa", EXA), ("bird", BIRD)):
            found[name] = namespaces(name)
            end = ("peer", "name", "eth0", "netns", found[name].name)
            segment.run("ip", "link", "add", name, "type", "veth", *end)
            segment.run("ip", "link", "set", name, "master", "br0", "up")
            found[name].run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            found[name].run("ip", "address", "add", f"{v6(address)}/64", "dev", "eth0", "nodad")
            found[name].run("ip", "link", "set", "eth0", "up")
            (folder / name).mkdir()
        self.me = Speaker(found["me"], ME, folder / "me", self.watch, tasks)
        self.exa = Speaker(found["exa"], EXA, folder / "exa", self.watch, tasks)
        self.bird = Bird(found["bird"], folder / "bird", self.watch)
        self.me.announced, self.exa.announced = (MINE,), (THEIRS,)
        self.exa.peers(peer(EXA, ME))

    async def up(self) -> None:
        """All sessions and routes."""
        self.me.peers(peer(ME, EXA), peer(ME, BIRD))
        await self.watch.until(lambda: self.me.learned.keys() == {THEIRS, BIRDS} and MINE in self.exa.learned)
        await self.watch.until(lambda: self.bird.routes == {MINE})


def v6(address: str) -> str:
    return f"fd00:9::{address.rpartition('.')[2]}"


def peer(mine: str, theirs: str, **fields: Any) -> Peer:
    """A session in the mesh."""
    return Peer(
        name=f"Mesh_{theirs}".replace(".", "_").replace(":", "_"),
        address=theirs,
        as_number=65000,
        local_address=mine,
        local_as=65000,
        passive=theirs > mine,
        hold_time_s=HOLD_S,
        restart_time_s=RESTART_S,
        **fields,
    )


@pytest.fixture
async def lab(namespaces: Callable[[str], Any], tmp_path: Path) -> AsyncIterator[Lab]:
    async with asyncio.TaskGroup() as tasks:
        made = None
        try:
            made = Lab(namespaces, tmp_path, tasks)
            yield made
        finally:
            for speaker in (made.me, made.exa) if made else ():
                speaker.task.cancel()
            if made:
                made.bird.close()
            for process in started:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
            started.clear()


def withdrawn(posts: Iterable[Mapping[str, LearnedRoute | None]]) -> set[str]:
    """Prefixes that were gone at some time."""
    return {prefix for routes in posts for prefix, route in routes.items() if route is None}


async def test_sessions_come_up_and_routes_cross(lab: Lab) -> None:
    await lab.up()
    assert lab.me.learned[BIRDS].next_hops == (BIRD,)
    assert lab.me.learned[THEIRS].next_hops == (EXA,)
    assert lab.me.learned[THEIRS].metric == 1024
    await lab.watch.until(lambda: lab.me.told and lab.exa.told)
    assert lab.me.session.received(lab.me.peer(BIRD)) == 1
    assert lab.me.session.announced(lab.me.peer(BIRD)) == 1
    assert (lab.me.folder / "exabgp.conf").stat().st_mode & 0o777 == 0o600

    lab.me.announce()
    lab.exa.announce("10.2.0.64/26")
    lab.bird.announce()
    await lab.watch.until(lambda: lab.me.learned.keys() == {"10.2.0.64/26"} and not lab.exa.learned)
    await lab.watch.until(lambda: not lab.bird.routes)


async def test_both_families_each_over_its_own_session(lab: Lab) -> None:
    lab.me.announced, lab.exa.announced = (MINE, "fd00:1::/122"), (THEIRS, "fd00:2::/122")
    lab.exa.peers(peer(EXA, ME), peer(v6(EXA), v6(ME)))
    lab.me.peers(peer(ME, EXA), peer(v6(ME), v6(EXA)))
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, "fd00:2::/122"})
    await lab.watch.until(lambda: lab.exa.learned.keys() == {MINE, "fd00:1::/122"})
    assert lab.exa.learned["fd00:1::/122"].next_hops == (v6(ME),)


async def test_a_reload_adds_and_removes_a_peer_and_leaves_the_others_alone(lab: Lab) -> None:
    lab.me.peers(peer(ME, BIRD))
    await lab.watch.until(lambda: lab.bird.routes == {MINE} and BIRDS in lab.me.learned)
    before = lab.bird.session, list(lab.bird.changes)

    lab.me.peers(peer(ME, BIRD), peer(ME, EXA))
    # What was announced long before the peer was there.
    await lab.watch.until(lambda: MINE in lab.exa.learned and THEIRS in lab.me.learned)
    lab.me.peers(peer(ME, BIRD))
    await lab.watch.until(lambda: THEIRS not in lab.me.learned)
    await lab.watch.until(lambda: lab.exa.since(ME) is None)
    await lab.watch.until(lambda: MINE not in lab.exa.learned)

    lab.me.peers()
    await lab.watch.until(lambda: not lab.me.learned)
    lab.me.peers(peer(ME, BIRD), peer(ME, EXA))
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, BIRDS})
    assert withdrawn(lab.exa.posts) == {MINE}
    await lab.watch.until(lambda: lab.bird.routes == {MINE})
    assert before[1] == lab.bird.changes[: len(before[1])]
    assert lab.me.log.count("ExaBGP is restarted") == 0


async def test_a_broken_configuration_never_reaches_exabgp(lab: Lab) -> None:
    await lab.up()
    path = lab.me.folder / "exabgp.conf"
    good, since = path.read_text(), (lab.me.since(EXA), lab.bird.session)

    lab.me.topology = replace(lab.me.topology, router_id="nobody")
    lab.me.configure()
    await lab.watch.until(lambda: lab.me.session.problem)
    assert "nobody" in lab.me.session.problem
    assert "the last good one stays in force" in lab.me.session.problem
    assert path.read_text() == good
    assert sorted(entry.name for entry in lab.me.folder.iterdir() if "conf" in entry.name) == ["exabgp.conf"]

    # Its parser takes no other file after one that it couldn't read: so it still takes one.
    lab.me.topology = replace(lab.me.topology, router_id=ME)
    lab.me.peers(peer(ME, EXA), peer(ME, BIRD), peer(ME, "10.9.0.99"))
    await lab.watch.until(lambda: not lab.me.session.problem)
    lab.me.peers(peer(ME, EXA), peer(ME, BIRD))
    lab.me.announce(MINE, "10.1.0.64/26")
    await lab.watch.until(lambda: "10.1.0.64/26" in lab.exa.learned)
    assert since == (lab.me.since(EXA), lab.bird.session)
    assert "configuration   could not load" not in lab.me.log


async def test_a_password_that_changes_reopens_that_session_alone(lab: Lab) -> None:
    await lab.up()
    since = lab.me.since(EXA)
    lab.bird.password = "first"
    lab.bird.announce(BIRDS)
    secret = SecretKeySelector(name="bgp", key="bird")
    lab.me.passwords = {"Mesh_10_9_0_3": "first"}
    lab.me.peers(peer(ME, EXA), peer(ME, BIRD, password=secret))
    lab.me.announce(MINE, "10.1.0.64/26")
    await lab.watch.until(lambda: lab.bird.routes == {MINE, "10.1.0.64/26"})

    # Beside many updates: ExaBGP drops a reload that is asked for while some are on their way.
    lab.bird.password = "second"
    lab.bird.announce(BIRDS)
    lab.me.passwords = {"Mesh_10_9_0_3": "second"}
    lab.me.announce(*MANY)
    await lab.watch.until(lambda: lab.bird.routes == set(MANY))
    assert lab.me.since(EXA) == since
    assert "second" not in lab.me.log


async def test_a_pipe_that_stands_still_is_noticed_before_any_session_is_lost(lab: Lab) -> None:
    await lab.up()
    assert lab.me.live
    before = lab.bird.session
    os.kill(lab.me.pipe, signal.SIGSTOP)
    async with asyncio.timeout(HOLD_S):
        while lab.me.live:  # noqa: ASYNC110 (a supervisor doesn't do otherwise)
            await asyncio.sleep(0.25)
    assert lab.bird.session == before
    assert lab.exa.since(ME) is not None

    # What its supervisor does now.
    os.kill(lab.me.pipe, signal.SIGKILL)
    lab.me.kill_sidecar()
    lab.me.sidecar = lab.me.start_sidecar()
    await lab.watch.until(lambda: not lab.me.session.connected)
    await lab.watch.until(lambda: lab.me.since(EXA) and lab.me.since(BIRD))
    assert lab.me.live
    lab.me.announce(MINE, "10.1.0.64/26")
    await lab.watch.until(lambda: "10.1.0.64/26" in lab.bird.routes and "10.1.0.64/26" in lab.exa.learned)
    assert withdrawn(lab.me.posts) == withdrawn(lab.exa.posts) == set()
    assert [change for change in lab.bird.changes if change.startswith("Deleted")] == []


async def test_a_pipe_that_was_killed_loses_nothing(lab: Lab) -> None:
    await lab.up()
    since = lab.me.since(EXA), lab.me.since(BIRD)
    before, posts, changes = lab.bird.session, len(lab.me.posts), list(lab.bird.changes)
    os.kill(lab.me.pipe, signal.SIGKILL)
    # Nobody hears this.
    lab.bird.announce("10.3.0.64/26")
    await lab.watch.until(lambda: not lab.me.session.connected)
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, "10.3.0.64/26"})
    assert lab.bird.session == before
    assert lab.bird.changes == changes
    # So young a session may be another: ExaBGP tells its age in whole seconds.
    assert since == pytest.approx((lab.me.since(EXA), lab.me.since(BIRD)), abs=2)
    assert withdrawn(lab.me.posts[posts:]) == {BIRDS}
    lab.me.announce("10.1.0.64/26")
    await lab.watch.until(lambda: lab.bird.routes == {"10.1.0.64/26"})


async def test_routes_stay_while_exabgp_restarts_and_those_that_are_gone_go_at_end_of_rib(lab: Lab) -> None:
    lab.me.announced, lab.exa.announced = (MINE, "10.1.0.64/26"), (THEIRS, "10.2.0.64/26")
    lab.me.peers(peer(ME, EXA), peer(ME, BIRD))
    lab.exa.configure()
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, "10.2.0.64/26", BIRDS})
    await lab.watch.until(lambda: lab.bird.routes == {MINE, "10.1.0.64/26"} and len(lab.exa.learned) == 2)

    lab.me.kill_sidecar()
    await lab.watch.until(lambda: not lab.me.session.connected and lab.exa.since(ME) is None)
    assert lab.me.session.stale(lab.me.peer(EXA))
    assert lab.me.learned.keys() == {THEIRS, "10.2.0.64/26", BIRDS}
    assert lab.exa.learned.keys() == {MINE, "10.1.0.64/26"}
    assert lab.bird.routes == {MINE, "10.1.0.64/26"}
    lab.me.announce(MINE)
    lab.exa.announce(THEIRS)

    lab.me.sidecar = lab.me.start_sidecar()
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, BIRDS} and lab.exa.learned.keys() == {MINE})
    await lab.watch.until(lambda: lab.bird.routes == {MINE})
    assert withdrawn(lab.me.posts) == {"10.2.0.64/26"}
    assert withdrawn(lab.exa.posts) == {"10.1.0.64/26"}
    assert [change for change in lab.bird.changes if MINE in change and change.startswith("Deleted")] == []
    assert not lab.me.session.stale(lab.me.peer(EXA))


async def test_exabgp_that_is_asked_to_end_is_a_restart_too(lab: Lab) -> None:
    await lab.up()
    lab.me.sidecar.terminate()
    await lab.watch.until(lambda: not lab.me.session.connected and lab.exa.since(ME) is None)
    lab.me.sidecar.wait()
    assert lab.me.learned.keys() == {THEIRS, BIRDS}
    lab.me.sidecar = lab.me.start_sidecar()
    await lab.watch.until(lambda: lab.me.since(EXA) and lab.me.since(BIRD) and lab.exa.since(ME))
    lab.me.announce(MINE, "10.1.0.64/26")
    await lab.watch.until(lambda: "10.1.0.64/26" in lab.exa.learned and len(lab.bird.routes) == 2)
    assert withdrawn(lab.me.posts) == withdrawn(lab.exa.posts) == set()


async def test_an_agent_that_was_killed_finds_everything_as_it_was(lab: Lab) -> None:
    lab.me.announced = (MINE, "10.1.0.64/26")
    lab.me.peers(peer(ME, EXA), peer(ME, BIRD))
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, BIRDS})
    await lab.watch.until(lambda: lab.bird.routes == {MINE, "10.1.0.64/26"} and len(lab.exa.learned) == 2)
    learned, before, changes = dict(lab.me.learned), lab.bird.session, list(lab.bird.changes)
    text = (lab.me.folder / "exabgp.conf").read_text()

    await lab.me.kill_agent()
    lab.me.start_agent()
    lab.me.announce(MINE)
    await lab.watch.until(lambda: lab.me.learned == learned)
    assert lab.me.posts == [learned], "all at once"
    await lab.watch.until(lambda: lab.me.told)
    await lab.watch.until(lambda: lab.bird.routes == {MINE} and lab.exa.learned.keys() == {MINE})
    assert lab.bird.session == before
    assert lab.bird.changes[len(changes) :] == [f"Deleted 10.1.0.64/26 via {ME} dev eth0 proto bird metric 32"]
    assert withdrawn(lab.exa.posts) == {"10.1.0.64/26"}
    assert (lab.me.folder / "exabgp.conf").read_text() == text
    assert lab.me.log.count("performing reload") == 1, "the first reading of the file is called so"

    # A session that ends now is known to do graceful restart.
    lab.exa.kill_sidecar()
    await lab.watch.until(lambda: lab.me.since(EXA) is None)
    assert lab.me.session.stale(lab.me.peer(EXA))
    assert lab.me.learned == learned


async def test_the_last_word_on_a_route_is_the_one_that_peers_have(lab: Lab) -> None:
    """ExaBGP doesn't keep the order of changes that come faster than it sends them."""
    await lab.up()
    for metric, prefixes in ((1000, MANY), (900, MANY), (1000, MANY), (1000, ()), (1000, MANY), (900, MANY[:10])):
        lab.me.metric = metric
        lab.me.announce(*prefixes)
        # As an agent may hear of them.
        await asyncio.sleep(0.2)
    await lab.watch.until(
        lambda: {prefix: route.metric for prefix, route in lab.exa.learned.items()} == dict.fromkeys(MANY[:10], 900)
    )
    await lab.watch.until(lambda: lab.bird.routes == set(MANY[:10]))


async def test_a_route_withdrawn_while_its_peer_was_away_does_not_come_back(lab: Lab) -> None:
    """ExaBGP tells a new session what it was given for the one before, and drops withdrawals from its first batch."""
    await lab.up()
    lab.exa.kill_sidecar()
    await lab.watch.until(lambda: lab.me.since(EXA) is None)
    lab.me.announce("10.1.0.64/26")
    await lab.watch.until(lambda: lab.bird.routes == {"10.1.0.64/26"})
    lab.exa.sidecar = lab.exa.start_sidecar()
    await lab.watch.until(lambda: lab.me.since(EXA))
    await lab.watch.until(lambda: lab.exa.learned.keys() == {"10.1.0.64/26"})


async def test_a_reload_is_taken_while_a_peer_is_away(lab: Lab) -> None:
    lab.me.peers(peer(ME, EXA))
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS} and lab.exa.learned.keys() == {MINE})
    lab.me.kill_sidecar()
    await lab.watch.until(lambda: lab.exa.since(ME) is None)
    lab.exa.announced = (THEIRS, "fd00:2::/122")
    lab.exa.peers(peer(EXA, ME), peer(v6(EXA), v6(ME)))
    lab.me.peers(peer(ME, EXA), peer(v6(ME), v6(EXA)))
    lab.me.sidecar = lab.me.start_sidecar()
    await lab.watch.until(lambda: lab.me.learned.keys() == {THEIRS, "fd00:2::/122"})
    assert "performing shutdown" not in lab.exa.log


async def test_exabgp_that_takes_no_file_any_more_is_restarted(lab: Lab) -> None:
    """One file that it couldn't parse, and it refuses all that come after it, and says `done`."""
    await lab.up()
    path = lab.me.folder / "exabgp.conf"
    path.write_text(path.read_text().replace("hold-time", "hold-tight"))
    lab.me.sidecar.send_signal(signal.SIGUSR1)
    async with asyncio.timeout(10):
        while "could not load" not in lab.me.log:  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0.02)

    lab.me.announced = (MINE, "fd00:1::/122")
    lab.exa.peers(peer(EXA, ME), peer(v6(EXA), v6(ME)))
    lab.me.peers(peer(ME, EXA), peer(ME, BIRD), peer(v6(ME), v6(EXA)))
    await lab.watch.until(lambda: not lab.me.session.connected)
    assert lab.me.sidecar.wait() == 0
    lab.me.sidecar = lab.me.start_sidecar()
    await lab.watch.until(lambda: lab.exa.learned.keys() == {MINE, "fd00:1::/122"})
    await lab.watch.until(lambda: lab.me.since(EXA) and lab.me.since(BIRD) and not lab.me.session.problem)
    assert withdrawn(lab.me.posts) == withdrawn(lab.exa.posts) == set()
    assert lab.bird.routes == {MINE}


async def test_a_file_that_can_not_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "exabgp.conf.new").mkdir()
    watch = Watch()
    session = Session(tmp_path, lambda routes: None, lambda: None)
    session.listen(watch.tell)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(session.run())
        session.configure(Topology(node="me", router_id=ME), {}, {})
        await watch.until(lambda: "the last good one stays in force" in session.problem)
        (tmp_path / "exabgp.conf.new").rmdir()
        await watch.until(lambda: not session.problem)
        assert (tmp_path / "exabgp.conf").is_file()
        task.cancel()
