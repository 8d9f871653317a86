"""Names, and what is said of an object that can't be decoded."""

from __future__ import annotations

import pytest

from calipy.resources import ip_pools, ipam_blocks, ipam_handles, namespaces, pods
from calipy.resources.metadata import Key, ObjectMeta, Problem, Refused, accept, decode, name_problems
from tests.unit.resources.objects import made

POOL, POD, NAMESPACE = ip_pools.KIND, pods.KIND, namespaces.KIND
SUBDOMAIN = "lower-case letters, digits, dashes, dots; a letter or digit at both ends"
LABEL = "lower-case letters, digits, dashes; a letter or digit at both ends"

# kind | name | namespace | what is said
NAMES = [
    (POOL, "default-ipv4-ippool", "", []),
    (POOL, "node.n1.example.com", "", []),
    (POOL, "0", "", []),
    (POOL, "a" * 253, "", []),
    (POOL, "", "", ["metadata.name: '': is empty; name the object"]),
    (POOL, "Pool", "", [f"metadata.name: 'Pool': can't be a name; {SUBDOMAIN}"]),
    (POOL, "my_pool", "", [f"metadata.name: 'my_pool': can't be a name; {SUBDOMAIN}"]),
    (POOL, "a..b", "", [f"metadata.name: 'a..b': can't be a name; {SUBDOMAIN}"]),
    (POOL, "-a", "", [f"metadata.name: '-a': can't be a name; {SUBDOMAIN}"]),
    (POOL, "a\n", "", [f"metadata.name: 'a\\n': can't be a name; {SUBDOMAIN}"]),
    (POOL, "a" * 254, "", [f"metadata.name: '{'a' * 79}...: has 254 characters; 253 at most"]),
    (POOL, "a", "one", ["metadata.namespace: 'one': a IPPool lives in none; leave it out"]),
    (NAMESPACE, "kube-system", "", []),
    (NAMESPACE, "a.b", "", [f"metadata.name: 'a.b': can't be a name; {LABEL}"]),
    (NAMESPACE, "a" * 64, "", [f"metadata.name: '{'a' * 64}': has 64 characters; 63 at most"]),
    (POD, "web-0.a", "one", []),
    (POD, "web", "", ["metadata.namespace: '': is empty, but a Pod lives in one; name its namespace"]),
    (POD, "web", "One", [f"metadata.namespace: 'One': can't be a name; {LABEL}"]),
    (ipam_handles.KIND, "k8s-pod-network.0_9", "", []),
]


@pytest.mark.parametrize(("kind", "name", "namespace", "problems"), NAMES)
def test_names(kind: object, name: str, namespace: str, problems: list[str]) -> None:
    found = name_problems(kind, ObjectMeta(name=name, namespace=namespace))  # type: ignore[arg-type]
    assert [str(problem) for problem in found] == problems


SCHEMA = "see the schema of projectcalico.org/v3 IPPool"
# text | what is said
UNREADABLE = [
    (b"{", f"IPPool is refused: the object: '': Input data was truncated; {SCHEMA}"),
    (b"[1]", f"IPPool is refused: the object: [1]: Expected `object`, got `array`; {SCHEMA}"),
    (b"{}", f"IPPool is refused: metadata: '': is missing; {SCHEMA}"),
    (b'{"metadata": {"name": "a"}}', f"IPPool/a is refused: spec: '': is missing; {SCHEMA}"),
    (
        b'{"metadata": {"name": 7}, "spec": {"cidr": "10.0.0.0/8"}}',
        f"IPPool is refused: metadata.name: 7: Expected `str`, got `int`; {SCHEMA}",
    ),
    (
        b'{"metadata": {"name": "a", "labels": {"x": 1}}, "spec": {"cidr": "10.0.0.0/8"}}',
        f"IPPool/a is refused: metadata.labels[...]: {{'x': 1}}: Expected `str`, got `int`; {SCHEMA}",
    ),
    (
        b'{"kind": "IPPools", "metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/8"}}',
        f"IPPool/a is refused: kind: 'IPPools': Invalid value 'IPPools'; {SCHEMA}",
    ),
    (
        b'{"apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/8"}}',
        f"IPPool/a is refused: apiVersion: 'v1': Invalid enum value 'v1'; {SCHEMA}",
    ),
]


@pytest.mark.parametrize(("text", "said"), UNREADABLE)
def test_an_object_that_cannot_be_decoded_is_told_by_name_field_and_value(text: bytes, said: str) -> None:
    with pytest.raises(Refused) as raised:
        decode(POOL, text)
    assert str(raised.value) == said


def test_a_namespaced_object_is_told_by_both_names() -> None:
    text = b'{"metadata": {"name": "web", "namespace": "one"}, "status": {"podIPs": [{"ip": 1}]}}'
    with pytest.raises(Refused, match=r"^Pod/one/web is refused: status\.podIPs\[0\]\.ip: 1: "):
        decode(POD, text)


def test_a_long_value_is_cut() -> None:
    assert str(Problem("spec.x", "y" * 500, "is long", "cut it")) == f"spec.x: '{'y' * 79}...: is long; cut it"


def test_accept_tells_all_that_is_wrong_at_once_and_gives_back_what_is_right() -> None:
    right = made(POOL, {"cidr": "10.0.0.0/16"})
    wrong = made(POOL, {"cidr": "10.1.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"})
    assert accept(POOL, right) is right
    with pytest.raises(Refused, match=r"^IPPool/a is refused: spec\.vxlanMode: .* \| spec\.cidr: .*can't change"):
        accept(POOL, wrong, right)


def test_keys_are_told_with_their_namespace() -> None:
    assert str(Key("Pod", "web", "one")) == "Pod/one/web"
    assert str(Key("IPPool", "a")) == "IPPool/a"


def test_a_block_that_contradicts_itself_is_refused() -> None:
    spec = {"cidr": "10.0.0.0/31", "allocations": [0, 3, None], "unallocated": [], "attributes": [{"handle_id": "h"}]}
    with pytest.raises(Refused) as raised:
        accept(ipam_blocks.KIND, made(ipam_blocks.KIND, spec, "10-0-0-0-31"))
    assert [problem.field for problem in raised.value.problems] == ["spec.allocations", "spec.allocations[1]"]
