"""The lab that runs: machines plugged together, a store, agents and BGP speakers; switched on and off, found again by
later commands, and removed without a trace, also after a crash.

Everything lies in one folder (CALIPY_LAB, /run/calipy-lab): `lab.json`, a folder a machine, and `store`, which every
node has as its /var/lib/calipy. Nothing else on the host is touched: what the machines make goes with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct, structs

from calipy.bgp import sidecar
from calipy.console.failures import Failure, Failures, Told
from calipy.console.progress import Steps
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Store
from calipy.explain.query import Unanswered, ask
from calipy.explain.report import NodeReport, SessionReport
from calipy.lab import topology
from calipy.lab.executions import execute
from calipy.lab.machines import Machine, MachineError, Process
from calipy.lab.processes import Liveness
from calipy.lab.runner import Runtime
from calipy.lab.topology import TOR, Encapsulation, Host, Plan
from calipy.resources import bgp_peers, ip_pools, nodes

DEFAULT_FOLDER: Final = "/run/calipy-lab"
AGENT, BGP = "agent", "bgp"
Part = Literal["agent", "bgp"]
READY_TIMEOUT_S: Final = 30.0
_LOOK_S: Final = 0.05
_LAST_LINES: Final = 5
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIVENESS: Final = Liveness(sidecar.liveness_command(Path("/run/calipy")), period_s=1.0, timeout_s=1.0, failures=2)
"""As a kubelet's probe of the BGP sidecar."""
T = TypeVar("T")


class Plate(Struct, frozen=True, gc=False, kw_only=True):
    """lab.json: what kind of lab lies in the folder."""

    plan: Plan
    complete: bool = False
    """False while it is set up, and for ever after a crash in it."""


def folder_from(environment: Mapping[str, str]) -> Path:
    """The lab's folder. Raises Failure for a path that isn't absolute."""
    text = environment.get("CALIPY_LAB") or DEFAULT_FOLDER
    if not text.startswith("/"):
        raise Failure("environment variable CALIPY_LAB", "is not an absolute path", "write one", value=text)
    return Path(text)


