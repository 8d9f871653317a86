"""Objects of every kind as Calico's documentation shows them: they apply as they stand, in `cases/calico_examples`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from calipy.resources import kinds

Ctl = Callable[..., Result]
EXAMPLES = sorted((Path(__file__).parents[2] / "cases/calico_examples").glob("*.yaml"))
OWN = {"IPAMBlock", "IPAMHandle"}
"""Kinds of Calico that users don't write."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def words(result: Result) -> set[str]:
    """What became of the objects."""
    assert (result.exit_code, result.stderr) == (0, "")
    return {line.split()[-1] for line in result.stdout.splitlines()}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_they_apply_as_they_stand_and_a_second_time_change_nothing(ctl: Ctl, path: Path) -> None:
    assert words(ctl("apply", "-f", str(path))) == {"created"}
    assert words(ctl("apply", "-f", str(path))) == {"unchanged"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_is_printed_holds_all_that_was_given_and_can_be_written_again(ctl: Ctl, path: Path) -> None:
    ctl("apply", "-f", str(path))
    for given in documents(path):
        meta = given["metadata"]
        for output in ("json", "yaml"):
            printed = ctl("get", given["kind"], meta["name"], "-n", meta.get("namespace", "default"), "-o", output)
            assert words(ctl("replace", "-f", "-", stdin=printed.stdout)) == {"unchanged"}
            if given["kind"] != "Node":  # what Calico's Node says stands in annotations
                found = yaml.safe_load(printed.stdout)
                assert given.get("spec", {}).keys() - found.get("spec", {}).keys() == set()


def test_each_kind_of_calico_has_one() -> None:
    shown = {document["kind"] for path in EXAMPLES for document in documents(path)}
    assert shown >= {kind.kind for kind in kinds.ALL if kind.group == "projectcalico.org"} - OWN


SHOWN = [
    ("get bgpfilters", ["NAME NUMEXPORT NUMIMPORT", "rack-routers 4 4"]),
    ("get heps", ["NAME NODE", "n1-eth0 n1", "n2-all n2", "n3-by-address n3"]),
    (
        "get hep n1-eth0 n2-all -o wide",
        ["NAME NODE INTERFACE IPS PROFILES", "n1-eth0 n1 eth0 192.0.2.11,2001:db8::11 hosts", "n2-all n2 *"],
    ),
    ("get nodestatus -o wide", ["NAME NODE CLASSES", "n1 n1 Agent,BGP,Routes"]),
    ("get kcc", ["NAME", "default"]),
    (
        "get snp -n shop -o wide",
        ["NAME TIER ORDER SELECTOR STAGEDACTION", "cache default 10 role == 'cache' Set", "retired default - Delete"],
    ),
    ("get sgnp", ["NAME TIER", "bare-hosts default", "no-pings default"]),
    (
        "get sknp -n shop -o wide",
        ["NAME PODSELECTOR STAGEDACTION", "database role=db Set", "retired <none> Delete"],
    ),
]


@pytest.mark.parametrize(("line", "shown"), SHOWN, ids=[line for line, _ in SHOWN])
def test_they_are_shown_in_calicos_columns(ctl: Ctl, line: str, shown: list[str]) -> None:
    given = [word for path in EXAMPLES for word in ("-f", str(path))]
    assert words(ctl("apply", *given)) == {"created"}
    result = ctl(*line.split(" "))
    assert (result.exit_code, result.stderr) == (0, "")
    assert [" ".join(row.split()) for row in result.stdout.splitlines()] == shown
