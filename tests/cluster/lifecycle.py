"""A cluster's beginning and end, also after a crash: nothing of it is left but the cache of programs and images."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from calipy.console.failures import Failure, Failures, Told
from calipy.console.formats import counted
from calipy.console.progress import Steps
from calipy.lab import folders
from calipy.lab.machines import Machine
from calipy.lab.waiting import together
from tests.cluster import images, ours, standin
from tests.cluster.cluster import Cluster, Plan, remove_cgroups

_PLATE: Final = "cluster.json"
_MANIFESTS: Final = Path(__file__).parent / "manifests"
_LAST_LINES: Final = 6


async def up(folder: Path, plan: Plan, steps: Steps) -> Cluster:
    """Makes a cluster; what a crashed one has left goes first. Raises Failure if one runs there, and whatever a step
    met: then all that was made is gone again."""
    with _claimed(folder):
        if complete(folder):
            raise Failure(f"the cluster in {folder}", "it runs already", "remove it first: make cluster-down")
        await _clear(folder)
        (folder / _PLATE).write_bytes(msgspec.json.encode({"nodes": plan.nodes}))
        cluster = Cluster(folder, plan)
        try:
            await _build(cluster, steps)
        except Exception as failure:
            told = _explained(cluster, failure)
            await _clear(folder)
            raise told from failure
        except BaseException:
            await _clear(folder)
            raise
        (folder / _PLATE).write_bytes(msgspec.json.encode(plan, enc_hook=str))
    return cluster


async def down(folder: Path) -> bool:
    """Removes a cluster, or what is left of one; False if there was nothing."""
    if not folders.is_there(folder):
        return False
    with _claimed(folder):
        await _clear(folder)
        os.rmdir(folder)
    return True


def complete(folder: Path) -> bool:
    """True if the cluster of a folder was made, and its machines are on."""
    try:
        msgspec.json.decode((folder / _PLATE).read_bytes(), type=Plan, dec_hook=lambda kind, value: kind(value))
    except (FileNotFoundError, msgspec.MsgspecError):
        return False
    return folders.powered(folder)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """The folder, made where it is missing, for one command at a time. Raises Failure."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = "another command is making or removing it"
            raise Failure(f"the cluster in {folder}", reason, "wait for its end, or end it") from error
        if not (folder / _PLATE).exists() and any(folder.iterdir()):
            raise Failure(f"folder {folder}", "holds other things than a cluster", "name another one")
        yield
    finally:
        os.close(lock)


async def _clear(folder: Path) -> None:
    """Ends all machines, and removes what they had on this host."""
    machines = [Machine(place.name, place) for place in _places(folder)]
    await together(machine.power_cut() for machine in machines)
    for machine in machines:
        await asyncio.to_thread(remove_cgroups, f"{folder.name}-{machine.name}")
    await folders.sweep(folder)
    for name in ("server", "gate.log", _PLATE):  # that it is a cluster is forgotten last
        (folder / name).unlink(missing_ok=True)


def _places(folder: Path) -> list[Path]:
    """The machines' folders."""
    return [path.parent for path in folder.glob("*/machine.json")]


async def _build(cluster: Cluster, steps: Steps) -> None:
    plan = cluster.plan
    async with steps.step("images unpacked"):
        template = await images.unpacked(plan.programs, plan.images)
    async with steps.step(f"{counted(plan.nodes, 'node')}, control plane, switch and a host outside switched on"):
        await cluster.install(template)
        await cluster.switch_on()
    async with steps.step("etcd and kube-apiserver serve; containerd runs"):
        await together((cluster.start_control_plane(), *map(cluster.start_runtime, cluster.nodes)))
    async with steps.step("nodes registered"):
        await cluster.start_managers()
        await together(cluster.start_kubelet(name) for name in cluster.nodes)
        for manifest in ("base.yaml", "coredns.yaml"):
            await cluster.kubectl("apply", "-f", str(_MANIFESTS / manifest))
        await cluster.wait("serviceaccount/default", "create")
    if plan.network == "ptp":
        async with steps.step("stand-in network: nodes Ready, DNS answers"):
            await standin.install(cluster)
            await cluster.ready()
            await _names_served(cluster)
    elif plan.network == "calipy":
        async with steps.step("CalIPy: agents rolled out, nodes Ready, DNS answers"):
            await ours.install(cluster)
            await _names_served(cluster)


async def _names_served(cluster: Cluster) -> None:
    await cluster.wait("deployment/coredns", "condition=Available", "--namespace=kube-system")


def _explained(cluster: Cluster, failure: Exception) -> Exception:
    """A failure, with the ends of the logs, which go with the cluster."""
    logs = sorted(cluster.folder.glob("*/*.log"))
    ends = {log: log.read_text(errors="replace").splitlines()[-_LAST_LINES:] for log in logs}
    said = "\n".join(f"{log.parent.name} {log.stem}: {line}" for log, lines in ends.items() for line in lines if line)
    said = "\n".join((said, *(f"{name}: {text}" for name, text in ours.logs(cluster).items())))
    return Failures([failure, Told(said)]) if said else failure
