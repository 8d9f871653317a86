"""Packets told by one place and heard by another, and whether policy as it stood just then lets them through.

Each packet is the first of a flow of its own, as far as connection tracking goes: nobody ever answers. The store's
history says which versions of policies and pods a node may have held when it judged the packet: of each kind all from
the one that it had programmed before the packet was sent, up to the newest that was stored when it came. The reference
evaluator judges each of those, sender's and receiver's end by themselves: a packet is

    forbidden   if under every version one end refuses it
    allowed     if under every version both ends let it through
    undecided   otherwise
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from calipy.cni.results import prefix
from calipy.datastore.stores import Conflict, NotFound, Store, Stored
from calipy.explain.query import Unanswered
from calipy.explain.reference import Packet, evaluate
from calipy.lab.cluster import Lab
from calipy.resources import (
    global_network_policies,
    kubernetes_network_policies,
    namespaces,
    network_policies,
    pods,
    tiers,
)
from calipy.resources.metadata import Key, Kind, ObjectMeta, Resource

Judgement = Literal["forbidden", "allowed", "undecided"]
KINDS: tuple[Kind[Any], ...] = (
    tiers.KIND, global_network_policies.KIND, network_policies.KIND, kubernetes_network_policies.KIND,
    namespaces.KIND, pods.KIND,
)  # fmt: skip
"""Those whose history counts."""
ASKED_EVERY_S = 0.005
DECIDED_WITHIN_NS = 100_000_000
"""A packet that was never heard was judged within this time of its sending: the kernel hands packets over links of this
kind on at once, or as soon as it has a processor."""
_UDP = 17
_ATTEMPTS = 20


# --- what is sent and what arrives ---


class Told(Struct, frozen=True, gc=False):
    """A datagram that the kernel took. CLOCK_MONOTONIC, nanoseconds."""

    number: int
    target: str
    before: int
    after: int


class Voice:
    """A prober that tells, or hears, inside a network namespace, until `stop`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, netns: str, argv: Sequence[str]) -> Voice:
        """`netns`: its path on the host. Returns when its sockets are open."""
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={netns}", *argv, stdout=asyncio.subprocess.PIPE, limit=1 << 26
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line == b"ready\n", f"{argv} says {line!r}"
        return cls(process)

    async def stop(self) -> list[list[str]]:
        """Ends it; its lines, in words."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = await self._process.communicate()
        assert self._process.returncode == 0, f"the prober ended with {self._process.returncode}"
        return [line.split() for line in said.decode().splitlines()]

    async def drop(self) -> None:
        """Ends it, whatever it has to say."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()


def target(address: str, port: int) -> str:
    """As the prober takes it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Stage:
    """Who tells and hears in one lab."""

    def __init__(self, lab: Lab, prober: Path) -> None:
        self.lab, self._prober = lab, str(prober)
        self._numbers = itertools.count(1)
        self._hearers: list[Voice] = []
        self._tellers: dict[int, Voice] = {}
        self.heard: dict[tuple[int, int], int] = {}
        """(teller, number) -> when it came."""

    def netns(self, node: str, path: str) -> str:
        """A namespace of a node as the host sees it."""
        return f"/proc/{self.lab.machines[node].pid}/root{path}"

    async def hear(self, netns: str, addresses: Iterable[str], ports: Sequence[int]) -> None:
        """Hears on all of them until `close`."""
        targets = [target(address, port) for address in addresses for port in ports]
        self._hearers.append(await Voice.start(netns, [self._prober, "hear", *targets]))

    async def tell(self, netns: str, targets: Mapping[str, str], rate_hz: float) -> int:
        """Tells from now on, or as soon as it can; `targets`: name -> what `target` gives. The teller's number."""
        number = next(self._numbers)
        pairs = [word for name, where in targets.items() for word in ("--pair", f"{name}={where}")]
        argv = [self._prober, "tell", str(number), "--rate", str(rate_hz), *pairs]
        self._tellers[number] = await Voice.start(netns, argv)
        return number

    async def told(self, number: int) -> list[Told]:
        """Ends a teller; what it has sent."""
        lines = await self._tellers.pop(number).stop()
        return [Told(int(n), name, int(before), int(after)) for n, name, before, after in lines]

    async def close(self) -> None:
        """Ends the hearers; `heard` is whole then."""
        while self._hearers:
            lines = await self._hearers.pop().stop()
            self.heard.update(((int(teller), int(number)), int(at)) for teller, number, at in lines)

    async def drop(self) -> None:
        """Ends what is left of them."""
        for voice in (*self._hearers, *self._tellers.values()):
            await voice.drop()


