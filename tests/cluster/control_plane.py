"""What the programs of a control plane are told, and an API server alone: etcd and kube-apiserver on this host's
loopback, without root, gone at the end.

    with ApiServer.running() as api:
        api.kubectl("apply", "-f", "-", stdin=text, check=True)
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from calipy.console.failures import Told
from tests.cluster import binaries
from tests.cluster.pki import FRONT_PROXY_CA, SERVICE_ACCOUNTS, Pki

SERVICE_CIDRS: Final = ("10.96.0.0/16", "fd00:10:96::/112")
API_SERVICE: Final = ("10.96.0.1", "fd00:10:96::1")
"""Addresses of the Service `kubernetes`."""
_PREFIX: Final = "calipy-api-"
_PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel hands to clients: one of these is still free when a stopped server starts again."""
_START_S: Final = 60.0
_LOOK_S: Final = 0.05
_LAST_LINES: Final = 15


class ControlPlaneError(Told):
    """A program of the control plane doesn't do its work: which, and what it said last."""


def etcd_command(programs: Path, data: Path, client_port: int, peer_port: int) -> tuple[str, ...]:
    """etcd on the loopback, one member. It doesn't wait for the disk: what it keeps is worth nothing after a crash."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return (
        *(str(programs / "etcd"), "--data-dir", str(data), "--unsafe-no-fsync", "--log-level", "warn"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
    )


def api_certificates(pki: Pki, addresses: Sequence[str]) -> None:
    """The files that `api_server_command` names. `addresses`: where the server is reached, besides its Service."""
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    reached = (*API_SERVICE, *addresses)
    names = [f"DNS:{name}" for name in (*service, "localhost")] + [f"IP:{address}" for address in reached]
    pki.certificate("apiserver", "kube-apiserver", addresses=names)
    pki.certificate("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
    pki.certificate("front-proxy-client", "front-proxy-client", authority=FRONT_PROXY_CA)
    pki.public_key(SERVICE_ACCOUNTS)


def api_server_command(programs: Path, pki: Path, etcd_port: int, *extra: str) -> tuple[str, ...]:
    """kube-apiserver with the authorizers and admission plug-ins of a kubeadm cluster. `pki`: the certificates' folder
    as the server sees it."""
    return (
        str(programs / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--service-cluster-ip-range={','.join(SERVICE_CIDRS)}",
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"),
        *(f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt"),
        f"--tls-private-key-file={pki}/apiserver.key",
        *(f"--kubelet-certificate-authority={pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP,Hostname"),
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/{SERVICE_ACCOUNTS}.pub",
        f"--service-account-signing-key-file={pki}/{SERVICE_ACCOUNTS}.key",
        f"--requestheader-client-ca-file={pki}/{FRONT_PROXY_CA}.crt",
        *("--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-"),
        *("--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User"),
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        *("--enable-aggregator-routing=true", "--profiling=false"),
        *extra,
    )


class ApiServer:
    """etcd and kube-apiserver, as children of this process: the kernel ends them with it, however it ends. Files lie
    in one folder, removed by `close`, or by the next start after a crash."""

    def __init__(self, programs: Path, folder: Path, extra: Sequence[str] = ()) -> None:
        """`extra`: further flags of kube-apiserver."""
        self.folder = folder
        self._programs = programs
        self._pki = Pki(folder / "pki")
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._extra = tuple(extra)
        api_certificates(self._pki, ("127.0.0.1",))
        self.kubeconfig = self._pki.kubeconfig("admin", self.url, "kubernetes-admin", ["system:masters"])

    @classmethod
    @contextlib.contextmanager
    def running(cls, *extra: str) -> Iterator[ApiServer]:
        """One that serves. Raises BuildError, ControlPlaneError."""
        programs = binaries.ensure(*binaries.API_SERVER)
        sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        try:
            api = cls(programs, folder, extra)
            try:
                api.start_etcd()
                api.start_api()
                yield api
            finally:
                api.close()
        finally:
            shutil.rmtree(folder)

    @property
    def url(self) -> str:
        """Where it serves, also when it is started again."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca(self) -> Path:
        """What signed its certificate (PEM)."""
        return self._pki.ca

    @property
    def log(self) -> Path:
        """What kube-apiserver printed."""
        return self.folder / "kube-apiserver.log"

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = False, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl, as admin or as another user. Raises ControlPlaneError unless it succeeds (with `check`)."""
        config = ("--kubeconfig", str(kubeconfig or self.kubeconfig), "--cache-dir", str(self.folder / "kubectl"))
        argv = (str(self._programs / "kubectl"), *config, *arguments)
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: status {done.returncode}: {said}")
        return done

    def user_kubeconfig(self, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig (mode 0600) of a user who may nothing but what RBAC gives him."""
        return self._pki.kubeconfig(f"user-{name}", self.url, name, groups)

    def stop_api(self) -> None:
        """Kills kube-apiserver: connections break; what it stored stays."""
        self._end("kube-apiserver")

    def start_api(self, *, wait: bool = True) -> None:
        """Starts kube-apiserver over what etcd holds and, with `wait`, waits until it is ready. Raises
        ControlPlaneError."""
        extra = (f"--secure-port={self._port}", "--bind-address=127.0.0.1", "--advertise-address=192.0.2.1")
        # Nobody reaches it through its Service, and no endpoint may be a loopback address.
        reconciler = "--endpoint-reconciler-type=none"
        command = api_server_command(
            self._programs, self._pki.folder, self._etcd_port, *extra, reconciler, *self._extra
        )
        self._spawn("kube-apiserver", command)
        if wait:
            self._await("kube-apiserver", self.ready)

    def ready(self) -> bool:
        """True if it serves, and has what it makes itself: roles, and the namespace `default`."""
        return self._answers("/readyz") and self.kubectl("get", "namespace", "default").returncode == 0

    def start_etcd(self) -> None:
        """Starts etcd, and waits until it is ready. Raises ControlPlaneError."""
        data = self.folder / "etcd"
        self._spawn("etcd", etcd_command(self._programs, data, self._etcd_port, self._peer_port))
        self._await("etcd", self._etcd_ready)

    def compact(self) -> None:
        """Makes etcd forget all revisions but the newest. Lists and watches that go on from an older one get 410 Gone,
        once kube-apiserver, whose cache still has it, is started again."""
        status = self._ask_etcd("/v3/maintenance/status", {})
        header = status["header"]
        assert isinstance(header, dict)
        self._ask_etcd("/v3/kv/compaction", {"revision": header["revision"], "physical": True})

    def close(self) -> None:
        """Ends both."""
        for name in tuple(self._processes):
            self._end(name)

    def _ask_etcd(self, path: str, question: dict[str, object]) -> dict[str, object]:
        request = urllib.request.Request(f"http://127.0.0.1:{self._etcd_port}{path}", json.dumps(question).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.load(answer)
        assert isinstance(found, dict)
        return found

    def _etcd_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._etcd_port}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def _answers(self, path: str) -> bool:
        trust = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5, context=trust):
                return True
        except OSError:
            return False

    def _spawn(self, name: str, argv: Sequence[str]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ControlPlaneError(f"{name}: start it from the main thread: it ends with the thread that started it")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", *argv),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        end_s = time.monotonic() + _START_S
        while not ready():
            status = self._processes[name].poll()
            if status is not None or time.monotonic() > end_s:
                fate = "is not ready in time" if status is None else f"ended with status {status}"
                last = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-_LAST_LINES:]
                raise ControlPlaneError("\n".join((f"{name} {fate}; it said last:", *last)))
            time.sleep(_LOOK_S)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody on this host has."""
    with contextlib.ExitStack() as taken:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            attempt = taken.enter_context(socket.socket())
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise ControlPlaneError(f"no {count} free ports in {_PORTS}")


def sweep() -> None:
    """Removes what runs left that were killed; their processes ended with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays
