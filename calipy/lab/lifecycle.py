"""A lab's beginning and end: machines plugged together, a store, agents and BGP speakers; removed without a trace, also
after a crash. Nothing on the host is touched but the lab's folder: what the machines make goes with them."""

from __future__ import annotations

from pathlib import Path

from calipy.console.failures import Failure, Failures, Told
from calipy.console.formats import counted
from calipy.console.progress import Steps
from calipy.lab import topology
from calipy.lab.cluster import AGENT, BGP, PATH, Lab, ip_batch, set_sysctls
from calipy.lab.folders import Plate, claimed, clear, is_there, powered, read_plate, sweep, write_plate
from calipy.lab.topology import TOR, Plan
from calipy.lab.waiting import together
from calipy.resources import bgp_peers

_LAST_LINES = 5


async def up(folder: Path, plan: Plan, steps: Steps) -> Lab:
    """Makes a lab; what a crashed one has left goes first. Raises Failure if one runs, and whatever a step met: then
    all that was made is gone again."""
    lab = Lab(folder, plan)
    with claimed(folder):
        plate = read_plate(folder)
        if plate is not None and plate.complete and powered(folder):
            remedy = "stop it first: calipy lab down"
            raise Failure("the lab", f"one with {counted(plate.plan.count, 'node')} runs in {folder} already", remedy)
        await sweep(folder)
        write_plate(folder, Plate(plan=plan))
        try:
            await _build(lab, steps)
        except Exception as failure:
            told = explained(lab, failure)
            await clear(folder)
            raise told from failure
        except BaseException:
            await clear(folder)
            raise
        write_plate(folder, Plate(plan=plan, complete=True))
    return lab


async def down(folder: Path) -> bool:
    """Removes a lab, or what is left of one; False if there was nothing."""
    if not is_there(folder):
        return False
    with claimed(folder):
        await clear(folder)
    return True


async def _build(lab: Lab, steps: Steps) -> None:
    plan = lab.plan
    hosts = (*plan.nodes, plan.outside)
    async with steps.step(f"{counted(plan.count, 'node')}, a top-of-rack switch and a host outside switched on"):
        await together(machine.start() for machine in lab.machines.values())
    async with steps.step("cables plugged in, addresses given"):
        await set_sysctls(lab.machines[TOR], (*topology.forwarding(plan), *topology.prompt(plan, "default")))
        await ip_batch(lab.machines[TOR], topology.tor_links(plan))
        await together(lab.plug(host) for host in hosts)
    async with steps.step("BIRD on the switch; BGPPeer objects in the store"):
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
    await tor.spawn("bird", ["bird", "-f"], {"PATH": PATH})


async def _register(lab: Lab) -> None:
    """What an operator brings: peerings with tor. Its Node object each agent makes itself."""
    async with lab.store() as store:
        for peer in topology.peerings(lab.plan):
            await store.create(bgp_peers.KIND, peer)


def explained(lab: Lab, failure: Exception) -> Exception:
    """A failure, with the ends of the agents' and BGP speakers' logs: those go with the lab."""
    said = _last_words(lab)
    return Failures([failure, Told(said)]) if said else failure


def _last_words(lab: Lab) -> str:
    logs = [lab.folder / name / f"{part}.log" for name in lab.nodes for part in (AGENT, BGP)]
    ends = {log: log.read_text(errors="replace").splitlines()[-_LAST_LINES:] for log in logs if log.exists()}
    return "\n".join(f"{log.parent.name} {log.stem}: {line}" for log, lines in ends.items() for line in lines if line)
