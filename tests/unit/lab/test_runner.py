"""The runner against plug-ins that are shell scripts: they note what they get and answer what they are told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from calipy.lab.cni_failures import CniFailure
from calipy.lab.cni_results import Interface, Route
from calipy.lab.executions import Completed, execute
from calipy.lab.runner import Runtime

PLUGIN = """#!/bin/sh
here=${0%/*}; name=${0##*/}
printf '%s %s\\n' "$CNI_COMMAND" "$name" >>"$here/order"
env >"$here/$name.$CNI_COMMAND.env"
cat >"$here/$name.$CNI_COMMAND.stdin"
[ -f "$here/$name.$CNI_COMMAND.says" ] && cat "$here/$name.$CNI_COMMAND.says"
[ -f "$here/$name.$CNI_COMMAND.cries" ] && cat "$here/$name.$CNI_COMMAND.cries" >&2
[ ! -f "$here/$name.$CNI_COMMAND.status" ] || exit "$(cat "$here/$name.$CNI_COMMAND.status")"
"""
ONE = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "cali1"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n/1", "mtu": 1500}],
    "ips": [{"address": "10.0.0.1/32", "interface": 1}, {"address": "fd00::1/128", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
}


class Bench:
    """A folder of plug-ins, one of configurations, and the runtime over them."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.net, self.cache = folder / "bin", folder / "net.d", folder / "cache"
        for path in (self.bin, self.net):
            path.mkdir()
        for name in ("one", "two"):
            (self.bin / name).write_text(PLUGIN)
            (self.bin / name).chmod(0o755)
        self.runtime = Runtime(run, self.net, self.cache, [str(folder / "nowhere"), str(self.bin)])
        self.configure()
        self.says("one", "ADD", ONE)
        self.says("two", "ADD", ONE)

    def configure(self, file: str = "10-net.conflist", **fields: object) -> None:
        """Writes a list of two plug-ins."""
        plugins = [{"type": "one", "capabilities": {"portMappings": True, "dns": False}, "mtu": 9}, {"type": "two"}]
        document = {"name": "net", "cniVersion": "1.0.0", "plugins": plugins} | fields
        (self.net / file).write_text(json.dumps(document))

    def says(self, plugin: str, verb: str, answer: object, status: int = 0) -> None:
        """What a plug-in prints, and its status."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (self.bin / f"{plugin}.{verb}.says").write_text(text)
        (self.bin / f"{plugin}.{verb}.status").write_text(str(status))

    def got(self, plugin: str, verb: str) -> dict[str, object]:
        """Its standard input."""
        found = json.loads((self.bin / f"{plugin}.{verb}.stdin").read_text())
        assert isinstance(found, dict)
        return found

    def env(self, plugin: str, verb: str) -> dict[str, str]:
        """Its CNI environment."""
        pairs = (line.partition("=") for line in (self.bin / f"{plugin}.{verb}.env").read_text().splitlines())
        return {key: value for key, _, value in pairs if key.startswith("CNI_")}

    def order(self) -> list[str]:
        """Which plug-ins ran, since the last question."""
        path = self.bin / "order"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


async def run(argv: Sequence[str], env: Mapping[str, str], stdin: bytes) -> Completed:
    """Runs plug-ins on this host."""
    return await execute(argv, env=env, stdin=stdin)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_add_goes_through_the_list_with_results_handed_on(bench: Bench) -> None:
    final = ONE | {"routes": [*ONE["routes"], {"dst": "fd00::/8"}]}
    bench.says("two", "ADD", final)
    mappings = [{"hostPort": 80}]
    added = await bench.runtime.add(
        "c1", "/n/1", args={"B": "2", "A": "1"}, capabilities={"portMappings": mappings, "dns": {}, "other": 1}
    )
    assert bench.order() == ["ADD one", "ADD two"]
    assert bench.got("one", "ADD") == {
        "name": "net", "cniVersion": "1.0.0", "type": "one", "capabilities": {"portMappings": True, "dns": False},
        "mtu": 9, "runtimeConfig": {"portMappings": mappings},
    }  # fmt: skip
    assert bench.got("two", "ADD") == {"name": "net", "cniVersion": "1.0.0", "type": "two", "prevResult": ONE}
    assert bench.env("one", "ADD") == {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/n/1", "CNI_IFNAME": "eth0",
        "CNI_ARGS": "B=2;A=1", "CNI_PATH": f"{bench.bin.parent}/nowhere:{bench.bin}",
    }  # fmt: skip
    assert added.addresses == ("10.0.0.1", "fd00::1")
    assert added.interfaces == (Interface("cali1"), Interface("eth0", "02:00:00:00:00:01", "/n/1", 1500))
    assert added.routes == (Route("0.0.0.0/0", "169.254.1.1"), Route("fd00::/8"))
    assert json.loads(added.raw) == final


async def test_delete_goes_back_with_the_result_of_add_and_forgets_it(bench: Bench) -> None:
    await bench.runtime.add("c1", "/n/1")
    bench.order()
    await bench.runtime.delete("c1", "/n/1")
    assert bench.order() == ["DEL two", "DEL one"]
    assert bench.got("one", "DEL")["prevResult"] == ONE
    await bench.runtime.delete("c1")
    assert "prevResult" not in bench.got("one", "DEL")
    assert bench.env("one", "DEL")["CNI_NETNS"] == ""


async def test_a_failed_delete_stops_there_and_keeps_the_result(bench: Bench) -> None:
    await bench.runtime.add("c1", "/n/1")
    bench.order()
    bench.says("two", "DEL", {"code": 11, "msg": "not now"}, 1)
    with pytest.raises(CniFailure, match=r'^plugin type="two" failed \(delete\): not now$'):
        await bench.runtime.delete("c1", "/n/1")
    assert bench.order() == ["DEL two"]
    bench.says("two", "DEL", "")
    await bench.runtime.delete("c1", "/n/1")
    assert bench.got("two", "DEL")["prevResult"] == ONE


async def test_results_are_kept_by_container_and_interface(bench: Bench) -> None:
    await bench.runtime.add("c1", "/n/1", interface="net1")
    await bench.runtime.check("c1", "/n/1", interface="net1")
    assert bench.got("two", "CHECK")["prevResult"] == ONE
    with pytest.raises(CniFailure, match="cached result"):
        await bench.runtime.check("c1", "/n/1", interface="eth0")
    with pytest.raises(CniFailure, match="cached result"):
        await bench.runtime.check("c2", "/n/1", interface="net1")


async def test_a_failed_add_keeps_no_result_and_takes_nothing_back(bench: Bench) -> None:
    bench.says("two", "ADD", {"code": 7, "msg": "bad", "details": "key x"}, 1)
    with pytest.raises(CniFailure) as caught:
        await bench.runtime.add("c1", "/n/1")
    assert str(caught.value) == 'plugin type="two" failed (add): bad; key x'
    assert (caught.value.code, caught.value.msg, caught.value.details, caught.value.plugin) == (
        7, "bad", "key x", "two",
    )  # fmt: skip
    assert bench.order() == ["ADD one", "ADD two"]
    await bench.runtime.delete("c1")
    assert "prevResult" not in bench.got("one", "DEL")


@pytest.mark.parametrize(
    ("version", "versions", "asked"),
    [
        ("0.4.0", None, "0.4.0"),
        ("0.4.0", ["0.4.0", "1.0.0", "1.1.0"], "1.1.0"),
        ("1.1.0", ["0.4.0"], "1.1.0"),
        ("0.4.0", ["1.0.0", "1.2.0"], "1.0.0"),
        ("0.9.0", ["0.10.0"], "0.10.0"),
        ("0.3.1", ["7.0.0"], "0.3.1"),
    ],
)
async def test_the_newest_version_that_both_know(
    bench: Bench, version: str, versions: list[str] | None, asked: str
) -> None:
    bench.configure(cniVersion=version, **({"cniVersions": versions} if versions else {}))
    await bench.runtime.add("c1", "/n/1")
    assert bench.got("one", "ADD")["cniVersion"] == asked


async def test_before_0_4_0_nothing_is_handed_on_to_delete_and_check_is_refused(bench: Bench) -> None:
    bench.configure(cniVersion="0.3.1")
    await bench.runtime.add("c1", "/n/1")
    await bench.runtime.delete("c1", "/n/1")
    assert "prevResult" not in bench.got("one", "DEL")
    with pytest.raises(CniFailure, match='"0.3.1" does not support CHECK'):
        await bench.runtime.check("c1", "/n/1")


async def test_a_kept_result_comes_back_in_the_lists_version(bench: Bench) -> None:
    await bench.runtime.add("c1", "/n/1")
    bench.configure(cniVersion="0.4.0")
    await bench.runtime.check("c1", "/n/1")
    addresses = [
        {"address": "10.0.0.1/32", "interface": 1, "version": "4"},
        {"address": "fd00::1/128", "interface": 1, "version": "6"},
    ]
    assert bench.got("one", "CHECK")["prevResult"] == ONE | {"cniVersion": "0.4.0", "ips": addresses}


async def test_a_result_without_a_version_has_the_one_asked_for(bench: Bench) -> None:
    bench.says("one", "ADD", {"ips": []})
    await bench.runtime.add("c1", "/n/1")
    assert bench.got("two", "ADD")["prevResult"] == {"cniVersion": "1.0.0", "ips": []}


async def test_the_first_list_by_name_is_used(bench: Bench) -> None:
    bench.configure("09-single.conf", name="single", type="two")
    bench.configure("01-other.txt", name="other")
    await bench.runtime.add("c1", "/n/1")
    assert bench.order() == ["ADD two"]
    assert bench.got("two", "ADD")["name"] == "single"


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "text"),
    [
        (1, '{"code":11,"msg":"m"}', "", 'plugin type="one" failed (add): m'),
        (1, '{"code":11,"msg":"m","details":"d"}', "noise", 'plugin type="one" failed (add): m; d'),
        (2, "", 'say "x"', 'plugin type="one" failed (add): netplugin failed: "say \\"x\\""'),
        (3, "", "", 'plugin type="one" failed (add): netplugin failed with no error message: exit status 3'),
        (1, "oops", "", 'plugin type="one" failed (add): netplugin failed but error parsing its diagnostic message "o'),
        (0, "oops", "", 'plugin type="one" failed (add): can\'t read the answer: '),
        (0, '{"cniVersion":"9.0.0"}', "", 'plugin type="one" failed (add): unsupported CNI result version "9.0.0"'),
        (0, '{"ips":[{"address":7}]}', "", 'plugin type="one" failed (add): can\'t read the answer: '),
    ],
)
async def test_errors_read_as_libcnis(bench: Bench, status: int, stdout: str, stderr: str, text: str) -> None:
    bench.says("one", "ADD", stdout, status)
    (bench.bin / "one.ADD.cries").write_text(stderr)
    with pytest.raises(CniFailure) as caught:
        await bench.runtime.add("c1", "/n/1")
    assert str(caught.value).startswith(text)
    assert bench.order() == ["ADD one"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no networks found in "),
        ("{", "error parsing configuration "),
        ('{"plugins":[{"type":"one"}]}', ": no name"),
        ('{"name":"n","plugins":[]}', ": no plugins in list"),
        ('{"name":"n","plugins":[{}]}', ": no plugins in list, or one without a type"),
        ('{"name":"n","plugins":[{"type":"absent"}]}', 'failed to find plugin "absent" in path ['),
        ('{"name":"n","plugins":[{"type":"../bin/one"}]}', 'failed to find plugin "../bin/one" in path ['),
        ('{"name":"n","cniVersion":"x","plugins":[{"type":"one"}]}', 'failed to parse version "x"'),
    ],
)
async def test_a_configuration_that_can_not_be_used(bench: Bench, content: str | None, text: str) -> None:
    path = bench.net / "10-net.conflist"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(CniFailure) as caught:
        await bench.runtime.delete("c1")
    assert text in str(caught.value)
    assert bench.order() == []


async def test_status_asks_every_plugin_from_1_1_0_on(bench: Bench) -> None:
    await bench.runtime.status()
    assert bench.order() == []
    bench.configure(cniVersion="1.1.0")
    await bench.runtime.status()
    assert bench.order() == ["STATUS one", "STATUS two"]
    assert bench.got("two", "STATUS") == {"name": "net", "cniVersion": "1.1.0", "type": "two"}
    bench.says("one", "STATUS", {"code": 50, "msg": "no"}, 1)
    with pytest.raises(CniFailure, match=r'plugin type="one" failed \(status\): no') as caught:
        await bench.runtime.status()
    assert caught.value.code == 50


async def test_gc_deletes_what_is_stale_then_names_what_is_valid(bench: Bench) -> None:
    bench.configure(cniVersion="1.1.0")
    for container_id, interface in (("c1", "eth0"), ("c1", "net1"), ("c2", "eth0")):
        await bench.runtime.add(container_id, f"/n/{container_id}", interface=interface)
    bench.order()
    await bench.runtime.gc([("c1", "eth0"), ("c9", "eth0")])
    assert bench.order() == ["DEL two", "DEL one"] * 2 + ["GC one", "GC two"]
    entries = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c9", "ifname": "eth0"}]
    assert bench.got("one", "GC")["cni.dev/valid-attachments"] == entries
    await bench.runtime.check("c1", "/n/c1")
    with pytest.raises(CniFailure):
        await bench.runtime.check("c2", "/n/c2")


async def test_gc_goes_on_after_a_failure_and_raises_it(bench: Bench) -> None:
    bench.configure(cniVersion="1.1.0")
    await bench.runtime.add("c1", "/n/1")
    bench.order()
    bench.says("two", "DEL", {"code": 5, "msg": "stuck"}, 1)
    with pytest.raises(CniFailure, match="stuck"):
        await bench.runtime.gc([])
    assert bench.order() == ["DEL two", "GC one", "GC two"]


async def test_lists_may_switch_check_and_gc_off(bench: Bench) -> None:
    bench.configure(cniVersion="1.1.0", disableCheck=True, disableGC=True)
    await bench.runtime.add("c1", "/n/1")
    bench.order()
    await bench.runtime.check("c1", "/n/1")
    await bench.runtime.gc([])
    assert bench.order() == []


async def test_versions(bench: Bench) -> None:
    for name in ("one", "two"):
        bench.says(name, "VERSION", {"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", name]})
    assert await bench.runtime.versions() == {"one": ("0.4.0", "one"), "two": ("0.4.0", "two")}
    assert bench.env("one", "VERSION")["CNI_NETNS"] == "dummy"
    assert bench.got("one", "VERSION") == {"cniVersion": "1.1.0"}


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
async def test_a_verb_that_has_no_answer_is_ended_and_says_after_what_time(verb: str, bench: Bench) -> None:
    ended = []

    async def hang(argv: Sequence[str], env: Mapping[str, str], stdin: bytes) -> Completed:
        if "CNI_COMMAND" not in env:
            return Completed(0, b"/opt/cni/bin/x\n", b"")  # where the plug-in lies
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.append(env["CNI_COMMAND"])
            raise

    limits = {"add_limit_s": 0.02, "limit_s": 60.0} if verb == "ADD" else {"limit_s": 0.02}
    runtime = Runtime(hang, bench.net, bench.cache, [str(bench.bin)], **limits)
    ask = runtime.add("c1", "/n/1") if verb == "ADD" else runtime.delete("c1")
    with pytest.raises(CniFailure, match=rf'^network "net": {verb} has not ended in 0\.02 s, and was ended$'):
        await asyncio.wait_for(ask, 5)
    assert ended == [verb]
