"""A store in a file, nodes' allocators on it, and stores that count, die or lose answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Page, Store, Stored, Unavailable
from calipy.ipam.allocator import Allocator, Assigned, Inputs, Request
from calipy.ipam.judge import judge
from calipy.ipam.judge.values import Snapshot, Verdict
from calipy.resources import block_affinities, ipam_blocks, ipam_configurations, ipam_handles
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.ip_reservations import IPReservation, IPReservationSpec
from calipy.resources.ipam_blocks import IPAMBlock
from calipy.resources.ipam_configurations import IPAMConfiguration, IPAMConfigurationSpec
from calipy.resources.metadata import Kind, ObjectMeta, R
from calipy.resources.nodes import Node
from calipy.resources.pods import POD_IPS, Pod, PodSpec

T0 = 1_800_000_000.0


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """The store's file."""
    return tmp_path / "store.db"


@pytest.fixture
async def store(store_path: Path) -> AsyncIterator[SQLiteStore]:
    """An empty store."""
    opened = await SQLiteStore.open(store_path)
    yield opened
    await opened.close()


class CountingStore(Store):
    """Counts what goes through it, as `verb Kind`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    async def get(self, kind: Kind[R], name: str, namespace: str = "") -> Stored[R]:
        self._count("get", kind)
        return await self._store.get(kind, name, namespace)

    async def list(
        self, kind: Kind[R], *, namespace: str = "", labels: Mapping[str, str] | None = None, page_size: int = 500
    ) -> AsyncIterator[Page[R]]:
        self._count("list", kind)
        async for page in self._store.list(kind, namespace=namespace, labels=labels, page_size=page_size):
            yield page

    async def create(self, kind: Kind[R], value: R) -> Stored[R]:
        self._before("create", kind)
        made = await self._store.create(kind, value)
        self._after()
        return made

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        self._before("update", kind)
        made = await self._store.update(kind, old, new)
        self._after()
        return made

    async def delete(self, kind: Kind[R], old: Stored[R]) -> None:
        self._before("delete", kind)
        await self._store.delete(kind, old)
        self._after()

    def _count(self, verb: str, kind: Kind[R]) -> None:
        self.calls[f"{verb} {kind.name}"] += 1

    def _before(self, verb: str, kind: Kind[R]) -> None:
        self._count(verb, kind)

    def _after(self) -> None:
        pass


class FailingStore(CountingStore):
    """Fails at its n-th write (from 1): before it lands, or after (the answer is lost). `dead`: nothing is answered
    from then on, so that nobody can clean up, as after kill -9."""

    def __init__(self, store: Store, *, at: int, landed: bool, dead: bool) -> None:
        super().__init__(store)
        self._at, self._landed, self._dead = at, landed, dead
        self.failed = False
        self._writes = 0

    def _count(self, verb: str, kind: Kind[R]) -> None:
        super()._count(verb, kind)
        if self._dead and self.failed:
            raise Unavailable("the store is dead")

    def _before(self, verb: str, kind: Kind[R]) -> None:
        self._count(verb, kind)
        self._writes += 1
        if self._writes == self._at and not self._landed:
            self._fail()

    def _after(self) -> None:
        if self._writes == self._at and self._landed and not self.failed:
            self._fail()

    def _fail(self) -> None:
        self.failed = True
        raise Unavailable("the store went away")


class NodeInputs(Inputs):
    """What a node's mirror shows; claims as of the cluster's last `sync`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.labels: dict[str, str] = {}

    def pools(self) -> Sequence[IPPool]:
        return self._cluster.pools

    def reservations(self) -> Sequence[IPReservation]:
        spec = IPReservationSpec(reserved_cidrs=tuple(self._cluster.reserved))
        return [IPReservation(metadata=ObjectMeta(name="reserved"), spec=spec)]

    def configuration(self) -> IPAMConfiguration:
        return self._cluster.configuration

    def node_labels(self) -> Mapping[str, str]:
        return self.labels

    def affinities(self) -> Sequence[BlockAffinity]:
        return self._cluster.affinities


