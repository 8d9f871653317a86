"""Birth, change and death of an object's metadata."""

from __future__ import annotations

from typing import Any

import pytest

from calipy.datastore.lifecycles import at_revision, born, changed, dying, gone, held
from calipy.resources.metadata import Refused

NOW = "2024-01-01T00:00:00Z"


def birth(**meta: Any) -> dict[str, Any]:
    return born({"metadata": {"name": "a", **meta}, "spec": {"x": 1}, "status": {"y": 1}}, uid="u", at=NOW)


def test_birth_gives_uid_time_and_first_generation_and_keeps_unknown_metadata() -> None:
    made = birth(uid="mine", generation=7, deletionTimestamp=NOW, resourceVersion="5", future=1)["metadata"]
    assert made == {"name": "a", "future": 1, "uid": "u", "creationTimestamp": NOW, "generation": 1}


@pytest.mark.parametrize(
    ("patch", "generation"),
    [
        ({"spec": {"x": 2}}, 2),
        ({"data": {"x": 2}}, 2),
        ({"status": {"y": 2}}, 1),
        ({"metadata": {"labels": {"l": "v"}}}, 1),
        ({"metadata": {"generation": 9}}, 1),
        ({"spec": {"x": 1}}, 1),
    ],
)
def test_generation_grows_with_all_but_metadata_and_status(patch: dict[str, Any], generation: int) -> None:
    assert changed("a", birth(), patch)["metadata"]["generation"] == generation  # type: ignore[index]


def test_what_belongs_to_the_server_stays_as_it_is() -> None:
    patch: dict[str, Any] = {"metadata": {"uid": None, "creationTimestamp": None, "deletionTimestamp": NOW}}
    assert changed("a", birth(), patch) == birth()


@pytest.mark.parametrize("field", ["name", "namespace"])
def test_a_new_name_is_refused(field: str) -> None:
    with pytest.raises(Refused, match=rf"thing is refused: metadata\.{field}: 'b'"):
        changed("thing", birth(), {"metadata": {field: "b"}})


def test_death_with_finalizers_is_a_mark_made_once() -> None:
    marked = dying(birth(finalizers=["f"]), at=NOW)
    assert marked["metadata"]["deletionTimestamp"] == NOW  # type: ignore[index]
    assert marked["metadata"]["generation"] == 2  # type: ignore[index]
    assert dying(marked, at="later") is marked
    assert held(marked)
    assert not gone(marked)


def test_the_last_finalizer_lets_a_marked_object_go() -> None:
    marked = dying(birth(finalizers=["f", "g"]), at=NOW)
    assert not gone(changed("a", marked, {"metadata": {"finalizers": ["g"]}}))
    assert gone(changed("a", marked, {"metadata": {"finalizers": None}}))
    assert not gone(changed("a", birth(finalizers=["f"]), {"metadata": {"finalizers": None}}))


def test_a_marked_object_takes_no_new_finalizer() -> None:
    marked = dying(birth(finalizers=["f"]), at=NOW)
    with pytest.raises(Refused, match="new"):
        changed("a", marked, {"metadata": {"finalizers": ["f", "new"]}})
    assert held(changed("a", birth(), {"metadata": {"finalizers": ["new"]}}))


def test_a_revision_is_text() -> None:
    assert at_revision(birth(), 7)["metadata"]["resourceVersion"] == "7"  # type: ignore[index]