@contextlib.asynccontextmanager
async def stage(lab: Lab, prober: Path) -> AsyncIterator[Stage]:
    """For as long as the context lasts."""
    made = Stage(lab, prober)
    try:
        yield made
    finally:
        await made.drop()


# --- what was stored, and what a node had of it ---


class Attached(Struct, frozen=True, gc=False):
    """A pod as its own node knows it, before the store tells anybody."""

    key: Key
    node: str
    addresses: tuple[str, ...]
    revision: int
    """Of its Pod when ADD began."""


class History:
    """All versions of what policy depends on, and how far each node had come when."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revisions: dict[str, list[int]] = {kind.name: [] for kind in KINDS}
        self._values: dict[Key, list[tuple[int, Resource | None]]] = {}
        self._began: dict[int, int] = {}
        """Revision -> it wasn't stored before (CLOCK_MONOTONIC, nanoseconds)."""
        self._others: dict[Key, int] = {}
        self._others_began: dict[int, int] = {}
        self._programmed: dict[str, dict[str, list[tuple[int, int]]]] = {}
        """Node -> kind -> (when it said so, revision), both growing."""
        self.attached: dict[Key, Attached] = {}

    # --- writing ---

    def others_write(self, key: Key) -> None:
        """From now on somebody else may write this object."""
        self._others[key] = time.monotonic_ns()

    async def put(self, kind: Kind[Any], value: Any) -> Stored[Any]:
        """Writes an object, whatever the store holds of it."""
        began = time.monotonic_ns()
        name, namespace = value.metadata.name, value.metadata.namespace
        for _ in range(_ATTEMPTS):
            found = await self._found(kind, name, namespace)
            try:
                if found is None:
                    stored = await self._store.create(kind, value)
                else:
                    metadata = structs.replace(found.value.metadata, labels=value.metadata.labels)
                    stored = await self._store.update(kind, found, structs.replace(value, metadata=metadata))
            except Conflict:
                continue
            self._wrote(found, stored, began)
            return stored
        raise AssertionError(f"{kind.name} {name} is written by others all the time")

    async def relabel(self, key: Key, labels: Mapping[str, str]) -> None:
        """Gives a pod or a namespace other labels."""
        kind = {kind.name: kind for kind in KINDS}[key.kind]
        for _ in range(_ATTEMPTS):
            began = time.monotonic_ns()
            found = await self._found(kind, key.name, key.namespace)
            if found is None:
                return
            metadata = structs.replace(found.value.metadata, labels=dict(labels))
            with contextlib.suppress(Conflict):
                stored = await self._store.update(kind, found, structs.replace(found.value, metadata=metadata))
                self._wrote(found, stored, began)
                return
        raise AssertionError(f"{key} is written by others all the time")

    async def remove(self, kind: Kind[Any], name: str, namespace: str = "") -> None:
        """Deletes an object if it is there."""
        self.others_write(Key(kind.name, name, namespace))
        for _ in range(_ATTEMPTS):
            found = await self._found(kind, name, namespace)
            if found is None:
                return
            with contextlib.suppress(Conflict):
                await self._store.delete(kind, found)
                return
        raise AssertionError(f"{kind.name} {name} is written by others all the time")

    def _wrote(self, before: Stored[Any] | None, stored: Stored[Any], began: int) -> None:
        if before is None or stored.revision != before.revision:  # else nothing was to be changed
            self._began[stored.revision] = began

    async def _found(self, kind: Kind[Any], name: str, namespace: str) -> Stored[Any] | None:
        with contextlib.suppress(NotFound):
            return await self._store.get(kind, name, namespace)
        return None

    # --- following ---

    async def follow(self, kind: Kind[Any]) -> None:
        """Takes down what is stored of a kind, without end."""
        since = 0
        async for page in self._store.list(kind):
            for stored in page.items:
                self._note(stored.key, stored.revision, stored.value)
            since = page.revision
        async for event in self._store.watch(kind, since):
            if event.object is not None:
                value = event.object.value if event.type == "put" else None
                self._note(event.object.key, event.revision, value)

    def _note(self, key: Key, revision: int, value: Resource | None) -> None:
        if value is None and key.kind == "Pod":
            return  # CNI has taken its addresses back before; its labels stay in force until then
        bisect.insort(self._revisions[key.kind], revision)
        self._values.setdefault(key, []).append((revision, value))
        self._others_began[revision] = self._others.get(key, 0)

    async def watch_node(self, lab: Lab, node: str) -> None:
        """Asks a node again and again how far it has come, without end."""
        seen = self._programmed.setdefault(node, {kind.name: [] for kind in KINDS})
        while True:
            with contextlib.suppress(Unanswered):
                answer = await lab.ask(node, "programmed", dict[str, int])
                now = time.monotonic_ns()
                for kind, line in seen.items():
                    revision = answer.get(kind, 0)
                    if revision > (line[-1][1] if line else 0):
                        line.append((now, revision))
            await asyncio.sleep(ASKED_EVERY_S)

    @property
    def newest(self) -> dict[str, int]:
        """The last revision of each kind."""
        return {kind: revisions[-1] for kind, revisions in self._revisions.items() if revisions}

    def caught_up(self, node: str) -> bool:
        """True if a node has said that it holds all."""
        seen = self._programmed.get(node, {})
        return all(kind in seen and seen[kind] and seen[kind][-1][1] >= last for kind, last in self.newest.items())

    # --- judging ---

    def spans(self, node: str, sent: int, came: int) -> dict[str, tuple[int, ...]]:
        """Kind -> the revisions that the node may have been at; 0 = none was stored yet."""
        found = {}
        for kind, revisions in self._revisions.items():
            said = self._programmed[node][kind]
            index = bisect.bisect_left(said, sent, key=lambda entry: entry[0]) - 1
            low = said[index][1] if index >= 0 else 0
            first = bisect.bisect_right(revisions, low)
            later = [revision for revision in revisions[first:] if self._stored_by(revision, came)]
            found[kind] = (revisions[first - 1] if first else 0, *later)
        return found

    def _stored_by(self, revision: int, came: int) -> bool:
        return self._began.get(revision, self._others_began[revision]) <= came

    def value(self, key: Key, revision: int) -> Resource | None:
        """An object as of a revision."""
        values = self._values.get(key, [])
        index = bisect.bisect_right(values, revision, key=lambda entry: entry[0]) - 1
        return values[index][1] if index >= 0 else None

    @property
    def keys(self) -> Iterable[Key]:
        """All objects that there ever were."""
        return self._values


