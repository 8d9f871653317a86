"""A container runtime's side of CNI, as libcni does it: plug-ins one after another.

Here: what each plug-in gets on standard input and in its environment; prevResult from plug-in to plug-in and from ADD
to CHECK and DEL; how long a verb may take. Which list is used, and in which version: `cni_lists`. What is kept of an
ADD: `cni_results`. Errors in libcni's words: `cni_failures`. Not here: namespaces (`machines`), and what a runtime does
about a failure: containerd sends a DEL after a failed ADD, podman does not.
Source: CNI specification 1.1, sections 1 to 5, and libcni's behaviour where that leaves a choice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from calipy.lab.cni_failures import CniFailure, decoded, failed
from calipy.lab.cni_lists import NEWEST, NetworkList, first, ordered
from calipy.lab.cni_results import Added, Attachment, Results, versioned
from calipy.lab.executions import Completed

Execute = Callable[[Sequence[str], Mapping[str, str], bytes], Awaitable[Completed]]
"""Runs a program (argv, environment, standard input) to its end, and kills it when cancelled; `Machine.execute` is
one."""

ADD_LIMIT_S: Final = 65.0
"""So long an ADD may take: the agent's own patience is 60 s, and its reason is worth more than ours."""
LIMIT_S: Final = 25.0
"""The same for every other verb. An ADD without an answer is taken back: a minute and a half in all."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIND: Final = 'for folder; do [ -x "$folder/$0" ] && echo "$folder/$0" && exit 0; done; exit 1'


class _Versions(Struct, frozen=True, gc=False, kw_only=True):
    supported: tuple[str, ...] = field(name="supportedVersions")


class Runtime:
    """The runtime of one machine. The folder of configurations is read anew for each verb."""

    def __init__(
        self,
        execute: Execute,
        configurations: Path,
        cache: Path,
        binaries: Sequence[str] = ("/opt/cni/bin",),
        *,
        add_limit_s: float = ADD_LIMIT_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        """`configurations`: the machine's /etc/cni/net.d and `cache`: a folder for results, both as the host sees
        them; `binaries`: folders on the machine. A verb that has not ended within its limit is ended, and fails."""
        self._execute = execute
        self._configurations = configurations
        self._results = Results(cache / "results")
        self._binaries = tuple(binaries)
        self._add_limit_s, self._limit_s = add_limit_s, limit_s
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
        network = first(self._configurations)
        attachment = Attachment(
            container_id=container_id, netns=netns, interface=interface, args=args, capabilities=capabilities
        )
        result: bytes = b""
        async with self._limited("ADD", network):
            for plugin in network.plugins:
                before = {"prevResult": Raw(result)} if result else {}
                result = await self._call("ADD", network, plugin, attachment, before)
                result = versioned(result, network.chosen(), plugin)
        added = msgspec.json.decode(result, type=Added)
        self._results.keep(network, attachment, result)
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
        attachment = Attachment(
            container_id=container_id, netns=netns, interface=interface, args=args, capabilities=capabilities
        )
        await self._delete(first(self._configurations), attachment)

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
        network = first(self._configurations)
        if ordered(network.chosen()) < ordered("0.4.0"):
            raise CniFailure(0, f'configuration version "{network.chosen()}" does not support CHECK command')
        if network.disable_check:
            return
        attachment = Attachment(
            container_id=container_id, netns=netns, interface=interface, args=args, capabilities=capabilities
        )
        result = self._results.kept(network, attachment)
        if not result:
            raise CniFailure(0, f'failed to get network "{network.name}" cached result: none for {container_id}')
        async with self._limited("CHECK", network):
            for plugin in network.plugins:
                await self._call("CHECK", network, plugin, attachment, {"prevResult": Raw(result)})

    async def status(self) -> None:
        """Asks each plug-in if it is ready for ADD; before version 1.1.0 nobody can be asked. Raises CniFailure."""
        network = first(self._configurations)
        if ordered(network.chosen()) >= ordered("1.1.0"):
            async with self._limited("STATUS", network):
                for plugin in network.plugins:
                    await self._call("STATUS", network, plugin, Attachment(), {})

    async def gc(self, valid: Iterable[tuple[str, str]]) -> None:
        """Takes back what belongs to none of these (container ID, interface): DEL for each whose ADD is remembered,
        then GC to each plug-in. Raises CniFailure, the first, when all are done."""
        network = first(self._configurations)
        if network.disable_gc:
            return
        alive = tuple(valid)
        failures: list[CniFailure] = []
        for stale in self._results.stale(network, frozenset(alive)):
            try:
                await self._delete(network, stale)
            except CniFailure as failure:
                failures.append(failure)
        entries = [{"containerID": container_id, "ifname": interface} for container_id, interface in alive]
        inject = {"cni.dev/valid-attachments": entries, "cni.dev/attachments": entries}
        for plugin in network.plugins if ordered(network.chosen()) >= ordered("1.1.0") else ():
            try:
                async with self._limited("GC", network):
                    await self._call("GC", network, plugin, Attachment(), inject)
            except CniFailure as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    async def versions(self) -> Mapping[str, tuple[str, ...]]:
        """The versions that each plug-in says it speaks, by its type. Raises CniFailure."""
        network = first(self._configurations)
        dummy = Attachment(netns="dummy", interface="dummy")
        found: dict[str, tuple[str, ...]] = {}
        async with self._limited("VERSION", network):
            for plugin in network.plugins:
                name = str(plugin["type"])
                said = await self._run("VERSION", name, dummy, msgspec.json.encode({"cniVersion": NEWEST}))
                found[name] = decoded(said, _Versions, name, "VERSION").supported
        return found

    @contextlib.asynccontextmanager
    async def _limited(self, verb: str, network: NetworkList) -> AsyncIterator[None]:
        """Ends what is done within when its time is over. Raises CniFailure then."""
        limit_s = self._add_limit_s if verb == "ADD" else self._limit_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            said = f'network "{network.name}": {verb} has not ended in {limit_s:g} s, and was ended'
            raise CniFailure(0, said) from error

    async def _delete(self, network: NetworkList, attachment: Attachment) -> None:
        result = self._results.kept(network, attachment) if ordered(network.chosen()) >= ordered("0.4.0") else b""
        async with self._limited("DEL", network):
            for plugin in reversed(network.plugins):
                await self._call("DEL", network, plugin, attachment, {"prevResult": Raw(result)} if result else {})
        self._results.forget(network, attachment)

    async def _call(
        self,
        verb: str,
        network: NetworkList,
        plugin: Mapping[str, object],
        attachment: Attachment,
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

    async def _run(self, verb: str, name: str, attachment: Attachment, stdin: bytes) -> bytes:
        path = await self._find(name)
        done = await self._execute([path], self._environment(verb, attachment), stdin)
        if done.status:
            raise failed(done, name, verb)
        return done.stdout

    def _environment(self, verb: str, attachment: Attachment) -> dict[str, str]:
        return {
            "PATH": _PATH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": attachment.netns,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in attachment.args.items()),
            "CNI_IFNAME": attachment.interface,
            "CNI_PATH": ":".join(self._binaries),
        }

    async def _find(self, name: str) -> str:
        """Where a plug-in lies on the machine."""
        if name not in self._found:
            done = await self._execute(["sh", "-c", _FIND, name, *self._binaries], {"PATH": _PATH}, b"")
            if "/" in name or done.status:
                raise CniFailure(0, f'failed to find plugin "{name}" in path [{" ".join(self._binaries)}]')
            self._found[name] = done.text.strip()
        return self._found[name]
