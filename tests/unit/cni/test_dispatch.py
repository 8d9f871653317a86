"""Calls: one answer each, every error with its code."""

import json

import pytest

from calipy.cni.dispatch import Dispatcher, understandable
from calipy.cni.errors import CniError, Code
from calipy.cni.server import Call
from calipy.datastore.stores import Conflict, Unavailable
from calipy.resources.metadata import Refused


@pytest.fixture
def seen():
    return []


@pytest.fixture
def dispatcher(world, seen):
    return Dispatcher(world.site, world.removals, lambda verb, code, seconds: seen.append((verb, code)))


def call(verb, container="c1", dry_run=False, **conf):
    env = {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": "/x", "CNI_IFNAME": "eth0",
        "CNI_ARGS": f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container}",
    }  # fmt: skip
    return Call(env=env, stdin=json.dumps({"cniVersion": "1.1.0", "name": "net", **conf}), dry_run=dry_run)


async def test_a_life(world, dispatcher, seen):
    added = await dispatcher.answer(call("ADD"), 5)
    assert added.succeeded
    result = json.loads(added.output)
    assert result["ips"][0] == {"address": "10.0.0.0/32", "interface": 1}
    assert (await dispatcher.answer(call("CHECK", prevResult=result), 5)).output == b""
    assert (await dispatcher.answer(call("DEL", prevResult=result), None)).output == b""
    checked = await dispatcher.answer(call("CHECK", prevResult=result), 5)
    assert json.loads(checked.output)["code"] == 101
    assert world.left() == {}
    assert seen == [("ADD", "0"), ("CHECK", "0"), ("DEL", "0"), ("CHECK", "101")]


async def test_errors_are_in_the_version_asked_for(dispatcher):
    answer = await dispatcher.answer(call("ADD", cniVersion="0.4.0"), None)
    assert not answer.succeeded
    error = json.loads(answer.output)
    assert (error["cniVersion"], error["code"]) == ("0.4.0", 4)


async def test_before_the_agent_is_ready(world, dispatcher):
    world.obstacle = "not in sync yet"
    for verb, code in (("ADD", 11), ("CHECK", 11), ("STATUS", 50)):
        answer = await dispatcher.answer(call(verb, prevResult={} if verb == "CHECK" else None), 5)
        error = json.loads(answer.output)
        assert (error["code"], "not in sync yet" in error["msg"]) == (code, True)
    assert (await dispatcher.answer(call("DEL"), None)).succeeded
    world.obstacle = ""
    assert (await dispatcher.answer(call("STATUS"), None)).output == b""


async def test_version(dispatcher):
    answer = await dispatcher.answer(Call(env={"CNI_COMMAND": "VERSION"}, stdin='{"cniVersion": "1.0.0"}'), None)
    assert json.loads(answer.output)["supportedVersions"][-1] == "1.1.0"


async def test_collect(world, dispatcher):
    await dispatcher.answer(call("ADD", "c1"), 5)
    await dispatcher.answer(call("ADD", "c2"), 5)
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    shown = await dispatcher.answer(call("GC", dry_run=True, **valid), None)
    assert [entry["containerID"] for entry in json.loads(shown.output)["wouldRelease"]] == ["c1"]
    assert len(world.links) == 2
    assert (await dispatcher.answer(call("GC", **valid), None)).output == b""
    assert list(world.allocations) == ["net.c2"]


async def test_a_result_that_nobody_got_is_taken_back(world, dispatcher):
    await dispatcher.answer(call("ADD"), 5)
    await dispatcher.undo(call("ADD"))
    assert world.left() == {}
    await dispatcher.undo(call("DEL"))


async def test_a_result_that_another_add_has_told_too_is_not_taken_back(world, dispatcher):
    """Of two callers one got it; it does not matter which, nor whether the other's end is seen before or after."""
    await dispatcher.answer(call("ADD"), 5)
    assert (await dispatcher.answer(call("ADD"), 5)).succeeded
    await dispatcher.undo(call("ADD"))
    await dispatcher.undo(call("ADD"))
    assert len(world.links) == 1
    await dispatcher.answer(call("DEL"), None)
    await dispatcher.answer(call("ADD"), 5)
    await dispatcher.undo(call("ADD"))
    assert world.left() == {}


def test_only_add_gives_way(dispatcher):
    assert dispatcher.gives_way(call("ADD"))
    assert not dispatcher.gives_way(call("DEL"))


async def test_what_nobody_foresaw(world, dispatcher, seen, caplog):
    world.breaks["draw"] = RuntimeError("surprise")
    answer = await dispatcher.answer(call("ADD"), 5)
    error = json.loads(answer.output)
    assert (error["code"], error["msg"]) == (999, "RuntimeError: surprise")
    assert "Traceback" in caplog.text
    assert seen == [("ADD", "999")]
    assert world.left() == {}


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (CniError(Code.DIFFERS, "x"), 101),
        (Unavailable("locked"), 11),
        (Conflict("changed"), 103),
        (Refused("Pod/shop/1", ()), 103),
        (OSError(28, "No space left on device", "/x"), 5),
        (ValueError("x"), 999),
    ],
)
def test_every_error_has_a_code(problem, code):
    assert understandable(problem).code == code