class Flow(Struct, frozen=True, gc=False):
    """Who sends what to whom."""

    sender: Attached
    receiver: Attached
    packet: Packet


_Likes = tuple[tuple[Key, int], ...]
"""Objects, and which of their contents: what says the same to policy has the same number."""


class Judge:
    """Says what should have become of a packet. No policy that it knows asks who a pod is but by its labels: so what
    was found for one sender holds for all that look like it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._shared: dict[str, list[Key]] = {kind.name: [] for kind in KINDS}
        for key in history.keys:
            if key.kind != "Pod":
                self._shared[key.kind].append(key)
        self._numbers: dict[bytes, int] = {}
        self._contents: list[Resource] = []
        self._objects: dict[tuple[str, int, str], _Likes] = {}
        self._pods: dict[tuple[Key, int, tuple[str, ...]], int] = {}
        self._known: dict[object, bool] = {}
        self._known_spans: dict[object, frozenset[bool]] = {}

    def judge(self, flow: Flow, sent: int, came: int, *, told: bool = False) -> Judgement:
        """Of one packet; `came`: when it was heard, or would have been. `told`: as if the receiver's node knew the
        sender's addresses from the first."""
        leaves = self._answers(flow, flow.sender.node, "Egress", sent, came, frozenset((flow.sender.node,)))
        knowing = frozenset((flow.receiver.node, *((flow.sender.node,) if told else ())))
        arrives = self._answers(flow, flow.receiver.node, "Ingress", sent, came, knowing)
        if True not in leaves or True not in arrives:
            return "forbidden"
        return "undecided" if False in leaves | arrives else "allowed"

    def strangers_pass(self, flow: Flow, sent: int, came: int) -> bool:
        """True if the receiver's node may let somebody in of whom it knows nothing."""
        node = flow.receiver.node
        return True in self._answers(flow, node, "Ingress", sent, came, frozenset((node,)), stranger=True)

    def _answers(
        self, flow: Flow, node: str, direction: str, sent: int, came: int, knowing: frozenset[str],
        *, stranger: bool = False,
    ) -> frozenset[bool]:  # fmt: skip
        spans = self._history.spans(node, sent, came)
        known = (flow, direction, knowing, stranger, tuple(spans.values()))
        if known not in self._known_spans:
            here = (flow.receiver,) if stranger else (flow.receiver, flow.sender)
            choices = [
                list(dict.fromkeys(
                    self._pods_at(here, knowing, at) if kind == "Pod" else self._objects_at(kind, at, direction)
                    for at in revisions
                ))
                for kind, revisions in spans.items()
            ]  # fmt: skip
            self._known_spans[known] = frozenset(
                self._answer(flow, direction, tuple(itertools.chain.from_iterable(each)))
                for each in itertools.product(*choices)
            )
        return self._known_spans[known]

    def _objects_at(self, kind: str, at: int, direction: str) -> _Likes:
        """All of a kind that count for a direction, as of a revision."""
        found = self._objects.get((kind, at, direction))
        if found is None:
            values = ((key, self._history.value(key, at)) for key in self._shared[kind])
            found = tuple(
                (key, self._like(value)) for key, value in values if value is not None and _counts(value, direction)
            )
            self._objects[kind, at, direction] = found
        return found

    def _pods_at(self, here: tuple[Attached, ...], knowing: frozenset[str], at: int) -> _Likes:
        """Of its own pods a node knows their addresses, and at least what was stored when CNI asked."""
        return tuple(
            (pod.key, number) for pod in here if (number := self._pod_at(pod, at, own=pod.node in knowing)) is not None
        )

    def _pod_at(self, pod: Attached, at: int, *, own: bool) -> int | None:
        value = self._history.value(pod.key, max(at, pod.revision) if own else at)
        if value is None:
            return None
        known = (pod.key, id(value), pod.addresses if own else ())
        if known not in self._pods:
            self._pods[known] = self._like(_addressed(value, pod.addresses) if own else value)
        return self._pods[known]

    def _like(self, value: Resource) -> int:
        text = msgspec.json.encode(structs.replace(value, metadata=ObjectMeta(labels=value.metadata.labels)))
        if isinstance(value, pods.Pod):
            text = msgspec.json.encode((value.metadata.labels, bool(value.metadata.annotations.get(pods.POD_IPS))))
        number = self._numbers.setdefault(text, len(self._numbers))
        if number == len(self._contents):
            self._contents.append(value)
        return number

    def _answer(self, flow: Flow, direction: str, likes: _Likes) -> bool:
        sender, packet = flow.sender.key, flow.packet
        anyone = tuple((None if key == sender else key, number) for key, number in likes)
        known = (packet.destination, packet.destination_port, direction, anyone)
        if known not in self._known:
            world = {key: self._contents[number] for key, number in likes}
            for pod in (flow.sender, flow.receiver):
                if pod.key in world:
                    world[pod.key] = _named(world[pod.key], pod)
            self._known[known] = evaluate(world, packet).allowed
        return self._known[known]


