"""What can't be decoded is logged once a revision."""

from __future__ import annotations

import logging

import pytest

from calipy.datastore.misfits import Misfits
from calipy.resources.metadata import Key
from calipy.resources.namespaces import KIND

KEY = Key("Namespace", "a")
GOOD = '{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"}}'
BAD = '{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": 7}}'


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, "calipy.datastore")
    return caplog


def test_a_good_object_is_decoded(log: pytest.LogCaptureFixture) -> None:
    stored = Misfits().stored(KIND, KEY, "u", 3, GOOD)
    assert stored is not None
    assert (stored.key, stored.uid, stored.revision, stored.value.metadata.name) == (KEY, "u", 3, "a")
    assert not log.records


def test_a_bad_object_is_said_once_a_revision_with_key_and_reason(log: pytest.LogCaptureFixture) -> None:
    misfits = Misfits()
    for revision in (3, 3, 4, 4):
        assert misfits.stored(KIND, KEY, "u", revision, BAD) is None
    assert len(log.records) == 2
    assert "Namespace/a at revision 3" in log.messages[0]
    assert "metadata.name" in log.messages[0]


def test_a_bad_object_that_went_away_may_be_said_again(log: pytest.LogCaptureFixture) -> None:
    misfits = Misfits()
    misfits.stored(KIND, KEY, "u", 3, BAD)
    misfits.forget(KEY)
    misfits.stored(KIND, KEY, "u", 3, BAD)
    assert len(log.records) == 2
