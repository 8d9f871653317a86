"""DEL, GC, and what an earlier agent left; and random lives of many containers at once."""

import asyncio

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from msgspec import structs

from calipy.cni.attachments import Attachment
from calipy.cni.errors import CniError, Code
from calipy.datastore.stores import StoreError, Unavailable
from calipy.resources.metadata import Refused
from tests.effort import examples


@pytest.mark.parametrize("netns", ["", "/run/netns/c1"])
async def test_any_number_of_times(world, netns):
    await world.delete(CNI_NETNS=netns)
    await world.add()
    for _ in range(3):
        await world.delete(CNI_NETNS=netns)
        assert world.left() == {}


async def test_order(world):
    await world.add()
    world.steps.clear()
    await world.delete()
    assert world.steps == ["endpoint out", "link out", "flush", "blank", "release"]


async def test_without_a_record(world):
    """The container's ID is enough for its addresses, and its link is known by name and alias."""
    await world.add()
    for entry in world.attachments:
        world.attachments.remove(entry)
    await world.delete()
    assert world.left() == {}


async def test_a_foreign_link_of_that_name_stays(world):
    await world.add("c1")
    (name,) = world.links
    await world.delete("c2")
    assert list(world.links) == [name]
    assert list(world.endpoints)
    await world.delete("c1")
    assert world.left() == {}


async def test_another_network_of_the_same_container_stays(world):
    await world.add()
    await world.delete(conf={"name": "other"})
    await world.delete(CNI_IFNAME="eth7", conf={"name": "third"})
    assert len(world.links) == len(world.endpoints) == len(world.allocations) == 1


@pytest.mark.parametrize("step", ["endpoint out", "link out", "flush"])
async def test_a_failure_keeps_the_address(world, step):
    await world.add()
    world.breaks[step] = CniError(Code.KERNEL_REFUSED, "no")
    with pytest.raises(CniError):
        await world.delete()
    assert world.allocations
    await world.delete()
    assert world.left() == {}


@pytest.mark.parametrize("problem", [Unavailable("away"), StoreError("forbidden"), Refused("Pod/x", ())])
@pytest.mark.parametrize("step", ["blank", "release", "release!"])
async def test_a_release_is_put_off(world, step, problem):
    await world.add()
    world.breaks[step] = problem
    await world.delete()
    assert not world.links
    assert not world.endpoints
    assert not world.unclean
    assert [entry.state for entry in world.attachments] == ["leaving"]
    world.start()
    assert await world.removals.replay() == 0
    assert world.left() == {}


@pytest.mark.parametrize("step", ["flush", "release", "release!"])
async def test_an_agent_killed_on_the_way_leaves_no_attached_record(world, killed, step):
    """The next one would restore an endpoint with addresses that another container may have by then."""
    await world.add()
    world.breaks[step] = killed
    with pytest.raises(type(killed)):
        await world.delete()
    world.start()
    assert [entry.state for entry in world.attachments] == ["leaving"]
    assert await world.removals.replay() == 0
    assert not world.left().keys() - {"endpoints", "unclean"}


async def test_a_delete_that_can_not_be_noted_goes_on(world):
    await world.add()
    world.folder.rename(world.folder.with_name("away"))
    await world.delete()
    world.folder.with_name("away").rename(world.folder)
    assert world.left().keys() <= {"files"}


async def test_the_address_is_not_given_out_before_its_release(world):
    await world.add("c1", pod="shop/a")
    world.store_away = True
    await world.delete("c1", pod="shop/a")
    await world.delete("c1", pod="shop/a")
    assert await world.removals.replay() == 1
    world.store_away = False
    result = await world.add("c2", pod="shop/b")
    assert result.addresses == ("10.0.0.1", "fd00::1")
    assert await world.removals.replay() == 0
    await world.delete("c2", pod="shop/b")
    assert world.left() == {}