def _named(like: Resource, pod: Attached) -> Resource:
    """The pod itself, where one like it was met first."""
    metadata = structs.replace(like.metadata, name=pod.key.name, namespace=pod.key.namespace)
    made = pods.Pod(metadata=metadata, spec=pods.PodSpec(node_name=pod.node))
    return _addressed(made, pod.addresses) if metadata.annotations.get(pods.POD_IPS) else made


def _counts(value: Resource, direction: str) -> bool:
    """Policies of the other direction are left out: each end is judged by itself."""
    types: Iterable[str] = (direction,)
    if isinstance(value, kubernetes_network_policies.KubernetesNetworkPolicy):
        types = kubernetes_network_policies.types_in_force(value.spec)
    elif isinstance(value, network_policies.NetworkPolicy | global_network_policies.GlobalNetworkPolicy):
        types = network_policies.types_in_force(value.spec)
    assert set(types) in ({"Ingress"}, {"Egress"}), "the witnesses' policies have one direction each"
    return direction in types


def _addressed(pod: Resource, addresses: tuple[str, ...]) -> pods.Pod:
    assert isinstance(pod, pods.Pod)
    notes = {**pod.metadata.annotations, pods.POD_IPS: ",".join(map(prefix, addresses)), pods.POD_IP: addresses[0]}
    return structs.replace(pod, metadata=structs.replace(pod.metadata, annotations=notes))


def flow_of(sender: Attached, receiver: Attached, address: str, port: int) -> Flow:
    """What a teller in a pod sends to one of a hearer's addresses."""
    source = next(own for own in sender.addresses if (":" in own) == (":" in address))
    return Flow(sender, receiver, Packet(source=source, destination=address, protocol=_UDP, destination_port=port))


@contextlib.asynccontextmanager
async def following(lab: Lab, store: Store, nodes: Iterable[str]) -> AsyncIterator[History]:
    """A history that is written for as long as the context lasts."""
    history = History(store)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(history.follow(kind)) for kind in KINDS]
        tasks += [group.create_task(history.watch_node(lab, node)) for node in nodes]
        try:
            yield history
        finally:
            for task in tasks:
                task.cancel()


def spread(samples: Sequence[float]) -> Iterator[str]:
    """A histogram in powers of two, a line a step."""
    step = 1.0
    while samples:
        within = [sample for sample in samples if sample < step]
        samples = [sample for sample in samples if sample >= step]
        if within or samples:
            yield f"{'< ' + format(step, 'g'):>8} ms  {len(within):5}  {'#' * min(60, len(within))}"
        step *= 2
