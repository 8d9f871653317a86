"""The evaluator against the table of cases, and what no row can say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calipy.explain.inhabitants import World
from calipy.explain.reference import evaluate
from calipy.explain.verdicts import Packet, Verdict
from calipy.resources.metadata import Key, ObjectMeta
from calipy.resources.network_policies import NetworkPolicy
from calipy.resources.nodes import Node
from calipy.resources.pods import POD_IP, POD_IPS, Pod, PodAddress, PodSpec, PodStatus
from tests.cases.loading import FOLDER, Case, cases, load


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_each_row_has_its_verdict_and_its_reason(case: Case) -> None:
    problems = [row.problem(evaluate(scene.world, row.packet)) for scene in case.scenes for row in scene.rows]
    assert not any(problems), "\n".join(filter(None, problems))


def test_where_a_pod_says_its_addresses() -> None:
    """As Calico: status.podIPs, status.podIP, then CNI's annotations."""
    for status, notes in (
        (PodStatus(pod_ips=(PodAddress(ip="10.1.1.1"),), pod_ip="10.1.1.2"), {}),
        (PodStatus(pod_ip="10.1.1.1"), {POD_IPS: "10.1.1.2/32"}),
        (PodStatus(), {POD_IPS: "fd00::1/128,10.1.1.1/32", POD_IP: "10.1.1.2/32"}),
        (PodStatus(), {POD_IP: "10.1.1.1/32"}),
    ):
        metadata = ObjectMeta(name="a", namespace="x", annotations=notes)
        world = {
            Key("Pod", "a", "x"): Pod(metadata=metadata, spec=PodSpec(node_name="n1"), status=status),
            Key("NetworkPolicy", "deny", "x"): NetworkPolicy(metadata=ObjectMeta(name="deny", namespace="x")),
        }
        assert [to(world, "10.1.1.1").allowed, to(world, "10.1.1.2").allowed] == [False, True]


def test_what_a_node_s_process_says_comes_before_all_objects() -> None:
    scene = load(FOLDER / "pod_to_host.yaml").scenes[-1]
    row = scene.rows[0]
    assert not evaluate(scene.world, row.packet).allowed
    assert evaluate(scene.world, row.packet, {"defaultEndpointToHostAction": "ACCEPT"}).allowed


def test_the_steps_tell_what_was_looked_at_and_what_did_not_hold() -> None:
    scene = load(FOLDER / "tier_order.yaml").scenes[1]
    verdict = evaluate(scene.world, next(row.packet for row in scene.rows if row.packet.destination_port == 81))
    assert str(verdict.deciding) == "ingress default/end"
    assert [(step.profile, step.rule, step.action) for step in verdict.steps[:1]] == [("kns.x", 0, "allow")]
    assert [(step.tier, step.policy, step.rule, step.action, step.unmet) for step in verdict.steps[1:]] == [
        ("security", "gnp/security.guard", 0, "deny", ("destination.ports",)),
        ("security", "gnp/security.guard", 1, "allow", ("destination.ports",)),
        ("security", "gnp/security.guard", 2, "pass", ()),
        ("platform", "np/x/platform.web", 0, "allow", ("destination.ports",)),
        ("platform", "np/x/platform.web", 1, "deny", ("destination.ports",)),
        ("platform", "np/x/platform.web", 2, "pass", ()),
        ("default", "knp/x/app", 0, "allow", ("ports",)),
        ("default", "", None, "deny", ()),
    ]


def to(world: World, destination: str) -> Verdict:
    return evaluate(world, Packet(source="192.0.2.1", destination=destination, protocol=6, destination_port=80))


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ("pods: |\n  x/a n1 colour:red", "story.yaml:2: colour: no pod has that"),
        ("pods: |\n  x/a n1\n\npackets: |\n  # a comment\n  x/a -> x/b  TCP 80 : deny", "story.yaml:6: x/b is nobody"),
        ("packets: |\n  outside -> n1 TCP 80 allow", "story.yaml:2: 'outside -> n1 TCP 80 allow' is no packet"),
        ("packets: |\n  1.1.1.1 -> fd00::1 TCP 80 : allow", "story.yaml:2: the ends have no family in common"),
        ("delete: Pod x/a", "story.yaml:1: Pod/x/a isn't there"),
        ("pots: x/a n1", "story.yaml:1: pots is none of namespaces, pods, delete and packets"),
        ("{apiVersion: v2, kind: Pod, metadata: {name: a}}", "v2 Pod is not known"),
        (
            "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, namespace: x},"
            " spec: {ingress: [{action: Allow, source: {notNet: [10.0.0.0/8]}}]}}",
            "a: spec.ingress[0].source.notNet",
        ),
    ],
)
def test_a_case_that_says_something_unknown_is_refused(tmp_path: Path, told: str, problem: str) -> None:
    (tmp_path / "story.yaml").write_text(told)
    with pytest.raises(ValueError, match="^" + re.escape(problem)):
        load(tmp_path / "story.yaml")


def test_an_address_that_is_none_counts_as_not_there() -> None:
    notes = {"projectcalico.org/IPv4Address": "junk", "projectcalico.org/IPv6Address": "fd00::9/64"}
    world: World = {
        Key("Node", "n1"): Node(metadata=ObjectMeta(name="n1", annotations=notes)),
        Key("Pod", "a", "x"): Pod(
            metadata=ObjectMeta(name="a", namespace="x"),
            spec=PodSpec(node_name="n1"),
            status=PodStatus(pod_ip="no", pod_ips=(PodAddress(ip="10.1.1.1"), PodAddress(ip=""))),
        ),
        Key("NetworkPolicy", "deny", "x"): NetworkPolicy(metadata=ObjectMeta(name="deny", namespace="x")),
    }
    assert not to(world, "10.1.1.1").allowed