class Lab:
    """A lab that is on."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.nodes: dict[str, Host] = {node.name: node for node in plan.nodes}
        self.machines = {name: Machine(name, folder / name, self._binds(name)) for name in plan.machines}

    @classmethod
    def running(cls, folder: Path) -> Lab:
        """The lab in `folder`. Raises Failure if none runs there."""
        plate = _plate(folder)
        if plate is None:
            raise Failure("no lab is running", f"there is none in {folder}", "start one: calipy lab up")
        if not plate.complete:
            raise Failure(
                "no lab is running", f"the one in {folder} was never complete", "start it anew: calipy lab up"
            )
        return cls(folder, plate.plan)

    def _binds(self, name: str) -> dict[str, Path]:
        own = self.folder / name
        if name in self.nodes:
            places = {
                "/var/lib/calipy": self.folder / "store",
                "/var/lib/calico": own / "state",
                "/etc/cni/net.d": own / "cni",
            }
        else:
            places = {"/etc/bird": own / "bird"} if name == TOR else {}
        return places

    def node(self, name: str) -> Host:
        """A node by name. Raises Failure."""
        if name not in self.nodes:
            raise Failure(f"node {name}", "the lab has none of that name", f"it has {', '.join(self.nodes)}")
        return self.nodes[name]

    def on(self, name: str) -> bool:
        """True while a machine has power."""
        return self.machines[name].identity is not None

    def need_power(self, name: str) -> Machine:
        """The machine of a node. Raises Failure while it is off."""
        self.node(name)
        if not self.on(name):
            raise Failure(f"node {name}", "it has no power", f"switch it on: calipy lab restart {name}")
        return self.machines[name]

    def runtime(self, name: str) -> Runtime:
        """The container runtime of a node."""
        own = self.folder / name
        return Runtime(self.machines[name].execute, own / "cni", own / "cache", ("/opt/cni/bin",))

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The store that the nodes share."""
        store = await SQLiteStore.open(self.folder / "store" / "datastore.sqlite3")
        try:
            yield store
        finally:
            await store.close()

    async def ask(self, name: str, question: str, kind: type[T], timeout_s: float = 5.0) -> T:
        """What a node's agent answers (`explain.query`). Raises Unanswered, Failure while the node is off."""
        machine = self.need_power(name)
        return await ask(Path("/proc", str(machine.pid), "root/run/calipy/query.sock"), question, kind, timeout_s)

    # --- one node ---

    async def plug(self, host: Host) -> None:
        """The cable between tor and a machine that was switched on, and what belongs to its own end."""
        machine = self.machines[host.name]
        await _ip(self.machines[TOR], topology.cable(host, machine.pid), outer=True)
        routing = topology.forwarding(self.plan) if host.name in self.nodes else ()
        await _set_sysctls(machine, (*routing, *topology.prompt(self.plan, topology.UPLINK)))
        await _ip(machine, topology.host_links(self.plan, host))

    async def unplug(self, name: str) -> None:
        """Takes the cable away; fine where there is none."""
        await self.machines[TOR].run("ip", "link", "delete", name, check=False)

    async def start_agent(self, name: str) -> None:
        """A node's init container, agent and BGP sidecar; does not wait until they are ready."""
        machine = self.machines[name]
        environment = {"PATH": _PATH, "LANG": "C.UTF-8"}
        await machine.run(*_calipy("install-cni"), env=environment)
        environment |= topology.agent_environment(self.plan, self.nodes[name])
        await machine.spawn(AGENT, _calipy("agent"), environment)
        await machine.spawn(BGP, _calipy("bgp"), environment, liveness=_LIVENESS)

    async def power_off(self, name: str) -> None:
        """A power cut. What the node's folders hold stays. Nobody hears of it: the cable is out before the kernel could
        close the connections of what it ends."""
        machine = self.need_power(name)
        await self.unplug(name)
        await machine.power_cut()

    async def power_on(self, name: str) -> None:
        """Switches a node on that was off, and waits until it takes pods."""
        await self.machines[name].start()
        await self.plug(self.node(name))
        await self.start_agent(name)
        await self.ready(name)

    async def restart(self, name: str, part: Part) -> None:
        """Asks a node's process to end, and waits until it is back."""
        process, former = await self._process(name, part)
        await process.restart()
        await self._back(name, part, former)

    async def kill(self, name: str, part: Part) -> None:
        """Kills a node's process; it is started again by itself."""
        process, _ = await self._process(name, part)
        await process.kill()

    async def _process(self, name: str, part: Part) -> tuple[Process, int]:
        process = self.need_power(name).process(part)
        return process, (await process.status()).pid

    async def _back(self, name: str, part: Part, former: int) -> None:
        async def another() -> bool:
            return (await self.machines[name].process(part).status()).pid not in (0, former)

        await eventually(another, f"node {name}: {part} is not started again")
        if part == AGENT:
            await self.ready(name)
        await self.sessions_up(name)

    async def cut(self, name: str, *, heal: bool = False) -> None:
        """Takes the carrier from a node's uplink, or gives it back."""
        self.need_power(name)
        await self.machines[TOR].run("ip", "link", "set", name, "up" if heal else "down")

    async def carrier(self, name: str) -> bool:
        """True if a node's uplink has a carrier."""
        done = await self.machines[name].run("cat", f"/sys/class/net/{topology.UPLINK}/carrier", check=False)
        return done.text.strip() == "1"

    async def ready(self, name: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits until a node takes pods. Raises Failure with the obstacle."""
        await eventually(lambda: self._obstacle(name), f"node {name} does not get ready", timeout_s)

    async def _obstacle(self, name: str) -> bool | str:
        try:
            report = await self.ask(name, "status", NodeReport)
        except Unanswered as error:
            return str(error)
        return report.obstacle or report.in_sync

    async def sessions_up(self, name: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits until a node's sessions with tor and with all nodes that can be reached are up. Raises Failure with
        those that aren't."""
        others = [other for other in self.nodes if other != name and self.on(other) and await self.carrier(other)]
        wanted = {(peer, family) for peer in (*others, "") for family in self.plan.versions}
        await eventually(lambda: self._missing_sessions(name, wanted), f"node {name}: BGP", timeout_s)

    async def _missing_sessions(self, name: str, wanted: Set[tuple[str, int]]) -> bool | str:
        try:
            found = await self.ask(name, "sessions", tuple[SessionReport, ...])
        except Unanswered as error:
            return str(error)
        missing = wanted - {(session.node, session.family) for session in found if session.state == "up"}
        told = (f"{peer or TOR} (IPv{family})" for peer, family in sorted(missing))
        return f"no session with {', '.join(told)}" if missing else True

    # --- the whole ---

    async def encapsulate(self, encapsulation: Encapsulation) -> None:
        """Changes the pools of the running lab."""
        async with self.store() as store:
            mode = topology.VXLAN_MODES[encapsulation]
            async for page in store.list(ip_pools.KIND):
                for pool in page.items:
                    spec = structs.replace(pool.value.spec, vxlan_mode=mode)
                    await store.update(ip_pools.KIND, pool, structs.replace(pool.value, spec=spec))
        self.plan = structs.replace(self.plan, encapsulation=encapsulation)
        _write_plate(self.folder, Plate(plan=self.plan, complete=True))


async def up(folder: Path, plan: Plan, steps: Steps) -> Lab:
    """Makes a lab; what a crashed one has left goes first. Raises Failure if one runs, and whatever a step met: then
    all that was made is gone again."""
    lab = Lab(folder, plan)
    with claimed(folder):
        plate = _plate(folder)
        if plate is not None and plate.complete and _powered(folder):
            remedy = "stop it first: calipy lab down"
            raise Failure("the lab", f"one with {plate.plan.count} nodes runs in {folder} already", remedy)
        await _sweep(folder)
        _write_plate(folder, Plate(plan=plan))
        try:
            await _build(lab, steps)
        except Exception as failure:
            told = explained(lab, failure)
            await _clear(folder)
            raise told from failure
        except BaseException:
            await _clear(folder)
            raise
        _write_plate(folder, Plate(plan=plan, complete=True))
    return lab


async def down(folder: Path) -> bool:
    """Removes a lab, or what is left of one; False if there was nothing."""
    if not _is_there(folder):
        return False
    with claimed(folder):
        await _clear(folder)
    return True


async def _build(lab: Lab, steps: Steps) -> None:
    plan = lab.plan
    hosts = (*plan.nodes, plan.outside)
    async with steps.step(f"{plan.count} nodes, a top-of-rack switch and a host outside switched on"):
        await together(machine.start() for machine in lab.machines.values())
    async with steps.step("cables plugged in, addresses given"):
        await _set_sysctls(lab.machines[TOR], (*topology.forwarding(plan), *topology.prompt(plan, "default")))
        await _ip(lab.machines[TOR], topology.tor_links(plan))
        await together(lab.plug(host) for host in hosts)
    async with steps.step("BIRD on the switch; Node and BGPPeer objects in the store"):
        await _start_bird(lab)
        await _register(lab)
    async with steps.step("agents ready for pods"):
        await together(lab.start_agent(name) for name in lab.nodes)
        await together(lab.ready(name) for name in lab.nodes)
    async with steps.step("BGP sessions up"):
        await together(lab.sessions_up(name) for name in lab.nodes)


async def _start_bird(lab: Lab) -> None:
    tor = lab.machines[TOR]
    (lab.folder / TOR / "bird" / "bird.conf").write_text(topology.bird_configuration(lab.plan))
    await tor.run("mkdir", "-p", "/run/bird")
    await tor.spawn("bird", ["bird", "-f"], {"PATH": _PATH})


async def _register(lab: Lab) -> None:
    """What a kubelet and an operator bring: Nodes with their rack, peerings with tor."""
    async with lab.store() as store:
        for node in lab.plan.nodes:
            await store.create(nodes.KIND, topology.node_object(node))
        for peer in topology.peerings(lab.plan):
            await store.create(bgp_peers.KIND, peer)


def _calipy(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "calipy", *arguments]


async def _ip(machine: Machine, lines: Iterable[str], *, outer: bool = False) -> None:
    """`ip -batch` on a machine; `outer`: it knows processes by their ids on the host. Raises MachineError."""
    text = "".join(f"{line}\n" for line in lines).encode()
    if not outer:
        await machine.run("ip", "-batch", "-", input=text)
        return
    done = await execute(["nsenter", "-t", str(machine.pid), "--net", "ip", "-batch", "-"], stdin=text)
    if done.status:
        raise MachineError(f"{machine.name}: ip -batch: {done.complaint}")


async def _set_sysctls(machine: Machine, settings: Iterable[str]) -> None:
    script = "".join(
        f"echo {value} >/proc/sys/{name.replace('.', '/')}\n"
        for name, _, value in (setting.partition("=") for setting in settings)
    )
    await machine.run("sh", "-ec", script)


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """All at once, their results in order; the first failure ends the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return tuple(task.result() for task in tasks)


async def eventually(look: Callable[[], Awaitable[bool | str]], what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Waits until `look` says True; other processes' states have no event to wait for, so it looks again and again.
    Raises Failure with `what` and the reason that `look` gave last."""
    end_s = time.monotonic() + timeout_s
    while (found := await look()) is not True:
        if time.monotonic() > end_s:
            reason = str(found or "it gives no reason")
            raise Failure(what, f"{reason} (after {timeout_s:g} s)", "see calipy lab logs NODE")
        await asyncio.sleep(_LOOK_S)


# --- the folder ---


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for one command that builds or removes. Raises Failure if another is at
    work, or the folder is somebody else's."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = f"another command is building or removing the one in {folder}"
            raise Failure("the lab", reason, "wait for its end, or end it") from error
        if _plate(folder) is None and any(entry.name != ".lab.json" for entry in folder.iterdir()):
            raise Failure(f"folder {folder}", "holds other things than a lab", "set CALIPY_LAB to another one")
        yield
    finally:
        os.close(lock)


def explained(lab: Lab, failure: Exception) -> Exception:
    """A failure, with the ends of the agents' and BGP speakers' logs: those go with the lab."""
    said = _last_words(lab)
    return Failures([failure, Told(said)]) if said else failure


def _last_words(lab: Lab) -> str:
    logs = [lab.folder / name / f"{part}.log" for name in lab.nodes for part in (AGENT, BGP)]
    ends = {log: log.read_text(errors="replace").splitlines()[-_LAST_LINES:] for log in logs if log.exists()}
    return "\n".join(f"{log.parent.name} {log.stem}: {line}" for log, lines in ends.items() for line in lines if line)


def _is_there(folder: Path) -> bool:
    return folder.is_dir()


def _plate(folder: Path) -> Plate | None:
    try:
        return msgspec.json.decode((folder / "lab.json").read_bytes(), type=Plate)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        return Plate(plan=Plan())  # another version's: it can be removed, no more


def _write_plate(folder: Path, plate: Plate) -> None:
    new = folder / ".lab.json"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(plate), indent=2) + b"\n")
    new.replace(folder / "lab.json")


def _machines_in(folder: Path) -> Iterator[Machine]:
    for place in sorted(folder.glob("*/machine.json")):
        yield Machine(place.parent.name, place.parent)


def _powered(folder: Path) -> bool:
    return any(machine.identity for machine in _machines_in(folder))


async def _sweep(folder: Path) -> None:
    """Ends all machines of the folder and empties it, but for lab.json."""
    await together(machine.power_cut() for machine in _machines_in(folder))
    _empty(folder)


def _empty(folder: Path) -> None:
    for place in folder.iterdir():
        if place.is_dir():
            shutil.rmtree(place)


async def _clear(folder: Path) -> None:
    await _sweep(folder)
    _remove(folder)


def _remove(folder: Path) -> None:
    (folder / "lab.json").unlink(missing_ok=True)
    (folder / ".lab.json").unlink(missing_ok=True)
    folder.rmdir()
