"""A real Kubernetes cluster on this machine: its machines, its network, its nodes, switched on and off.

    control (rack a)  n1 n2 (rack a)  n3 (rack b)  outside        cabled to `tor`, as in calipy.lab.topology

`control` runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler; each node containerd, kubelet and
kube-proxy. Nothing of it is in the host's own network namespace but a gate: a loopback port that leads to the API
server. Its beginning and end: `lifecycle`.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from calipy.console.failures import Told
from calipy.lab import topology
from calipy.lab.cluster import PATH, ip_batch, set_sysctls
from calipy.lab.executions import Completed, execute
from calipy.lab.machines import PACKAGES, Machine
from calipy.lab.topology import TOR, Host
from calipy.lab.waiting import eventually, together
from tests.cluster import configuration, images
from tests.cluster.configuration import CONTROL, ETC, PROGRAMS, Proxy
from tests.cluster.control_plane import api_certificates, api_server_command, etcd_command, free_ports
from tests.cluster.pki import Pki

Network = Literal["calipy", "ptp", "none"]
_ENVIRONMENT: Final = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
_STATE: Final = ("/var/lib/containerd", "/var/lib/kubelet", "/var/lib/calico", "/var/lib/cni", "/var/log/pods")
_KEPT: Final = (*_STATE, "/etc/cni/net.d", "/opt/cni/bin", "/etc/kubernetes", "/etc/containerd")
"""A node's own disk: it outlives power cuts."""
_PLUGINS: Final = Path("/usr/lib/cni")
_START_S: Final = 90.0
_CGROUPS: Final = Path("/sys/fs/cgroup")


class ClusterError(Told):
    """The cluster did not do what it was asked: what was tried, and what was said."""


class Plan(Struct, frozen=True, gc=False, kw_only=True):
    """A cluster as it is asked for."""

    nodes: int = 3
    proxy: Proxy = "iptables"
    network: Network = "ptp"
    """calipy: ours, of manifests/, its image among `images`. ptp: a stand-in that carries packets and enforces nothing.
    none: nodes stay NotReady until somebody writes a CNI configuration."""
    programs: Path
    images: tuple[Path, ...] = ()
    """Archives of further images that every node has."""

    @property
    def underlay(self) -> topology.Plan:
        """Segments, addresses and cables."""
        return topology.Plan(count=self.nodes)


