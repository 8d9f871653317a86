"""The lab that runs, as every command finds it again: its machines, its store, its nodes' agents and BGP speakers,
switched on and off, cut and healed. Its beginning and end: `lifecycle`; its folder: `folders`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Set
from pathlib import Path
from typing import Final, Literal, TypeVar

from msgspec import structs

from calipy.bgp import sidecar
from calipy.console.failures import Failure
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Store
from calipy.explain.query import Unanswered, ask
from calipy.explain.report import NodeReport, SessionReport
from calipy.lab import topology
from calipy.lab.executions import execute
from calipy.lab.folders import Plate, read_plate, write_plate
from calipy.lab.machines import Machine, MachineError, Process
from calipy.lab.processes import Liveness
from calipy.lab.runner import Runtime
from calipy.lab.topology import TOR, Encapsulation, Host, Plan
from calipy.lab.waiting import READY_TIMEOUT_S, eventually
from calipy.resources import ip_pools

AGENT, BGP = "agent", "bgp"
Part = Literal["agent", "bgp"]
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of what the lab starts on a machine."""
_LIVENESS: Final = Liveness(sidecar.liveness_command(Path("/run/calipy")), period_s=1.0, timeout_s=1.0, failures=2)
"""As a kubelet's probe of the BGP sidecar."""
T = TypeVar("T")


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
        plate = read_plate(folder)
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
        await ip_batch(self.machines[TOR], topology.cable(host, machine.pid), outer=True)
        routing = topology.forwarding(self.plan) if host.name in self.nodes else ()
        await set_sysctls(machine, (*routing, *topology.prompt(self.plan, topology.UPLINK)))
        await ip_batch(machine, topology.host_links(self.plan, host))

    async def unplug(self, name: str) -> None:
        """Takes the cable away; fine where there is none."""
        await self.machines[TOR].run("ip", "link", "delete", name, check=False)

    async def start_agent(self, name: str) -> None:
        """A node's init container, agent and BGP sidecar; does not wait until they are ready."""
        machine = self.machines[name]
        environment = {"PATH": PATH, "LANG": "C.UTF-8"}
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
        write_plate(self.folder, Plate(plan=self.plan, complete=True))


def _calipy(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "calipy", *arguments]


async def ip_batch(machine: Machine, lines: Iterable[str], *, outer: bool = False) -> None:
    """`ip -batch` on a machine; `outer`: it knows processes by their ids on the host. Raises MachineError."""
    text = "".join(f"{line}\n" for line in lines).encode()
    if not outer:
        await machine.run("ip", "-batch", "-", input=text)
        return
    done = await execute(["nsenter", "-t", str(machine.pid), "--net", "ip", "-batch", "-"], stdin=text)
    if done.status:
        raise MachineError(f"{machine.name}: ip -batch: {done.complaint}")


async def set_sysctls(machine: Machine, settings: Iterable[str]) -> None:
    """Sets sysctls (`net.ipv4.ip_forward=1`) on a machine. Raises MachineError."""
    script = "".join(
        f"echo {value} >/proc/sys/{name.replace('.', '/')}\n"
        for name, _, value in (setting.partition("=") for setting in settings)
    )
    await machine.run("sh", "-ec", script)
