"""ADD: its order, its way back at each step, and what it refuses."""

import asyncio

import pytest

from calipy.cni import sites
from calipy.cni.errors import CniError, Code
from calipy.cni.results import Result
from calipy.datastore.stores import Unavailable
from calipy.model.selectables import NamedPort

STEPS = ["pod", "draw", "flush", "endpoint", "link", "route", "mark"]
EFFECTS = ["draw!", "endpoint!", "link!", "route!", "mark!"]


async def test_order_and_result(world):
    result = await world.add()
    assert world.steps == STEPS
    interface = next(iter(world.links))
    assert result == Result(
        host_interface=interface,
        container_interface="eth0",
        sandbox="/run/netns/c1",
        mac="02:00:00:00:00:01",
        mtu=1450,
        addresses=("10.0.0.0", "fd00::"),
        routes=("10.0.0.0/29", "fd00::/125"),
    )
    assert [entry.state for entry in world.attachments] == ["attached"]
    assert world.pods["shop/web"].annotations()["cni.projectcalico.org/podIPs"] == "10.0.0.0/32,fd00::/128"
    assert next(iter(world.endpoints.values())).mac == "02:00:00:00:00:01"


async def test_the_link_comes_once_the_kernel_has_the_rules_and_no_sooner(world):
    """Until `endpoints.add` has said that all is programmed, the pod can't send."""
    world.pauses["endpoint"] = programmed = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(world.add())
        assert await world.paused.get() == "endpoint"
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.steps == STEPS[: STEPS.index("endpoint") + 1]
        assert not world.links
        assert not adding.done()
        programmed.set()
    assert world.steps == STEPS
    assert len(world.links) == 1


async def test_an_endpoint_is_governed_by_what_its_pod_said_when_it_was_read(world):
    await world.add()
    endpoint = next(iter(world.endpoints.values()))
    assert (endpoint.labels, endpoint.service_account) == ({"app": "web"}, "robot")
    assert endpoint.ports == (NamedPort("http", 6, 80),)


@pytest.mark.parametrize("step", STEPS + EFFECTS)
@pytest.mark.parametrize("problem", [CniError(Code.KERNEL_REFUSED, "no"), Unavailable("no"), OSError(5, "no")])
async def test_a_failure_leaves_nothing(world, step, problem):
    world.breaks[step] = problem
    with pytest.raises(type(problem), match="no"):
        await world.add()
    assert world.left() == {}


@pytest.mark.parametrize("step", STEPS)
async def test_a_dead_caller_leaves_nothing(world, step):
    world.pauses[step] = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.add())
        assert await world.paused.get() == step
        world.pauses.clear()
        task.cancel()
    assert task.cancelled()
    assert world.left() == {}


@pytest.mark.parametrize("step", STEPS[1:] + EFFECTS)
async def test_the_store_goes_away_in_the_middle(world, step):
    """What was drawn stays on record, out of anybody's reach, until the store is back."""
    original = world.step

    async def step_and_away(name, *, store=False):
        world.store_away = world.store_away or name == step.rstrip("!")
        await original(name, store=store)

    world.step = step_and_away
    world.breaks[step] = Unavailable("no")
    with pytest.raises(Unavailable):
        await world.add()
    assert [entry.state for entry in world.attachments] == ["leaving"]
    assert not world.links
    assert not world.endpoints
    assert world.removals.put_off.is_set()
    world.step = original
    world.store_away = False
    assert await world.removals.replay() == 0
    assert world.left() == {}


async def test_repeated_add_gives_the_same_result(world):
    first = await world.add()
    world.steps.clear()
    assert await world.add() == first
    assert world.steps == ["addresses of"]


async def test_repeated_add_mends_what_is_broken(world):
    await world.add()
    world.links.clear()
    world.made.clear()
    assert isinstance(await world.add(), Result)
    assert len(world.links) == len(world.attachments._known) == 1
    await world.delete()
    assert world.left() == {}


async def test_repeated_add_waits_for_the_release_of_what_was(world):
    await world.add()
    world.store_away = True
    await world.delete()
    with pytest.raises(CniError, match="can't be released yet") as caught:
        await world.add()
    assert caught.value.code == 11


