"""A container runtime's side of CNI, as libcni does it: configuration, plug-ins one after another, results kept.

Here: which list is used, in which version; what each plug-in gets on standard input and in its environment; prevResult
from plug-in to plug-in and from ADD to CHECK and DEL; errors in libcni's words. Not here: namespaces (`machines`), and
what a runtime does about a failure: containerd sends a DEL after a failed ADD, podman does not.
Source: CNI specification 1.1, sections 1 to 5, and libcni's behaviour where that leaves a choice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from calipy.console.failures import Told
from calipy.lab.executions import Completed

Execute = Callable[[Sequence[str], Mapping[str, str], bytes], Awaitable[Completed]]
"""Runs a program (argv, environment, standard input) to its end; `Machine.execute` is one."""

NEWEST: Final = "1.1.0"
"""The newest version of the specification that this runtime knows; a list's newer ones are passed over."""
T = TypeVar("T")
_SUFFIXES: Final = (".conflist", ".conf", ".json")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIND: Final = 'for folder; do [ -x "$folder/$0" ] && echo "$folder/$0" && exit 0; done; exit 1'
_VERBS: Final = {"ADD": "add", "DEL": "delete", "CHECK": "check", "STATUS": "status", "GC": "gc", "VERSION": "version"}
"""As libcni's messages call them."""


class CniFailure(Told):
    """A verb failed. Reads as libcni's error, which runtimes show to their users."""

    def __init__(self, code: int, msg: str, details: str = "", plugin: str = "", verb: str = "") -> None:
        """`code`: the plug-in's; 0 where nobody gave one. `plugin`: its type; empty where none was reached."""
        where = f'plugin type="{plugin}" failed ({verb}): ' if plugin else ""
        super().__init__(f"{where}{msg}" + (f"; {details}" if details else ""))
        self.code = code
        self.msg = msg
        self.details = details
        self.plugin = plugin


class Interface(Struct, frozen=True, gc=False):
    """An interface of a result; an empty sandbox: on the node."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0


class Address(Struct, frozen=True, gc=False):
    """An address of a result, with its prefix length; `interface` is an index into the result's."""

    address: str
    gateway: str | None = None
    interface: int | None = None


class Route(Struct, frozen=True, gc=False):
    """A route of a result."""

    destination: str = field(name="dst")
    gateway: str | None = field(name="gw", default=None)


class Added(Struct, frozen=True, gc=False, kw_only=True):
    """What the last plug-in of the list answered to ADD."""

    version: str = field(name="cniVersion", default="")
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    raw: bytes = b""
    """The result as it was printed (JSON)."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The container's addresses, without prefix lengths."""
        return tuple(entry.address.partition("/")[0] for entry in self.ips)


class _Complaint(Struct, frozen=True, gc=False):
    code: int = 0
    msg: str = ""
    details: str = ""


class _Versions(Struct, frozen=True, gc=False, kw_only=True):
    supported: tuple[str, ...] = field(name="supportedVersions")


class _List(Struct, frozen=True, gc=False, kw_only=True):
    """A file of the configuration folder."""

    name: str = ""
    version: str = field(name="cniVersion", default="0.1.0")
    versions: tuple[str, ...] = field(name="cniVersions", default=())
    disable_check: bool = field(name="disableCheck", default=False)
    disable_gc: bool = field(name="disableGC", default=False)
    plugins: tuple[Mapping[str, object], ...] = ()

    def chosen(self) -> str:
        """The newest version that both sides know."""
        if not self.versions:
            return self.version
        known = [entry for entry in (*self.versions, self.version) if _ordered(entry) <= _ordered(NEWEST)]
        return max(known, key=_ordered, default=self.version)


class _Cached(Struct, frozen=True, gc=False, kw_only=True):
    """What is kept of an attachment (libcni's cniCacheV1; less the configuration, which nobody reads back)."""

    kind: str = "cniCacheV1"
    container_id: str = field(name="containerId")
    interface: str = field(name="ifName")
    network: str = field(name="networkName")
    netns: str
    result: Raw


