"""The merged settings as far as the agent itself follows them: health, metrics, log level; and what it can't follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from calipy.datastore.stores import NotFound, Store
from calipy.felix.calc.configuration import merge
from calipy.felix.calc.settings import FelixSettings
from calipy.resources import felix_configurations, nodes
from calipy.resources.felix_configurations import FelixConfiguration, Value
from calipy.resources.metadata import Refused, accept

FIXED: Mapping[str, str] = {"interface_prefixes": "interfacePrefix"}
"""What holds for the life of a process: attribute of FelixSettings -> FelixConfiguration's name."""


class WarmRestart(Exception):
    """A setting has changed that a running agent can't follow: it ends with status 0 and is started again, and what is
    right in the kernel stays."""


class LiveSettings:
    """The settings in force. `changed` is called after each change."""

    def __init__(self, node: str, process: Mapping[str, Mapping[str, Value]]) -> None:
        self._node = node
        self._process = process
        self._fixed: FelixSettings | None = None
        self.current = merge(node, (), {}, process)
        self.changed: Callable[[FelixSettings], None] = lambda settings: None

    async def read(self, store: Store) -> FelixSettings:
        """What the store says before anything is built on it. Raises StoreError. An object that isn't right is passed
        over here: who follows the store tells of it."""
        labels: Mapping[str, str] = {}
        try:
            labels = (await store.get(nodes.KIND, self._node)).value.metadata.labels
        except (NotFound, Refused):
            pass
        found = [item.value async for page in store.list(felix_configurations.KIND) for item in page.items]
        settings = merge(self._node, filter(_is_right, found), labels, self._process)
        self._fixed = settings
        self.take(settings)
        return settings

    def take(self, settings: FelixSettings) -> None:
        """The settings as they are merged now. Raises WarmRestart where one has changed that must not."""
        for attribute, name in FIXED.items():
            before, now = (getattr(found, attribute) for found in (self._fixed or settings, settings))
            if before != now:
                source = settings.sources.get(name, "default")
                raise WarmRestart(f"{name} was {_spelled(before)}, and {source} says {_spelled(now)}: a restart")
        if settings != self.current:
            self.current = settings
            self.changed(settings)


def _is_right(configuration: FelixConfiguration) -> bool:
    try:
        accept(felix_configurations.KIND, configuration)
    except Refused:
        return False
    return True


def _spelled(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