async def test_one_interface_a_container(world):
    await world.add()
    with pytest.raises(CniError, match="has interface eth0 on network net already") as caught:
        await world.add(CNI_IFNAME="eth1")
    assert caught.value.code == Code.ALREADY_ATTACHED
    with pytest.raises(CniError, match="already"):
        await world.add(conf={"name": "other"})
    assert len(world.links) == 1


async def test_the_next_sandbox_takes_the_link_over(world):
    await world.add("c1")
    (old,) = world.links.values()
    await world.add("c2")
    (new,) = world.links.values()
    assert (new.name, new.alias) == (old.name, "c2")
    assert new.index != old.index
    await world.delete("c1")
    assert list(world.links.values()) == [new]
    assert next(iter(world.endpoints.values())).container_id == "c2"
    assert world.pods["shop/web"].container_id == "c2"
    assert list(world.allocations) == ["net.c2"]
    await world.delete("c2")
    assert world.left() == {}


@pytest.mark.parametrize(("conf", "expected"), [("true", ("10.0.0.0",)), ("false", ("fd00::",))])
async def test_families_of_the_configuration(world, conf, expected):
    other = "false" if conf == "true" else "true"
    result = await world.add(conf={"ipam": {"assign_ipv4": conf, "assign_ipv6": other}})
    assert result.addresses == expected


async def test_no_family_at_all(world):
    with pytest.raises(CniError, match="no address family") as caught:
        await world.add(conf={"ipam": {"assign_ipv4": "false", "assign_ipv6": "false"}})
    assert caught.value.code == Code.NO_ADDRESS
    assert world.left() == {}


async def test_annotations_decide(world):
    world.annotations.update(
        {
            "cni.projectcalico.org/ipAddrs": '["10.0.0.5"]',
            "cni.projectcalico.org/hwAddr": "02:00:00:00:00:77",
        }
    )
    result = await world.add()
    assert (result.addresses, result.mac) == (("10.0.0.5",), "02:00:00:00:00:77")


async def test_the_runtimes_annotations_count_where_the_pod_says_nothing(world):
    runtime = {"io.kubernetes.cri.pod-annotations": {"cni.projectcalico.org/ipFamilies": '["IPv6"]'}}
    assert (await world.add(conf={"runtimeConfig": runtime})).addresses == ("fd00::",)


async def test_a_wrong_annotation_touches_nothing(world):
    world.annotations["cni.projectcalico.org/hwAddr"] = "x"
    with pytest.raises(CniError, match="hwAddr"):
        await world.add()
    assert world.steps == ["pod"]
    assert world.left() == {}


async def test_no_pod(world):
    world.no_pods = True
    with pytest.raises(CniError, match="there is no Pod shop/web") as caught:
        await world.add()
    assert caught.value.code == 11
    assert world.left() == {}


async def test_outside_kubernetes(world):
    result = await world.add("0123456789abcdef", pod="")
    assert result.host_interface == "cali0123456789a"
    assert "pod" not in world.steps
    (endpoint,) = world.endpoints
    assert str(endpoint) == "cni/0123456789abcdef/eth0"
    await world.delete("0123456789abcdef", pod="")
    assert world.left() == {}


async def test_another_nodes_name(world):
    with pytest.raises(CniError, match="nodename is 'n2', this node is 'n1'") as caught:
        await world.add(conf={"nodename": "n2"})
    assert caught.value.code == 7


@pytest.mark.parametrize(("step", "words"), [("endpoint", "its policy"), ("route", "its host route")])
async def test_patience_ends(world, step, words, monkeypatch):
    monkeypatch.setattr(sites, "PROGRAMMED_WITHIN_S", 0.01)
    world.pauses[step] = asyncio.Event()
    with pytest.raises(CniError, match=words) as caught:
        await world.add()
    assert caught.value.code == 11
    assert world.left() == {}


async def test_twenty_at_once(make_world):
    world = make_world()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.add(f"c{n}", pod=f"shop/web-{n}")) for n in range(8)]
    assert len({task.result().addresses for task in tasks}) == 8
    with pytest.raises(CniError, match="full"):
        await world.add("c9", pod="shop/web-9")
    async with asyncio.TaskGroup() as group:
        for n in range(8):
            group.create_task(world.delete(f"c{n}", pod=f"shop/web-{n}"))
    assert world.left() == {}
