"""The lab as its users have it: who reaches whom in every encapsulation and family, power cuts, cut cables, crashes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calipy.console.failures import Failure, lines
from calipy.datastore.stores import NotFound
from calipy.lab import folders, lifecycle, places, pods
from calipy.lab.cluster import Lab
from calipy.lab.cni_failures import CniFailure
from calipy.lab.executions import execute
from calipy.lab.machines import Machine
from calipy.lab.runner import Runtime
from calipy.lab.topology import Plan
from calipy.lab.waiting import eventually, together
from calipy.resources import ipam_blocks, nodes
from calipy.resources import pods as pod_kind

NODES = ("n1", "n2", "n3")


async def two_pods_a_node(lab):
    await together(lab.add(f"{node}-{letter}", node) for node in NODES for letter in "ab")


@pytest.mark.parametrize(("families", "probes"), [("ipv4", 54), ("dual", 108)])
async def test_everybody_reaches_everybody_whatever_the_encapsulation(families, probes, cluster):
    lab = await cluster(families=families)
    await two_pods_a_node(lab)

    for encapsulation in ("none", "vxlan", "vxlan-crosssubnet", "none"):
        await lab.encapsulate(encapsulation)
        await lab.rest(encapsulation)
        assert len(await lab.matrix()) == probes


@pytest.mark.parametrize("encapsulation", ["vxlan", "vxlan-crosssubnet"])
async def test_a_lab_that_starts_with_an_encapsulation(encapsulation, cluster):
    lab = await cluster(encapsulation=encapsulation)
    await two_pods_a_node(lab)

    await lab.rest()


async def test_a_node_that_loses_power_loses_its_pods_and_comes_back(cluster):
    lab = await cluster()
    await two_pods_a_node(lab)
    await lab.rest()

    await lab.power_off("n3")

    assert {probe.source for probe in await lab.matrix()} == {"n1", "n2", "n1-a", "n1-b", "n2-a", "n2-b"}
    with pytest.raises(Failure, match="node n3: it has no power; switch it on: calipy lab restart n3"):
        await lab.add("late", "n3")

    gone = await lab.back_on("n3")

    assert [str(pod) for pod in gone] == ["default/n3-a", "default/n3-b"]
    assert await addresses_given_out(lab, "n3") == set()
    await lab.add("fresh", "n3")
    await lab.rest()


async def addresses_given_out(lab, node):
    """Ordinals that pods hold, of all blocks of a node."""
    async with lab.store() as store:
        blocks = [stored.value.spec async for page in store.list(ipam_blocks.KIND) for stored in page.items]
    return {
        (block.cidr, ordinal)
        for block in blocks
        if block.affinity == f"host:{node}"
        for ordinal, holder in enumerate(block.allocations)
        if holder is not None
    }


async def test_a_cut_cable_is_felt_and_mended(cluster):
    lab = await cluster()
    await two_pods_a_node(lab)
    await lab.rest()

    await lab.cut("n2")
    assert not await lab.carrier("n2")
    lost = {(probe.source, probe.target) for probe in await lab.matrix(patience_s=0.5) if not probe.answered}
    assert ("n1-a", "n2-a") in lost
    assert ("n2-a", "n1-a") in lost
    assert ("n2-a", "n2-b") not in lost
    assert ("n1-a", "n3-a") not in lost

    await lab.cut("n2", heal=True)
    await lab.rest()


@pytest.mark.parametrize("part", ["agent", "bgp"])
async def test_a_process_that_is_killed_or_restarted_comes_back(part, cluster):
    lab = await cluster()
    await two_pods_a_node(lab)
    await lab.rest()

    await lab.kill("n1", part)
    await lab.restart("n2", part)

    async def started_again():
        return (await lab.machines["n1"].process(part).status()).restarts == 1

    await eventually(started_again, part)
    await lab.sessions_up("n1")
    await lab.rest()


async def test_a_node_object_that_somebody_deletes_comes_back_as_it_was(cluster):
    lab = await cluster(count=2)
    async with lab.store() as store:
        stored = await store.get(nodes.KIND, "n1")
        await store.delete(nodes.KIND, stored)

    await lab.restart("n1", "agent")

    async with lab.store() as store:
        back = await store.get(nodes.KIND, "n1")
    assert back.value.metadata.labels == {"kubernetes.io/hostname": "n1", "rack": "rack-a"}
    await lab.sessions_up("n2")
    await lab.sessions_up("n1")


async def test_a_pod_listens_and_goes_without_a_trace(cluster):
    lab = await cluster(count=1)
    pod = await lab.add("web", "n1", "TCP/80", app="web")

    client = (
        f"import socket; s = socket.create_connection(({pod.addresses[0]!r}, 80), 5); s.send(b'x'); print(s.recv(9))"
    )
    assert (await lab.machines["n1"].run(sys.executable, "-S", "-c", client)).text == "b'x'\n"
    async with lab.store() as store:
        stored = (await store.get(pod_kind.KIND, "web", "default")).value
    assert stored.metadata.labels == {"app": "web"}
    assert stored.status.phase == "Running"
    assert tuple(entry.ip for entry in stored.status.pod_ips) == pod.addresses
    assert [port.container_port for port in stored.spec.containers[0].ports] == [80]

    await lab.delete(pod)

    assert pods.sandboxes(lab) == ()
    assert await addresses_given_out(lab, "n1") == set()
    assert not (await lab.machines["n1"].run("ip", "-br", "link", "show", "type", "veth")).text.count("cali")
    assert (await lab.machines["n1"].run("ip", "netns", "list")).text == ""
    assert set(await lab.machines["n1"].processes()) == {"agent", "bgp"}
    async with lab.store() as store:
        with pytest.raises(NotFound):
            await store.get(pod_kind.KIND, "web", "default")


async def test_a_pod_that_can_t_be_attached_leaves_nothing(cluster):
    lab = await cluster(count=1)
    wish = pods.Wish(name="web", node="n1", annotations={"cni.projectcalico.org/ipAddrs": '["10.99.0.1"]'})

    async with lab.store() as store:
        with pytest.raises(CniFailure, match=r"10\.99\.0\.1"):
            await pods.add(lab, store, wish)
        with pytest.raises(NotFound):
            await store.get(pod_kind.KIND, "web", "default")

    assert pods.sandboxes(lab) == ()
    assert (await lab.machines["n1"].run("ip", "netns", "list")).text == ""


async def test_a_pod_is_given_up_where_the_agent_does_not_answer_and_can_be_deleted_when_it_does(cluster, monkeypatch):
    lab = await cluster(count=1)
    limits = {"add_limit_s": 1.0, "limit_s": 0.5}
    runtime = Runtime(lab.machines["n1"].execute, lab.folder / "n1" / "cni", lab.folder / "n1" / "cache", **limits)
    monkeypatch.setattr(lab, "runtime", lambda name: runtime)
    agent = lab.machines["n1"].process("agent")
    await agent.signal(signal.SIGSTOP)

    with pytest.raises(BaseExceptionGroup) as raised:
        await lab.add("web", "n1")

    assert list(lines(raised.value)) == [
        'error: network "k8s-pod-network": ADD has not ended in 1 s, and was ended',
        'error: pod default/web: is left half made: network "k8s-pod-network": DEL has not ended in 0.5 s, and was '
        "ended; when its cause is gone: calipy lab pod delete default/web",
    ]
    with pytest.raises(Failure, match="pod default/web: is half made and has no network; delete it"):
        await lab.probe("web", "10.0.0.1:80")
    await agent.signal(signal.SIGCONT)
    await lab.ready("n1")
    await lab.delete(pods.named(lab, "web"))
    assert await addresses_given_out(lab, "n1") == set()
    assert (await lab.machines["n1"].run("ip", "netns", "list")).text == ""
    assert not (await lab.machines["n1"].run("ip", "-br", "link", "show", "type", "veth")).text.count("cali")


# --- by the command line ---


def calipy_lab(folder, *arguments, check=0):
    """What a command prints, called as after `su`, whose PATH knows no administrator's commands."""
    command = [sys.executable, "-m", "calipy", "lab", *arguments]
    environment = {**os.environ, "CALIPY_LAB": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout if not check else done.stderr


async def test_every_command(cluster, folder):
    assert "no lab is running" in calipy_lab(folder, "status", check=1)
    lab = await cluster()

    assert calipy_lab(folder, "pod", "add", "a", "--node", "n1", "--listen", "tcp/80").startswith(
        "pod default/a on n1: "
    )
    calipy_lab(folder, "pod", "add", "b", "--node", "n3", "-n", "shop", "--label", "x=y", "--annotation", "k=v")
    await lab.rest()
    nodes = json.loads(calipy_lab(folder, "status", "-o", "json"))
    assert [(node["node"], node["agent"], node["bgp"], node["pods"]) for node in nodes] == [
        ("n1", "ready", "running", 1), ("n2", "ready", "running", 0), ("n3", "ready", "running", 1),
    ]  # fmt: skip
    assert all(session["state"] == "up" for node in nodes for session in node["sessions"])
    listed = json.loads(calipy_lab(folder, "pods", "-o", "json"))
    assert [(pod["namespace"], pod["name"], pod["state"]) for pod in listed] == [
        ("default", "a", "running"), ("shop", "b", "running"),
    ]  # fmt: skip
    assert "shop/b" in calipy_lab(folder, "pods")
    assert "10.9.1.11" in calipy_lab(folder, "ping-matrix")
    assert len(json.loads(calipy_lab(folder, "ping-matrix", "-o", "json"))) == 20
    assert "eth0" in calipy_lab(folder, "exec", "shop/b", "--", "ip", "-br", "link")
    assert calipy_lab(folder, "exec", "n2", "hostname") == "n2\n"
    for place in ("a", "n2", "tor"):
        assert "No such file" in calipy_lab(folder, "exec", place, "no-such-command", check=127)
        assert "Permission denied" in calipy_lab(folder, "exec", place, "/etc/passwd", check=126)
        assert calipy_lab(folder, "exec", place, "--", "sh", "-c", "exit 7", check=7) == ""
    assert "Established" in calipy_lab(folder, "exec", "tor", "birdc", "show", "protocols")
    told = calipy_lab(folder, "logs", "n1")
    assert "node n1 is ready" in told
    assert "connected to peer" in told
    assert not [line for line in told.splitlines() if "advice" in line or "route added" in line]
    assert any(
        "node n1 is ready" in line for line in json.loads(calipy_lab(folder, "logs", "n1", "-o", "json"))["agent"]
    )
    calipy_lab(folder, "restart", "n1", "agent")
    calipy_lab(folder, "cut", "n2")
    assert "cut" in calipy_lab(folder, "status")
    calipy_lab(folder, "heal", "n2")
    calipy_lab(folder, "kill", "n3")
    assert "no power" in calipy_lab(folder, "status")
    assert "without power" in calipy_lab(folder, "pods")
    calipy_lab(folder, "restart", "n3")
    assert json.loads(calipy_lab(folder, "pods", "-o", "json"))[1:] == []
    calipy_lab(folder, "pod", "delete", "a")
    calipy_lab(folder, "kill", "n2", "bgp")
    assert "runs in" in calipy_lab(folder, "up", check=1)
    assert calipy_lab(folder, "down") == "The lab is gone.\n"
    assert not folder.exists()


async def test_probes_tell_what_is_allowed_refused_and_filtered_whatever_the_encapsulation(cluster, folder):
    lab = await cluster(count=2)
    await lab.add("web", "n1", "TCP/80", "UDP/80", "SCTP/80", namespace="shop")
    client = await lab.add("client", "n2")
    await lab.add("near", "n1")
    allowed, refused, filtered = ({4: word, 6: word} for word in ("allowed", "refused", "filtered"))
    for encapsulation in ("none", "vxlan"):
        await lab.encapsulate(encapsulation)
        await lab.rest(encapsulation)
        for protocol in ("TCP", "UDP", "SCTP"):
            for who in ("client", "near", "n1", "n2"):
                assert await lab.probe(who, "shop/web:80", protocol) == allowed, (who, protocol)
            assert await lab.probe("client", "shop/web:81", protocol) == refused
            assert await lab.probe("shop/web", "client:80", protocol) == refused
    assert await lab.probe("outside", "shop/web:80") == {4: "unreachable", 6: "unreachable"}

    told = json.loads(calipy_lab(folder, "probe", "client", "shop/web:80", "--protocol", "sctp", "-o", "json"))
    assert [(one["family"], one["verdict"], one["answer"]) for one in told] == [
        (4, "allowed", "INIT ACK"), (6, "allowed", "INIT ACK"),
    ]  # fmt: skip
    assert "allowed" in calipy_lab(folder, "probe", "client", f"[{lab_address(lab, 'shop/web', 6)}]:80")
    rules = "table inet t { chain c { type filter hook output priority 0; meta nfproto ipv6 tcp dport 80 drop; }; }"
    inside = lab.machines["n2"].inside("ip", "netns", "exec", client.netns, "nft", "-f", "-")
    assert not (await execute(inside, stdin=rules.encode())).status

    assert await lab.probe("client", "shop/web:80", timeout_s=0.5) == allowed | {6: "filtered"}
    probe = ("probe", "client", "shop/web:80", "--timeout", "500ms")
    assert "allowed" in calipy_lab(folder, *probe, "--family", "4")
    assert calipy_lab(folder, *probe, check=1) == ""
    await lab.power_off("n1")
    assert await lab.probe("client", "shop/web:80", "UDP", timeout_s=0.5) == filtered
    with pytest.raises(Failure, match="node n1: it has no power"):
        await lab.probe("near", "client:80")


def lab_address(lab, pod, family):
    return places.by_family(pods.named(lab, pod).addresses)[family]


async def test_ping_matrix_fails_when_somebody_is_not_reached(cluster, folder):
    lab = await cluster(count=1)
    pod = await lab.add("a", "n1")
    await lab.add("b", "n1")
    await lab.machines["n1"].run("ip", "netns", "exec", pod.netns, "ip", "link", "set", "eth0", "down")

    command = [sys.executable, "-m", "calipy", "lab", "ping-matrix"]
    done = await execute(command, env={**os.environ, "CALIPY_LAB": str(folder)})

    assert done.status == 1
    assert "FAIL v4 v6" in done.text
    assert "b -> a, IPv4: " in done.text


async def test_the_demonstration_shows_a_complete_matrix_and_leaves_nothing(folder):

    told = calipy_lab(folder, "demo")

    assert "All is well" in told
    assert "FAIL" not in told
    for title in ("Nodes", "BGP sessions", "Pods", "Routes of n1", "Time of each step"):
        assert f"\n{title}\n" in told
    assert "no encapsulation, IPv4 and IPv6" in told
    assert "vxlan-crosssubnet, IPv4 and IPv6" in told
    ruled = told.partition("under the policy, IPv4 and IPv6; 9 pairs are to be blocked\n")[2].partition("\n\n")[0]
    assert ruled.count("- blocked") == 9
    assert {line.split()[0] for line in ruled.splitlines() if "blocked" in line} == {"n1-a", "n2-a", "n3-a", "n2", "n3"}
    assert "\n$ pycalicoctl explain default/n1-a --from default/n3-a --port 80 --exit-code\n" in told
    assert "TCP 80, IPv4 and IPv6: DENIED where it arrives\n" in told
    assert "np/default/friends governs default/n1-a" in told
    assert "the policy deleted: everybody reaches everybody again" in told
    assert not folder.exists()
    assert traces(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demonstration_leaves_nothing(number, folder):
    process = await started(folder, "demo")
    await eventually(lambda: an_agent_runs(folder), "agents start")

    process.send_signal(number)
    _, told = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, told.strip()) == (130, b"")
    assert not folder.exists()
    assert traces(folder) == []


@pytest.mark.parametrize("verb", ["up", "down"])
async def test_what_a_killed_up_has_left_is_swept(verb, folder):
    process = await started(folder, "up")
    await eventually(lambda: an_agent_runs(folder), "agents start")

    process.kill()
    await process.wait()

    assert traces(folder) != []
    with pytest.raises(Failure, match="was never complete"):
        Lab.running(folder)
    calipy_lab(folder, verb, *(("--nodes", "1") if verb == "up" else ()))
    if verb == "up":
        calipy_lab(folder, "down")
    assert not folder.exists()
    assert traces(folder) == []


async def test_a_machine_that_had_not_yet_said_who_it_is_is_swept_too(folder):
    """`up` was killed after process 1 came up, and before its identity was written."""
    folders.write_plate(folder_made(folder), folders.Plate(plan=Plan()))
    machine = Machine("n1", folder / "n1")
    await machine.start()
    (folder / "n1" / "identity.json").unlink()

    await lifecycle.down(folder)

    assert traces(folder) == []


def folder_made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def started(folder, verb):
    # Whoever runs the tests in the background may have them ignore SIGINT, and that is inherited.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "calipy", "lab", verb]
    environment = {**os.environ, "CALIPY_LAB": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )


async def an_agent_runs(folder):
    return (folder / "n1" / "agent.log").exists() or "no agent yet"


def traces(folder):
    """What a lab has on the host: processes, mounts, and links that are named as a lab's are."""
    name = folder.name
    lines = [command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    lines += Path("/proc/self/mountinfo").read_text().splitlines()
    plan = Plan()
    links = {*plan.machines, *(segment.name for segment in plan.segments)} & set(os.listdir("/sys/class/net"))
    return [line for line in lines if name in line] + sorted(links)


def command_line(path):
    try:
        return path.read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