class _Attachment(Struct, frozen=True, gc=False, kw_only=True):
    """Whom a verb is about."""

    container_id: str = ""
    netns: str = ""
    interface: str = ""
    args: Mapping[str, str] = {}
    capabilities: Mapping[str, object] = {}

    def environment(self, verb: str, binaries: Sequence[str]) -> dict[str, str]:
        return {
            "PATH": _PATH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in self.args.items()),
            "CNI_IFNAME": self.interface,
            "CNI_PATH": ":".join(binaries),
        }


class Runtime:
    """The runtime of one machine. The folder of configurations is read anew for each verb."""

    def __init__(
        self, execute: Execute, configurations: Path, cache: Path, binaries: Sequence[str] = ("/opt/cni/bin",)
    ) -> None:
        """`configurations`: the machine's /etc/cni/net.d and `cache`: a folder for results, both as the host sees
        them; `binaries`: folders on the machine."""
        self._execute = execute
        self._configurations = configurations
        self._cache = cache
        self._binaries = tuple(binaries)
        self._found: dict[str, str] = {}

    async def add(
        self,
        container_id: str,
        netns: str,
        *,
        interface: str = "eth0",
        args: Mapping[str, str] = {},
        capabilities: Mapping[str, object] = {},
    ) -> Added:
        """Attaches a container. `netns`: its namespace as the machine sees it. `capabilities` are passed on as far as
        the list asks for them. Raises CniFailure; what was done until then stays until `delete`."""
        network = self._network()
        attachment = _Attachment(
            container_id=container_id, netns=netns, interface=interface, args=args, capabilities=capabilities
        )
        result: bytes = b""
        for plugin in network.plugins:
            result = await self._call("ADD", network, plugin, attachment, {"prevResult": Raw(result)} if result else {})
            result = _versioned(result, network.chosen(), plugin)
        added = msgspec.json.decode(result, type=Added)
        self._keep(network, attachment, result)
        return msgspec.structs.replace(added, raw=result)

    async def delete(
        self,
        container_id: str,
        netns: str = "",
        *,
        interface: str = "eth0",
        args: Mapping[str, str] = {},
        capabilities: Mapping[str, object] = {},
    ) -> None:
        """Detaches a container: the plug-ins in reverse order, until one fails (CniFailure); then the result of ADD is
        kept for the next try."""
        attachment = _Attachment(
            container_id=container_id, netns=netns, interface=interface, args=args, capabilities=capabilities
        )
        await self._delete(self._network(), attachment)

    async def check(
        self,
        container_id: str,
        netns: str,
        *,
        interface: str = "eth0",
        args: Mapping[str, str] = {},
        capabilities: Mapping[str, object] = {},
    ) -> None:
        """Checks an attachment against the result of its ADD; silent if the list disables that. Raises CniFailure."""
        network = self._network()
        if _ordered(network.chosen()) < _ordered("0.4.0"):
            raise CniFailure(0, f'configuration version "{network.chosen()}" does not support CHECK command')
        if network.disable_check:
            return
        attachment = _Attachment(
            container_id=container_id, netns=netns, interface=interface, args=args, capabilities=capabilities
        )
        result = self._kept(network, attachment)
        if not result:
            raise CniFailure(0, f'failed to get network "{network.name}" cached result: none for {container_id}')
        for plugin in network.plugins:
            await self._call("CHECK", network, plugin, attachment, {"prevResult": Raw(result)})

    async def status(self) -> None:
        """Asks each plug-in if it is ready for ADD; before version 1.1.0 nobody can be asked. Raises CniFailure."""
        network = self._network()
        if _ordered(network.chosen()) >= _ordered("1.1.0"):
            for plugin in network.plugins:
                await self._call("STATUS", network, plugin, _Attachment(), {})

    async def gc(self, valid: Iterable[tuple[str, str]]) -> None:
        """Takes back what belongs to none of these (container ID, interface): DEL for each whose ADD is remembered,
        then GC to each plug-in. Raises CniFailure, the first, when all are done."""
        network = self._network()
        if network.disable_gc:
            return
        alive = tuple(valid)
        failures: list[CniFailure] = []
        for stale in self._stale(network, frozenset(alive)):
            try:
                await self._delete(network, stale)
            except CniFailure as failure:
                failures.append(failure)
        entries = [{"containerID": container_id, "ifname": interface} for container_id, interface in alive]
        inject = {"cni.dev/valid-attachments": entries, "cni.dev/attachments": entries}
        for plugin in network.plugins if _ordered(network.chosen()) >= _ordered("1.1.0") else ():
            try:
                await self._call("GC", network, plugin, _Attachment(), inject)
            except CniFailure as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    async def versions(self) -> Mapping[str, tuple[str, ...]]:
        """The versions that each plug-in says it speaks, by its type. Raises CniFailure."""
        network = self._network()
        dummy = _Attachment(netns="dummy", interface="dummy")
        found: dict[str, tuple[str, ...]] = {}
        for plugin in network.plugins:
            name = str(plugin["type"])
            said = await self._run("VERSION", name, dummy, msgspec.json.encode({"cniVersion": NEWEST}))
            found[name] = _decoded(said, _Versions, name, "VERSION").supported
        return found

    # --- configuration ---

    def _network(self) -> _List:
        """The first configuration by file name. Raises CniFailure if there is none, or it can't be used."""
        try:
            paths = sorted(path for path in self._configurations.iterdir() if path.suffix in _SUFFIXES)
        except FileNotFoundError:
            paths = []
        if not paths:
            raise CniFailure(0, f"no networks found in {self._configurations}")
        path = paths[0]
        try:
            content = path.read_bytes()
            network = msgspec.json.decode(content, type=_List)
            if path.suffix != ".conflist":  # one plug-in's configuration is a list of one
                network = msgspec.structs.replace(network, plugins=(msgspec.json.decode(content, type=dict),))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CniFailure(0, f"error parsing configuration {path}: {error}") from error
        if not network.name:
            raise CniFailure(0, f"error parsing configuration {path}: no name")
        if not network.plugins or not all(isinstance(plugin.get("type"), str) for plugin in network.plugins):
            raise CniFailure(0, f"error parsing configuration {path}: no plugins in list, or one without a type")
        return network

    # --- results ---

    def _place(self, network: _List, attachment: _Attachment) -> Path:
        return self._cache / "results" / f"{network.name}-{attachment.container_id}-{attachment.interface}"

    def _keep(self, network: _List, attachment: _Attachment, result: bytes) -> None:
        path = self._place(network, attachment)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = _Cached(
            container_id=attachment.container_id,
            interface=attachment.interface,
            network=network.name,
            netns=attachment.netns,
            result=Raw(result),
        )
        new = path.with_name(f".{path.name}")
        new.write_bytes(msgspec.json.encode(kept))
        os.replace(new, path)

    def _kept(self, network: _List, attachment: _Attachment) -> bytes:
        """The result of an ADD in the list's version; empty if there is none that can be read."""
        path = self._place(network, attachment)
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Cached)
        except FileNotFoundError:
            return b""
        except (msgspec.MsgspecError, UnicodeDecodeError):
            path.unlink()
            return b""
        return _converted(bytes(kept.result), network.chosen())

    def _stale(self, network: _List, valid: frozenset[tuple[str, str]]) -> Iterable[_Attachment]:
        for path in sorted((self._cache / "results").glob("[!.]*")):
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=_Cached)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # as libcni: what can't be read names no attachment
            if kept.network == network.name and (kept.container_id, kept.interface) not in valid:
                yield _Attachment(container_id=kept.container_id, netns=kept.netns, interface=kept.interface)

    # --- plug-ins ---

    async def _delete(self, network: _List, attachment: _Attachment) -> None:
        result = self._kept(network, attachment) if _ordered(network.chosen()) >= _ordered("0.4.0") else b""
        for plugin in reversed(network.plugins):
            await self._call("DEL", network, plugin, attachment, {"prevResult": Raw(result)} if result else {})
        self._place(network, attachment).unlink(missing_ok=True)

    async def _call(
        self,
        verb: str,
        network: _List,
        plugin: Mapping[str, object],
        attachment: _Attachment,
        inject: Mapping[str, object],
    ) -> bytes:
        """Runs a plug-in with its configuration; what it printed."""
        given: dict[str, object] = {**plugin, "name": network.name, "cniVersion": network.chosen(), **inject}
        asked = plugin.get("capabilities")
        wanted = {key for key, wish in asked.items() if wish is True} if isinstance(asked, dict) else set()
        runtime = {key: value for key, value in attachment.capabilities.items() if key in wanted}
        if runtime:
            given["runtimeConfig"] = runtime
        name = str(plugin["type"])
        return await self._run(verb, name, attachment, msgspec.json.encode(dict(sorted(given.items()))))

    async def _run(self, verb: str, name: str, attachment: _Attachment, stdin: bytes) -> bytes:
        path = await self._find(name)
        done = await self._execute([path], attachment.environment(verb, self._binaries), stdin)
        if done.status:
            complaint = _complaint(done)
            raise CniFailure(complaint.code, complaint.msg, complaint.details, name, _VERBS[verb])
        return done.stdout

    async def _find(self, name: str) -> str:
        """Where a plug-in lies on the machine."""
        if name not in self._found:
            done = await self._execute(["sh", "-c", _FIND, name, *self._binaries], {"PATH": _PATH}, b"")
            if "/" in name or done.status:
                raise CniFailure(0, f'failed to find plugin "{name}" in path [{" ".join(self._binaries)}]')
            self._found[name] = done.text.strip()
        return self._found[name]