class Cluster:
    """Nodes that share a store, a clock and settings."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = T0
        self.pools: list[IPPool] = []
        self.reserved: list[str] = []
        self.configuration = ipam_configurations.DEFAULT
        self.affinities: list[BlockAffinity] = []
        self.inputs: dict[str, NodeInputs] = {}
        self.holders: dict[str, tuple[str, tuple[str, ...]]] = {}

    def pool(self, name: str, cidr: str, size: int = 0, **fields: object) -> IPPool:
        """A pool that all nodes know."""
        pool = IPPool(metadata=ObjectMeta(name=name), spec=IPPoolSpec(cidr=cidr, block_size=size, **fields))  # type: ignore[arg-type]
        self.pools = [other for other in self.pools if other.metadata.name != name] + [pool]
        return pool

    def configure(self, **fields: object) -> None:
        """IPAMConfiguration."""
        spec = IPAMConfigurationSpec(**fields)  # type: ignore[arg-type]
        self.configuration = IPAMConfiguration(metadata=ObjectMeta(name="default"), spec=spec)

    def allocator(self, node: str, store: Store | None = None) -> Allocator:
        """One more process's allocator for a node."""
        inputs = self.inputs.setdefault(node, NodeInputs(self))
        return Allocator(store or self.store, node, inputs, lambda: self.now)

    def counting(self) -> CountingStore:
        """A counting store on this one."""
        return CountingStore(self.store)

    def failing(self, *, at: int, landed: bool, dead: bool) -> FailingStore:
        """A failing store on this one."""
        return FailingStore(self.store, at=at, landed=landed, dead=dead)

    def request(self, name: str, node: str, *families: int, count: int = 1, **fields: object) -> Request:
        """What CNI asks for pod default/NAME, container NAME."""
        attributes = {"node": node, "namespace": "default", "pod": name, "timestamp": str(self.now)}
        wanted = dict.fromkeys(families or (4,), count)
        return Request(handle=f"k8s.{name}", attributes=attributes, families=wanted, **fields)  # type: ignore[arg-type]

    def holds(self, name: str, node: str, assigned: Sequence[Assigned]) -> tuple[str, ...]:
        """From now on pod NAME shows these addresses."""
        addresses = tuple(given.address for given in assigned)
        self.holders[name] = (node, addresses)
        return addresses

    async def sync(self) -> None:
        """The mirror catches up."""
        self.affinities = await self.all(block_affinities.KIND)

    async def all(self, kind: Kind[R]) -> list[R]:
        """All objects of a kind."""
        return [stored.value async for page in self.store.list(kind) for stored in page.items]

    async def block(self, cidr: str) -> IPAMBlock:
        """A block, as the store has it."""
        return (await self.store.get(ipam_blocks.KIND, ipam_blocks.name_of(cidr))).value

    async def blocks(self) -> dict[str, str | None]:
        """CIDR -> owner of all blocks."""
        return {block.spec.cidr: block.spec.affinity for block in await self.all(ipam_blocks.KIND)}

    async def claims(self) -> dict[str, str]:
        """`node cidr` -> state of all claims."""
        return {f"{a.spec.node} {a.spec.cidr}": a.spec.state for a in await self.all(block_affinities.KIND)}

    async def handles(self) -> dict[str, dict[str, int]]:
        """Handle ID -> counts."""
        return {handle.spec.handle_id: handle.spec.block for handle in await self.all(ipam_handles.KIND)}

    async def judged(self) -> Verdict:
        """The verdict on what is in the store, with pods that show what they hold."""
        world = Snapshot(
            revision=0,
            pools=tuple(self.pools),
            configuration=self.configuration,
            blocks=tuple(await self.all(ipam_blocks.KIND)),
            affinities=tuple(await self.all(block_affinities.KIND)),
            handles=tuple(await self.all(ipam_handles.KIND)),
            pods=tuple(_pod(name, node, addresses) for name, (node, addresses) in self.holders.items()),
            nodes=tuple(Node(metadata=ObjectMeta(name=name)) for name in self.inputs),
        )
        return judge(world, self.now)


def _pod(name: str, node: str, addresses: Sequence[str]) -> Pod:
    shown = ",".join(f"{address}/{128 if ':' in address else 32}" for address in addresses)
    meta = ObjectMeta(namespace="default", name=name, annotations={POD_IPS: shown} if shown else {})
    return Pod(metadata=meta, spec=PodSpec(node_name=node))


@pytest.fixture
def cluster(store: SQLiteStore) -> Cluster:
    """A cluster with one small pool."""
    made = Cluster(store)
    made.pool("default", "10.0.0.0/27", 29)
    return made
