"""A real API server and crds/: it takes the definitions, says what fields are for, and judges objects as the kinds' own
problems() do (the same table: cases/crds.yaml)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from calipy.resources.kinds import ALL
from calipy.resources.metadata import Kind
from tests.cases.crds import Case, cases

CRDS = Path(__file__).parents[2] / "crds"
DEFINED = [kind for kind in ALL if kind.definition is not None]


def of(kind: Kind[Any], *about: str) -> list[Case]:
    return [case for case in cases() if case.kind is kind and case.about in about]


def stream(documents: Iterable[dict[str, Any]]) -> str:
    """For kubectl's -f -."""
    return "\n".join(json.dumps(document) for document in documents)


def refusals(stderr: str) -> list[str]:
    """What kubectl says of each document that was refused, in their order."""
    return re.split(r"^(?=The \w+ \"|Error from server)", stderr, flags=re.MULTILINE)[1:]


def named(refusal: str, field: str) -> bool:
    """True if the refusal is of this field: `spec.cidr: Invalid value: ...`; of a list with something twice it names
    the element."""
    reasons = "Invalid|Forbidden|Required|Duplicate|Too|Unsupported"
    return re.search(rf"(^|[\s\[*]){re.escape(field)}(\[\d+\])?: ({reasons})", refusal) is not None


def test_applied_as_a_user_does(api_server: Any) -> None:
    done = api_server.kubectl("apply", "--dry-run=server", "-k", str(CRDS))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, len(DEFINED)), done.stderr


def test_definitions_are_structural_and_in_force(api_server: Any) -> None:
    found = json.loads(api_server.kubectl("get", "crd", "-o", "json").stdout)["items"]
    conditions = {
        item["metadata"]["name"]: {each["type"]: each["status"] for each in item["status"]["conditions"]}
        for item in found
    }
    for kind in DEFINED:
        told = conditions[f"{kind.resource}.{kind.group}"]
        assert (told["Established"], told["NamesAccepted"], told.get("NonStructuralSchema")) == ("True", "True", None)


def test_explain_reads_like_a_manual(api_server: Any) -> None:
    text = " ".join(api_server.kubectl("explain", "ippool.spec.vxlanMode").stdout.split())
    assert "FIELD: vxlanMode <string>" in text
    assert "ENUM: Always CrossSubnet Never" in text
    assert "Not together with ipipMode. Default: Never." in text


@pytest.mark.parametrize("kind", DEFINED, ids=lambda kind: kind.name)
def test_right_objects_are_taken(api_server: Any, kind: Kind[Any]) -> None:
    right = of(kind, "right")
    done = api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=stream(case.new for case in right))
    assert (done.stderr, done.stdout.count("created")) == ("", len(right)) or not right


@pytest.mark.parametrize("kind", DEFINED, ids=lambda kind: kind.name)
def test_wrong_objects_are_refused(api_server: Any, kind: Kind[Any]) -> None:
    wrong = of(kind, "wrong")
    done = api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=stream(case.new for case in wrong))
    said = refusals(done.stderr)
    assert (done.stdout, len(said)) == ("", len(wrong))
    amiss = {
        str(case): refusal
        for case, refusal in zip(wrong, said, strict=True)
        if not any(named(refusal, field) for field in case.fields)
    }
    assert amiss == {}


@pytest.mark.parametrize("case", [case for case in cases() if case.old is not None], ids=str)
def test_changes(api_server: Any, case: Case) -> None:
    assert case.old is not None
    done = api_server.kubectl("create", "-f", "-", stdin=stream([case.old]))
    assert done.returncode == 0, done.stderr
    try:
        done = api_server.kubectl("replace", "--dry-run=server", "-f", "-", stdin=stream([case.new]))
    finally:
        api_server.kubectl("delete", case.kind.resource + "." + case.kind.group, case.old["metadata"]["name"])
    if case.fields:
        assert any(named(done.stderr, field) for field in case.fields), done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_defaults_are_filled_in(api_server: Any) -> None:
    """As Calico's API does: so that columns show what holds."""
    pool = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "a"},
        "spec": {"cidr": "10.0.0.0/8"},
    }
    done = api_server.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=stream([pool]))
    assert json.loads(done.stdout)["spec"] == {
        "cidr": "10.0.0.0/8",
        "allowedUses": ["Workload", "Tunnel"],
        "assignmentMode": "Automatic",
        "ipipMode": "Never",
        "vxlanMode": "Never",
        "natOutgoing": False,
        "disabled": False,
        "nodeSelector": "all()",
    }


def test_lists_by_tier(api_server: Any) -> None:
    """selectableFields: kubectl --field-selector."""
    done = api_server.kubectl("get", "globalnetworkpolicies.projectcalico.org", "--field-selector=spec.tier=default")
    assert done.returncode == 0, done.stderr
