"""A node introduces itself, waits for an address where it has none, and follows the host's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from calipy.agent import whereabouts
from calipy.agent.whereabouts import Whereabouts
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Unauthorized
from calipy.model.links import Link, LinkAddress
from calipy.node import bootstrap, identity, reach
from calipy.resources import cluster_informations, ip_pools, nodes
from calipy.resources.metadata import Kind, ObjectMeta
from calipy.resources.nodes import Node, NodeStatus, NodeStatusAddress
from calipy.settings import read


class Host:
    """A host with one link; its addresses are the test's to choose."""

    def __init__(self, *addresses: str) -> None:
        self.links = {2: Link(index=2, name="eth0", kind="", up=True, carrier=True, mtu=1500, mac="", alias="")}
        self.addresses: set[LinkAddress] = set()
        self.has(*addresses)

    def has(self, *addresses: str) -> None:
        pairs = (address.split("/") for address in addresses)
        self.addresses = {LinkAddress(2, address, int(length)) for address, length in pairs}


class Case:
    """A node, its host and its store."""

    def __init__(self, store: SQLiteStore, host: Host, environment: dict[str, str]) -> None:
        self.store, self.host = store, host
        self.settings = read({"NODENAME": "n1", **environment})
        self.node = Whereabouts(store, self.settings, host)

    async def notes(self) -> dict[str, str]:
        node = (await self.store.get(nodes.KIND, self.settings.node)).value
        return {name.removeprefix("projectcalico.org/"): text for name, text in node.metadata.annotations.items()}


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Callable[..., Case]]:
    store = await SQLiteStore.open(tmp_path / "store")
    yield lambda host, **environment: Case(store, host, environment)
    await store.close()


@asynccontextmanager
async def running(work: Callable[[], object]) -> AsyncIterator[asyncio.Task[object]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())  # type: ignore[arg-type]
        yield task
        task.cancel()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0)


async def test_a_new_cluster_gets_its_first_objects_and_the_node_its_own(case: Callable[..., Case]) -> None:
    found = case(
        Host("10.9.0.11/24", "fd09::11/64"), IP6="autodetect", AS="64513", CALICO_IPV4POOL_CIDR="10.244.0.0/16"
    )
    await found.node.introduce()
    assert await found.notes() == {
        "IPv4Address": "10.9.0.11/24",
        "IPv6Address": "fd09::11/64",
        "ASNumber": "64513",
    }
    assert (await found.store.get(cluster_informations.KIND, "default")).value.spec.datastore_ready
    assert (await found.store.get(ip_pools.KIND, "default-ipv4-ippool")).value.spec.block_size == 26


async def test_a_node_object_is_made_with_the_labels_that_were_given_and_one_that_is_there_keeps_its_own(
    case: Callable[..., Case],
) -> None:
    found = case(Host("10.9.0.11/24"), CALIPY_NODE_LABELS="rack=a,kubernetes.io/hostname=alias")
    await found.node.introduce()
    made = await found.store.get(nodes.KIND, "n1")
    assert made.value.metadata.labels == {"rack": "a", "kubernetes.io/hostname": "alias"}

    await case(Host("10.9.0.11/24"), CALIPY_NODE_LABELS="rack=b").node.introduce()

    assert (await found.store.get(nodes.KIND, "n1")).value.metadata.labels == made.value.metadata.labels


async def test_an_as_number_that_the_operator_wrote_stays(case: Callable[..., Case]) -> None:
    found = case(Host("10.9.0.11/24"))
    await identity.ensure(found.store, "n1", {})
    await identity.annotate(found.store, "n1", {nodes.AS_NUMBER: "64999"})
    await found.node.introduce()
    assert (await found.notes())["ASNumber"] == "64999"


async def test_a_node_without_an_address_says_so_and_takes_one_when_it_comes(case: Callable[..., Case]) -> None:
    found = case(Host("169.254.7.7/16"))
    async with running(found.node.introduce) as introduced:
        await until(lambda: found.node.problem)
        assert "169.254.7.7/16 on eth0: not a global address" in found.node.problem
        assert not introduced.done()
        found.host.has("10.9.0.11/24")
        found.node.moved()
        await asyncio.wait_for(introduced, 10)
        assert found.node.problem == ""
        assert await found.notes() == {"IPv4Address": "10.9.0.11/24"}


async def test_it_follows_the_hosts_addresses_and_keeps_the_last_where_none_is_left(case: Callable[..., Case]) -> None:
    found = case(Host("10.9.0.11/24"))
    await found.node.introduce()
    async with running(found.node.keep):
        found.host.has("10.9.0.9/24", "10.9.0.11/24")
        found.node.moved()
        await asyncio.sleep(0)
        found.host.has("10.9.0.9/24")
        found.node.moved()
        notes: dict[str, str] = {}
        async with asyncio.timeout(10):
            while notes != {"IPv4Address": "10.9.0.9/24"}:
                notes = await found.notes()
                await asyncio.sleep(0)
        found.host.has()
        found.node.moved()
        await until(lambda: found.node.problem)
        assert found.node.problem.endswith("; the last one stays")
        assert await found.notes() == {"IPv4Address": "10.9.0.9/24"}