async def test_del_waits_for_its_containers_add(world):
    world.pauses["link"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(world.add())
        await world.paused.get()
        deleting = group.create_task(world.delete())
        await asyncio.sleep(0)
        assert not deleting.done()
        world.pauses["link"].set()
    assert adding.result()
    assert world.left() == {}


async def test_collect(world):
    for n in range(4):
        await world.add(f"c{n}", pod=f"shop/{n}")
    assert await world.collect("c0", "c2", dry_run=True) == ("c1", "c3")
    assert len(world.links) == 4
    assert await world.collect("c0", "c2") == ("c1", "c3")
    assert sorted(world.allocations) == ["net.c0", "net.c2"]
    assert await world.collect("c0", "c2") == ()


async def test_collect_compares_the_interface(world):
    await world.add(CNI_IFNAME="net1")
    assert await world.collect("c1") == ("c1",)
    assert world.left() == {}


async def test_collect_leaves_other_networks_alone(world):
    await world.add(conf={"name": "other"})
    assert await world.collect() == ()
    assert len(world.links) == 1


async def test_collect_leaves_an_add_in_flight_alone(world):
    world.pauses["route"] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(world.add())
        await world.paused.get()
        assert await world.collect() == ()
        world.pauses["route"].set()
    assert adding.result()
    assert len(world.links) == 1


@pytest.mark.parametrize("problem", [CniError(Code.KERNEL_REFUSED, "no"), OSError(28, "no")])
async def test_collect_goes_on_after_a_failure(world, problem):
    await world.add("c1", pod="shop/1")
    await world.add("c2", pod="shop/2")
    world.breaks["link out"] = problem
    with pytest.raises(type(problem), match="no"):
        await world.collect()
    assert len(world.links) == 1
    await world.collect()
    assert world.left() == {}


async def test_one_that_nobody_foresaw_keeps_no_other_from_being_taken_back(world, killed, caplog):
    for name in ("1", "2"):
        world.breaks["route"] = killed
        with pytest.raises(type(killed)):
            await world.add(f"c{name}", pod=f"shop/{name}")
        world.start()
    world.breaks["link out"] = RuntimeError("surprise")
    assert await world.removals.replay() == 1
    assert "Traceback" in caplog.text
    assert await world.removals.replay() == 0
    assert world.left() == {}


@pytest.mark.parametrize(
    "step", ["draw", "draw!", "flush", "endpoint", "endpoint!", "link", "link!", "route", "route!", "mark", "mark!"]
)
async def test_the_agent_is_killed_in_add(world, step, killed):
    world.breaks[step] = killed
    with pytest.raises(type(killed)):
        await world.add()
    world.start()
    assert await world.removals.replay() == 0
    assert world.left() == {}


@pytest.mark.parametrize("step", ["endpoint out", "link out", "flush", "blank", "release", "release!"])
async def test_the_agent_is_killed_in_del(world, step, killed):
    await world.add()
    world.breaks[step] = killed
    with pytest.raises(type(killed)):
        await world.delete()
    world.start()
    await world.delete()
    assert world.left() == {}


async def test_a_link_half_made_by_a_killed_agent(world, killed):
    world.breaks["link!"] = killed
    with pytest.raises(type(killed)):
        await world.add()
    ((name, link),) = world.links.items()
    world.links[name] = structs.replace(link, alias="")
    world.start()
    assert await world.removals.replay() == 0
    assert world.left() == {}


def test_records_name_their_place():
    entry = Attachment(network="n", container_id="c", interface="eth0", state="leaving")
    assert (entry.handle, entry.name.container_id, entry.name.interface) == ("n.c", "c", "eth0")


CONTAINERS = st.integers(0, 5)
OPERATION = st.one_of(
    st.tuples(st.just("ADD"), CONTAINERS, st.sampled_from(["", "draw!", "link", "link!", "route", "mark", "mark!"])),
    st.tuples(st.just("DEL"), CONTAINERS, st.sampled_from(["", "link out", "flush", "blank", "release!"])),
    st.tuples(st.just("CANCEL"), CONTAINERS, st.integers(1, 40)),
    st.tuples(st.just("GC"), st.frozensets(CONTAINERS), st.just("")),
    st.tuples(st.just("AWAY"), st.booleans(), st.just("")),
    st.tuples(st.just("REPLAY"), st.just(0), st.just("")),
)


async def cancelled_add(world, which, turns):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one(world, "ADD", which, ""))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()


async def one(world, verb, which, how):
    """One operation; errors that a runtime may hear are fine."""
    if isinstance(how, str) and how:
        world.breaks[how] = CniError(Code.KERNEL_REFUSED, how)
    try:
        match verb:
            case "ADD":
                await world.add(f"c{which}", pod=f"shop/{which % 3}")
            case "DEL":
                await world.delete(f"c{which}", pod=f"shop/{which % 3}")
            case "CANCEL":
                await cancelled_add(world, which, how)
            case "GC":
                await world.collect(*(f"c{n}" for n in which))
            case "AWAY":
                world.store_away = which
            case "REPLAY":
                await world.removals.replay()
    except (CniError, StoreError):
        pass


async def live(world, batches):
    """Batches of operations, each batch at once. Two sandboxes share each of three pods."""
    for batch in batches:
        async with asyncio.TaskGroup() as group:
            for operation in batch:
                group.create_task(one(world, *operation))
        held = [address for addresses in world.allocations.values() for address in addresses]
        assert len(held) == len(set(held))
        assert all(link.alias in {entry.container_id for entry in world.attachments} for link in world.links.values())
    world.store_away = False
    world.breaks.clear()
    for n in range(6):
        await world.delete(f"c{n}", pod=f"shop/{n % 3}")
    assert await world.removals.replay() == 0


@examples(150, unless=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(OPERATION, min_size=1, max_size=6), max_size=6))
def test_random_lives_leave_nothing(make_world, batches):
    world = make_world()
    asyncio.run(live(world, batches))
    assert world.left() == {}