def _ordered(version: str) -> tuple[int, ...]:
    """A version as it compares. Raises CniFailure for what is none."""
    try:
        return tuple(int(part) for part in version.split("."))
    except ValueError as error:
        raise CniFailure(0, f'failed to parse version "{version}"') from error


def _complaint(done: Completed) -> _Complaint:
    """What a plug-in says of its failure, in libcni's words where it says nothing that can be read."""
    if not done.stdout:
        stderr = done.stderr.decode(errors="replace")
        if stderr:
            return _Complaint(msg=f"netplugin failed: {json.dumps(stderr)}")
        return _Complaint(msg=f"netplugin failed with no error message: exit status {done.status}")
    try:
        return msgspec.json.decode(done.stdout, type=_Complaint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        said = json.dumps(done.stdout.decode(errors="replace"))
        return _Complaint(msg=f"netplugin failed but error parsing its diagnostic message {said}: {error}")


def _decoded(said: bytes, kind: type[T], plugin: str, verb: str) -> T:
    try:
        return msgspec.json.decode(said, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CniFailure(0, f"can't read the answer: {error}", plugin=plugin, verb=_VERBS[verb]) from error


def _versioned(said: bytes, version: str, plugin: Mapping[str, object]) -> bytes:
    """A result that says which version it is: the one asked for where the plug-in doesn't say."""
    name = str(plugin["type"])
    result = dict(_decoded(said, dict[str, object], name, "ADD"))
    given = result.setdefault("cniVersion", version)
    if given not in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        raise CniFailure(0, f'unsupported CNI result version "{given}"', plugin=name, verb="add")
    _decoded(said, Added, name, "ADD")
    return msgspec.json.encode(result)


def _converted(said: bytes, version: str) -> bytes:
    """A result in another version: before 1.0.0 each address says its family."""
    result = msgspec.json.decode(said, type=dict[str, object])
    result["cniVersion"] = version
    addresses = msgspec.convert(result.get("ips", []), type=list[dict[str, object]])
    for entry in addresses:
        entry.pop("version", None)
        if _ordered(version) < _ordered("1.0.0"):
            entry["version"] = "6" if ":" in str(entry["address"]) else "4"
    if addresses:
        result["ips"] = addresses
    return msgspec.json.encode(result)