async def test_can_reach_asks_the_kernel(case: Callable[..., Case]) -> None:
    found = case(Host("127.0.0.1/8", "10.9.0.11/24"), IP_AUTODETECTION_METHOD="can-reach=127.0.0.1")
    await found.node.introduce()
    assert await found.notes() == {"IPv4Address": "127.0.0.1/8"}


UNANSWERED = "archive.example can't be reached: no name server has told its address within 0.3 s"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server answers."""
    monkeypatch.setattr(reach, "RESOLVER", ("sh", "-c", "exec sleep 60"))
    for limit in ("LOOK_UP_MOST_S", "FIRST_LOOK_S"):
        monkeypatch.setattr(whereabouts, limit, 0.3)


@pytest.mark.usefixtures("silent")
async def test_no_name_server_answers_and_the_node_goes_on_with_the_address_that_it_has(
    case: Callable[..., Case],
) -> None:
    before = case(Host("10.9.0.11/24"))
    await before.node.introduce()
    found = case(before.host, IP_AUTODETECTION_METHOD="can-reach=archive.example", AS="64513")
    turns = 0
    async with running(found.node.introduce) as introduced:
        while not introduced.done():
            await asyncio.sleep(0.001)
            turns += 1
    assert turns > 50, "the loop went on meanwhile"
    assert f"10.9.0.11/24 on eth0: {UNANSWERED}" in found.node.problem
    assert found.node.problem.endswith("; the last one stays")
    assert await found.notes() == {"IPv4Address": "10.9.0.11/24", "ASNumber": "64513"}


@pytest.mark.usefixtures("silent")
async def test_no_name_server_answers_and_the_node_has_lost_the_address_that_it_had(
    case: Callable[..., Case],
) -> None:
    await case(Host("10.9.0.11/24")).node.introduce()
    found = case(Host("10.9.0.12/24"), IP_AUTODETECTION_METHOD="can-reach=archive.example")
    async with running(found.node.introduce) as introduced:
        await until(lambda: found.node.problem)
        assert UNANSWERED in found.node.problem
        assert not introduced.done()


async def test_a_name_that_can_be_looked_up_again_is(
    case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells that a name server is back: it is asked by the clock."""
    await case(Host("10.9.0.11/24", "127.0.0.1/8")).node.introduce()
    found = case(Host("10.9.0.11/24", "127.0.0.1/8"), IP_AUTODETECTION_METHOD="can-reach=archive.example")
    monkeypatch.setattr(whereabouts, "_AGAIN_S", 0.01)
    monkeypatch.setattr(reach, "RESOLVER", ("sh", "-c", "echo Temporary failure; exit 1"))
    await found.node.introduce()
    assert "its address can't be looked up: Temporary failure" in found.node.problem
    async with running(found.node.keep):
        monkeypatch.setattr(reach, "RESOLVER", ("sh", "-c", "echo 127.0.0.1"))
        await until(lambda: not found.node.problem)
    assert await found.notes() == {"IPv4Address": "127.0.0.1/8"}


async def test_one_family_that_is_not_found_keeps_no_other_back(case: Callable[..., Case]) -> None:
    found = case(Host("10.9.0.11/24", "fd09::11/64"), IP6="autodetect")
    await found.node.introduce()
    async with running(found.node.keep):
        found.host.has("fd09::12/64")
        found.node.moved()
        await until(lambda: found.node.problem)
    assert await found.notes() == {"IPv4Address": "10.9.0.11/24", "IPv6Address": "fd09::12/64"}


async def test_a_node_object_that_can_not_be_read_is_told_and_waited_for(
    case: Callable[..., Case], tmp_path: Path
) -> None:
    found = case(Host("10.9.0.11/24"))
    await identity.ensure(found.store, "n1", {})
    with closing(sqlite3.connect(tmp_path / "store", isolation_level=None)) as other:
        (right,) = other.execute("SELECT text FROM objects WHERE kind = 'Node'").fetchone()
        other.execute("UPDATE objects SET text = '{\"spec\": 7}' WHERE kind = 'Node'")
        async with running(found.node.introduce) as introduced:
            await until(lambda: found.node.problem)
            assert found.node.problem.startswith("Node/n1 is refused: ")
            other.execute("UPDATE objects SET text = ? WHERE kind = 'Node'", (right,))
            found.node.moved()
            await asyncio.wait_for(introduced, 10)
    assert await found.notes() == {"IPv4Address": "10.9.0.11/24"}


async def test_an_address_that_another_node_has_is_not_taken_and_that_node_is_named(case: Callable[..., Case]) -> None:
    await case(Host("10.9.0.11/24")).node.introduce()
    other = case(Host("10.9.0.11/16"), NODENAME="n2")
    async with running(other.node.introduce) as introduced:
        await until(lambda: other.node.problem)
        assert other.node.problem == (
            "IPv4 address 10.9.0.11/16 for this node (first-found finds it on eth0) is Node/n1's already; give one of "
            "the two another address, or delete Node/n1 if that machine is gone, or set DISABLE_NODE_IP_CHECK to true"
        )
        assert await other.notes() == {}
        other.host.has("10.9.0.12/16")
        other.node.moved()
        await asyncio.wait_for(introduced, 10)
    assert await other.notes() == {"IPv4Address": "10.9.0.12/16"}