class Cluster:
    """A cluster that is on. `folder` holds everything of it."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.nodes: dict[str, Host] = {node.name: node for node in plan.underlay.nodes}
        self.pki = Pki(folder / "pki")
        names = (CONTROL.name, *plan.underlay.machines)
        self.machines = {name: Machine(name, folder / name, self._binds(name)) for name in names}

    @property
    def kubeconfig(self) -> Path:
        """The admin's, for use on this host (mode 0600)."""
        return self.folder / "pki" / "admin.kubeconfig"

    def _binds(self, name: str) -> dict[str, Path]:
        own = self.folder / name
        if name == CONTROL.name:
            return {str(ETC): self.pki.folder, "/var/lib/etcd": own / "etcd", str(PROGRAMS): self.plan.programs}
        if name in self.nodes:
            return {place: self.disk(name, place) for place in _KEPT} | {str(PROGRAMS): self.plan.programs}
        return {}

    def disk(self, node: str, place: str) -> Path:
        """Where a folder of a node's own disk (`/etc/cni/net.d`) lies on this host."""
        return self.folder / node / "disk" / place.strip("/")

    def cgroup(self, node: str) -> str:
        """Below which the cgroups of a node's pods lie."""
        return f"/{self.folder.name}-{node}"

    # --- clients ---

    async def kubectl(
        self,
        *arguments: str,
        stdin: str = "",
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout_s: float = 120.0,
    ) -> Completed:
        """Runs kubectl on this host, as admin or as another user. Raises ClusterError unless it succeeds (with
        `check`)."""
        config = ("--kubeconfig", str(kubeconfig or self.kubeconfig), "--cache-dir", str(self.folder / "kubectl"))
        argv = (str(self.plan.programs / "kubectl"), *config, *arguments)
        done = await execute(argv, stdin=stdin.encode(), timeout_s=timeout_s)
        if check and done.status:
            raise ClusterError(f"kubectl {shlex.join(arguments)}: status {done.status}: {done.complaint}")
        return done

    async def apply(self, manifest: str) -> None:
        """`kubectl apply` of YAML documents. Raises ClusterError."""
        await self.kubectl("apply", "-f", "-", stdin=manifest)

    async def exec(self, pod: str, *argv: str, namespace: str = "default", check: bool = True) -> Completed:
        """Runs a command in a pod. Raises ClusterError unless it succeeds (with `check`)."""
        return await self.kubectl("-n", namespace, "exec", pod, "--", *argv, check=check)

    def user_kubeconfig(self, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of a user who may nothing but what RBAC gives him."""
        return self.pki.kubeconfig(f"user-{name}", self._server, name, groups)

    @property
    def _server(self) -> str:
        return (self.folder / "server").read_text()

    async def wait(self, what: str, condition: str, *more: str, timeout_s: float = _START_S) -> None:
        """`kubectl wait`. Raises ClusterError."""
        arguments = ("wait", f"--for={condition}", *what.split(), f"--timeout={timeout_s:g}s", *more)
        await self.kubectl(*arguments, timeout_s=timeout_s + 10)

    async def ready(self, *nodes: str, timeout_s: float = _START_S) -> None:
        """Waits until nodes, or all, are Ready. Raises ClusterError."""
        names = " ".join(f"node/{name}" for name in nodes or self.nodes)
        await self.wait(names, "condition=Ready", timeout_s=timeout_s)

    # --- machines and cables ---

    async def switch_on(self) -> None:
        """All machines, and the cables between them."""
        await together(machine.start() for machine in self.machines.values())
        plan, tor = self.plan.underlay, self.machines[TOR]
        await set_sysctls(tor, (*topology.forwarding(plan), *topology.prompt(plan, "default")))
        await ip_batch(tor, topology.tor_links(plan))
        await together(self._plug(host) for host in (CONTROL, *plan.nodes, plan.outside))

    async def _plug(self, host: Host) -> None:
        plan, machine = self.plan.underlay, self.machines[host.name]
        await ip_batch(self.machines[TOR], topology.cable(host, machine.pid), outer=True)
        routing = topology.forwarding(plan) if host.name in self.nodes else ()
        await set_sysctls(machine, (*routing, *topology.prompt(plan, topology.UPLINK)))
        await ip_batch(machine, topology.host_links(plan, host))

    # --- the control plane ---

    async def install(self, template: Path) -> None:
        """What is there before anything runs: certificates, kubeconfigs, the gate's port, and the nodes' disks, with
        the images of a containerd root."""
        if not (self.folder / "server").exists():
            (self.folder / "server").write_text(f"https://127.0.0.1:{free_ports(1)[0]}")
        await asyncio.to_thread(self._certify)
        for node in self.nodes.values():
            await asyncio.to_thread(self._install, node)
            await asyncio.to_thread(images.link, template, self.disk(node.name, "/var/lib/containerd"))

    def _certify(self) -> None:
        api_certificates(self.pki, ("127.0.0.1", CONTROL.address(4), CONTROL.address(6)))
        self.pki.kubeconfig("admin", self._server, "kubernetes-admin", ["system:masters"])
        for name in ("controller-manager", "scheduler", "proxy"):
            self.pki.kubeconfig(name, configuration.SERVER, f"system:kube-{name}")

    def _install(self, node: Host) -> None:
        """A node's own disk as an installer leaves it."""
        name, etc = node.name, self.disk(node.name, str(ETC))
        for place in _KEPT:
            self.disk(name, place).mkdir(parents=True, exist_ok=True)
        addresses = [f"DNS:{name}", *(f"IP:{node.address(family)}" for family in (4, 6))]
        identity = (f"kubelet-{name}", f"system:node:{name}", ["system:nodes"])
        certificate = self.pki.certificate(*identity, addresses=addresses)
        shutil.copy2(certificate, etc / "kubelet.crt")
        shutil.copy2(self.pki.key(identity[0]), etc / "kubelet.key")
        shutil.copy2(self.pki.ca, etc / "ca.crt")
        shutil.copy2(self.pki.kubeconfig(identity[0], configuration.SERVER, *identity[1:]), etc / "kubelet.kubeconfig")
        shutil.copy2(self.pki.folder / "proxy.kubeconfig", etc / "kube-proxy.kubeconfig")
        (etc / "kubelet.json").write_bytes(configuration.kubelet(self.cgroup(name)))
        (etc / "kube-proxy.json").write_bytes(configuration.kube_proxy(name, self.plan.proxy))
        (self.disk(name, "/etc/containerd") / "containerd.toml").write_text(configuration.containerd())
        for plugin in ("loopback",) if self.plan.network == "none" else ("loopback", "ptp", "host-local", "portmap"):
            shutil.copy2(_PLUGINS / plugin, self.disk(name, "/opt/cni/bin") / plugin)

    async def start_control_plane(self) -> None:
        """etcd, the API server and its gate; waits until it serves."""
        machine = self.machines[CONTROL.name]
        await machine.spawn("etcd", etcd_command(PROGRAMS, Path("/var/lib/etcd"), 2379, 2380), _ENVIRONMENT)
        await self.start_api()
        await self.open_gate()
        await self.api_ready()

    async def start_api(self) -> None:
        """Starts kube-apiserver, over what etcd holds; doesn't wait until it serves."""
        where = ("--bind-address=::", "--secure-port=6443", f"--advertise-address={CONTROL.address(4)}")
        command = api_server_command(PROGRAMS, ETC, 2379, *where)
        await self.machines[CONTROL.name].spawn("kube-apiserver", command, _ENVIRONMENT)

    async def stop_api(self) -> None:
        """Ends kube-apiserver, for good."""
        process = self.machines[CONTROL.name].process("kube-apiserver")
        await process.stop()

    async def api_ready(self, timeout_s: float = _START_S) -> None:
        """Waits until the API server serves. Raises Failure."""

        async def serves() -> bool | str:
            done = await self.kubectl("get", "--raw", "/readyz", check=False, timeout_s=10.0)
            return done.text == "ok" or done.complaint

        await eventually(serves, "kube-apiserver", timeout_s)
        await self.wait("namespace/default", "create")

    async def start_managers(self) -> None:
        """What makes Deployments pods and finds them nodes."""
        machine = self.machines[CONTROL.name]
        commands = (configuration.controller_manager_command(ETC), configuration.scheduler_command(ETC))
        for name, command in zip(("kube-controller-manager", "kube-scheduler"), commands, strict=True):
            await machine.spawn(name, command, _ENVIRONMENT)

    async def open_gate(self) -> None:
        """Starts the process that takes connections from this host's loopback; it ends with the machine `control`."""
        pid = self.machines[CONTROL.name].pid
        with socket.create_server(("127.0.0.1", int(self._server.rpartition(":")[2]))) as listener:
            descriptor = listener.fileno()
            inner = (sys.executable, "-m", "tests.cluster.gate", str(descriptor), str(pid), "127.0.0.1", "6443")
            with (self.folder / "gate.log").open("ab") as log:
                launcher = await asyncio.create_subprocess_exec(
                    *("setsid", "--fork", "nsenter", "-t", str(pid), "--net", "--", *inner),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(descriptor,), cwd=PACKAGES,
                )  # fmt: skip
            await launcher.wait()

    # --- nodes ---

    async def start_runtime(self, name: str) -> None:
        """A node's containerd; waits until it serves."""
        machine = self.machines[name]
        await machine.run("sh", "-ec", _preparation())
        await asyncio.to_thread(_make_cgroup, self.cgroup(name))
        await machine.spawn("containerd", configuration.CONTAINERD, _ENVIRONMENT, alone=True)

        async def serves() -> bool | str:
            done = await machine.run("ctr", "version", check=False)
            return not done.status or done.complaint

        await eventually(serves, f"{name}: containerd", _START_S)

    async def start_kubelet(self, name: str) -> None:
        """A node's kubelet and kube-proxy; waits until the node is registered."""
        machine = self.machines[name]
        await machine.spawn("kubelet", configuration.kubelet_command(self.nodes[name]), _ENVIRONMENT, alone=True)
        if self.plan.proxy != "none":
            await machine.spawn("kube-proxy", configuration.KUBE_PROXY, _ENVIRONMENT)
        await self.wait(f"node/{name}", "create")

    async def power_off(self, name: str) -> None:
        """A power cut of a node. Nobody hears of it: the cable is out before the kernel could close connections."""
        await self.machines[TOR].run("ip", "link", "delete", name, check=False)
        await self.machines[name].power_cut()
        await asyncio.to_thread(remove_cgroups, self.cgroup(name))

    async def power_on(self, name: str) -> None:
        """Switches a node on that was off, over what its disk holds; waits until its kubelet reports again."""
        machine = self.machines[name]
        await machine.start()
        await self._plug(self.nodes[name])
        await self.start_runtime(name)
        await self.start_kubelet(name)

    async def load(self, archive: Path) -> None:
        """Imports an image's archive on every node."""
        await together(self._load(name, archive) for name in self.nodes)

    async def _load(self, name: str, archive: Path) -> None:
        at = self.disk(name, "/var/lib/containerd") / "import.tar"
        await asyncio.to_thread(shutil.copyfile, archive, at)
        command = (*configuration.IMPORT, "/var/lib/containerd/import.tar")
        await self.machines[name].run(*command, timeout_s=_START_S)
        at.unlink()


def _preparation() -> str:
    """What a node's machine needs besides, each time it is switched on: pods' mounts may pass on (Bidirectional), and
    what is the whole host's looks as kubelet wants it."""
    lines = ["mount --make-rshared /", "mkdir /run/fixed"]
    for name, value in configuration.FIXED_SYSCTLS.items():
        at = f"/run/fixed/{name.replace('/', '.')}"
        lines.append(f"[ ! -e /proc/sys/{name} ] || {{ echo {value} >{at}; mount --bind {at} /proc/sys/{name}; }}")
    lines += [f"echo 0 >/proc/sys/net/ipv4/conf/{scope}/rp_filter" for scope in ("all", "default")]
    return "\n".join(lines)


def _hierarchies() -> list[Path]:
    """The cgroup hierarchies of this host: one (v2), or one a controller (v1) and, perhaps, v2's without any."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [top for top in _CGROUPS.iterdir() if top.is_dir() and not top.is_symlink()]


def _make_cgroup(name: str) -> None:
    """kubelet wants its root in every hierarchy, and in cpuset with something in it."""
    for top in _hierarchies():
        place = top / name.strip("/")
        place.mkdir(exist_ok=True)
        if top.name == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (place / file).write_text((top / file).read_text())
            (place / "cgroup.clone_children").write_text("1")


def remove_cgroups(name: str) -> None:
    """Removes a cgroup and all below it; nobody is left in them. Raises OSError."""
    for top in _hierarchies():
        for folder, _, _ in os.walk(top / name.strip("/"), topdown=False):
            os.rmdir(folder)
