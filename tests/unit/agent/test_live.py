"""The agent's own settings follow FelixConfiguration; what it can't follow ends it for a warm restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from calipy.agent.live import LiveSettings, WarmRestart
from calipy.datastore.sqlite import SQLiteStore
from calipy.felix.calc.settings import FelixSettings
from calipy.resources import felix_configurations, nodes
from calipy.resources.felix_configurations import FelixConfiguration
from tests.unit.resources.objects import made


def configuration(name: str = "default", **spec: Any) -> FelixConfiguration:
    found: FelixConfiguration = made(felix_configurations.KIND, spec, name)
    return found


def test_who_listens_hears_of_changes_alone() -> None:
    live, heard = LiveSettings("n1", {"environment": {"healthPort": 1}}), []
    live.changed = heard.append
    assert (live.current.health_port, live.current.health_enabled) == (1, False)
    for _ in range(2):
        live.take(FelixSettings(health_enabled=True))
    assert heard == [live.current] == [FelixSettings(health_enabled=True)]


async def test_what_cannot_be_followed_ends_the_agent_and_the_next_one_starts_with_it(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "store")
    live = LiveSettings("n1", {})
    assert (await live.read(store)).interface_prefixes == ("cali",)
    changed = configuration(interfacePrefix="eni,cali")
    with pytest.raises(WarmRestart) as raised:
        live.take(
            FelixSettings(interface_prefixes=("eni", "cali"), sources={"interfacePrefix": "FelixConfiguration/default"})
        )
    assert str(raised.value) == (
        "interfacePrefix was cali, and FelixConfiguration/default says eni,cali: a restart"
    )  # fmt: skip
    assert live.current == FelixSettings()
    await store.create(felix_configurations.KIND, changed)
    again = LiveSettings("n1", {})
    assert (await again.read(store)).interface_prefixes == ("eni", "cali")
    again.take(again.current)
    await store.close()


async def test_at_start_the_store_says_what_holds_and_a_wrong_object_is_passed_over(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "store")
    await store.create(nodes.KIND, made(nodes.KIND, {}, "n1", labels={"rack": "a"}))
    await store.create(
        felix_configurations.KIND, configuration("rack", nodeSelector="rack == 'a'", interfacePrefix="eni")
    )
    live = LiveSettings("n1", {})
    assert (await live.read(store)).interface_prefixes == ("eni",)
    stored = await store.get(felix_configurations.KIND, "rack")
    await store.delete(felix_configurations.KIND, stored)
    assert (await LiveSettings("n1", {}).read(store)).interface_prefixes == ("cali",)
    await store.close()
