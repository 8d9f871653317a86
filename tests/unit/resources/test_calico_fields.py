"""Our definitions against Calico's: names, scopes, and every field with its type, enumeration and default."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from calipy.resources.kinds import ALL
from calipy.resources.schema import crd

HERE = Path(__file__).parent
FACTS = HERE / "calico_fields.txt"
CALICO = [kind for kind in ALL if kind.definition is not None and kind.group == "projectcalico.org"]

DIFFERENCES = {
    "BGPConfiguration spec.nodeMeshPassword.secretKeyRef.name": "a Secret without a name is refused, not made up",
    "BGPPeer spec.password.secretKeyRef.name": "a Secret without a name is refused, not made up",
    "BlockAffinity spec.type": "Calico writes these and no others",
    "FelixConfiguration spec.nftablesMode": "filled in, it would be named as without effect in every object",
    "FelixConfiguration spec.programClusterRoutes": "newer Calico has two values more",
    "IPPool spec.allowedUses": "filled in, so that columns show what holds",
    "IPPool spec.disabled": "filled in, so that columns show what holds",
    "IPPool spec.ipipMode": "filled in, so that columns show what holds",
    "IPPool spec.natOutgoing": "filled in, so that columns show what holds",
    "IPPool spec.nodeSelector": "filled in, so that columns show what holds",
    "IPPool spec.vxlanMode": "filled in, so that columns show what holds",
}
"""Kind and path -> why ours says something else of the field."""
ADDITIONS = {
    "FelixConfiguration spec.nftablesFlowTableDataIfacePattern": "newer Calico has it",
    "FelixConfiguration spec.nftablesFlowTableOffload": "newer Calico has it",
    "IPAMBlock spec.attributes[].alternateOwnerAttrs": "newer Calico has it",
    "IPAMBlock spec.attributes[].alternateOwnerAttrs[]": "newer Calico has it",
    "IPAMBlock spec.attributes[].releasedAt": "newer Calico has it",
}
"""Kind and path -> why it is there although Calico hasn't got it."""


def facts() -> dict[str, str]:
    """Kind and path (or plural) -> what Calico's definition says."""
    return told(line for line in FACTS.read_text().splitlines() if not line.startswith("#"))


def ours() -> dict[str, str]:
    """The same of our definitions, told by the same script."""
    loader = SourceFileLoader("calico_fields", str(HERE.parents[2] / "scripts/calico-fields"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    script = module_from_spec(spec)
    loader.exec_module(script)
    return told(line for kind in CALICO for line in script.lines(crd(kind)))


def told(lines: Iterable[str]) -> dict[str, str]:
    parts = (line.split(" ", 2) for line in lines)
    return {f"{kind} {path}": rest for kind, path, rest in parts}


@pytest.fixture(scope="module")
def both() -> tuple[dict[str, str], dict[str, str]]:
    return facts(), ours()


def test_calicos_fields_are_ours(both: tuple[dict[str, str], dict[str, str]]) -> None:
    theirs, mine = both
    kinds = {kind.kind for kind in CALICO}
    differing = {
        field: (fact, mine.get(field))
        for field, fact in theirs.items()
        if field.split()[0] in kinds and mine.get(field) != fact and field not in DIFFERENCES
    }
    assert differing == {}


def test_ours_are_calicos(both: tuple[dict[str, str], dict[str, str]]) -> None:
    theirs, mine = both
    kinds = {field.split()[0] for field in theirs}
    assert {field for field in mine.keys() - theirs.keys() if field.split()[0] in kinds} == ADDITIONS.keys()


def test_differences_are_there(both: tuple[dict[str, str], dict[str, str]]) -> None:
    """What is no difference any more has no reason."""
    theirs, mine = both
    assert [field for field in DIFFERENCES if theirs[field] == mine[field]] == []