async def test_who_had_an_address_first_keeps_it_over_a_restart(case: Callable[..., Case]) -> None:
    await case(Host("10.9.0.11/24")).node.introduce()
    await case(Host("10.9.0.11/24"), NODENAME="n2", DISABLE_NODE_IP_CHECK="true").node.introduce()
    again = case(Host("10.9.0.11/24"))
    await asyncio.wait_for(again.node.introduce(), 10)
    assert again.node.problem == ""


async def test_a_node_keeps_its_address_while_another_has_the_new_one(case: Callable[..., Case]) -> None:
    await case(Host("10.9.0.12/24"), NODENAME="n2").node.introduce()
    found = case(Host("10.9.0.11/24"))
    await found.node.introduce()
    async with running(found.node.keep):
        found.host.has("10.9.0.12/24")
        found.node.moved()
        await until(lambda: found.node.problem)
    assert "is Node/n2's already" in found.node.problem
    assert found.node.problem.endswith("; the last one stays")
    assert await found.notes() == {"IPv4Address": "10.9.0.11/24"}
    assert found.node.reports()[0].address == "10.9.0.11/24"
    assert found.node.reports()[0].reason in found.node.problem


async def test_what_was_considered_is_told(case: Callable[..., Case], caplog: pytest.LogCaptureFixture) -> None:
    found = case(Host("10.9.0.11/24", "10.9.0.12/24", "169.254.7.7/16"))
    with caplog.at_level("INFO"):
        await found.node.introduce()
    v4, v6 = found.node.reports()
    assert (v4.asked, v4.method, v4.address) == ("autodetect", "first-found", "10.9.0.11/24")
    assert v4.considered == (
        "10.9.0.11/24 on eth0: taken",
        "10.9.0.12/24 on eth0: fits too, but comes later",
        "169.254.7.7/16 on eth0: not a global address",
    )
    assert [line for line in v4.considered if f"IPv4 address considered: {line}" not in caplog.messages] == []
    assert (v6.address, v6.reason) == ("", "none is asked for")


async def test_it_follows_the_node_that_others_change(case: Callable[..., Case]) -> None:
    """kubelet tells another InternalIP; somebody takes an annotation away."""
    found = case(Host("10.9.0.11/24", "10.9.0.12/24"), IP_AUTODETECTION_METHOD="kubernetes-internal-ip")

    async def kubelet(address: str, annotations: dict[str, str] | None = None) -> None:
        stored = await found.store.get(nodes.KIND, "n1")
        metadata = stored.value.metadata
        if annotations is not None:
            metadata = structs.replace(metadata, annotations=annotations)
        status = NodeStatus(addresses=(NodeStatusAddress(type="InternalIP", address=address),))
        new = structs.replace(stored.value, metadata=metadata, status=status)
        found.node.follow((await found.store.update(nodes.KIND, stored, new)).value)

    async def noted(text: str) -> None:
        async with asyncio.timeout(10):
            while await found.notes() != {"IPv4Address": text}:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0)

    await found.store.create(nodes.KIND, Node(metadata=ObjectMeta(name="n1")))
    await kubelet("10.9.0.11")
    await found.node.introduce()
    async with running(found.node.keep):
        await noted("10.9.0.11/24")
        await kubelet("10.9.0.12")
        await noted("10.9.0.12/24")
        await kubelet("10.9.0.12", {})
        await noted("10.9.0.12/24")


async def test_in_kubernetes_the_node_is_kubelets_to_make(case: Callable[..., Case]) -> None:
    found = case(Host("10.9.0.11/24"))
    node = Whereabouts(found.store, structs.replace(found.settings, datastore="kubernetes"), found.host)
    async with running(node.introduce) as introduced:
        await until(lambda: node.problem)
        assert node.problem.endswith("; kubelet registers it; if it has, set NODENAME to the name that it has there")
        await found.store.create(nodes.KIND, Node(metadata=ObjectMeta(name="n1")))
        node.moved()
        await asyncio.wait_for(introduced, 10)
    assert await found.notes() == {"IPv4Address": "10.9.0.11/24"}


async def test_what_a_node_may_not_make_is_shown_and_keeps_it_from_nothing(
    case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = case(Host("10.9.0.11/24"))

    async def refuse(_: object, kind: Kind[Any], value: object) -> None:
        raise Unauthorized(f"{kind.name} can't be created: forbidden")

    monkeypatch.setattr(bootstrap, "_create", refuse)
    for _ in range(2):
        await asyncio.wait_for(found.node.introduce(), 10)
    assert len(found.node.forbidden) == 3
    assert [message.split()[2] for message in caplog.messages] == ["ClusterInformation", "Tier", "IPPool"]
    assert await found.notes() == {"IPv4Address": "10.9.0.11/24"}
