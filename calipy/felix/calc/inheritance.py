"""The labels that profiles hand down: those of Namespaces, of ServiceAccounts, and labelsToApply of Profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from calipy.conversion import workloads
from calipy.felix.calc.index import store
from calipy.resources.metadata import Key, Resource
from calipy.resources.namespaces import Namespace
from calipy.resources.profiles import Profile
from calipy.resources.service_accounts import ServiceAccount


class Inheritance:
    """The objects behind profiles."""

    def __init__(self) -> None:
        self._namespaces: dict[str, Namespace] = {}
        """By the name of their profile, as the next."""
        self._accounts: dict[str, ServiceAccount] = {}
        self._profiles: dict[str, Profile] = {}

    @staticmethod
    def name(key: Key) -> str:
        """The profile that an object has a say in."""
        match key.kind:
            case "Namespace":
                return workloads.namespace_profile(key.name)
            case "ServiceAccount":
                return workloads.account_profile(key.namespace, key.name)
        return key.name

    def put(self, key: Key, value: Resource | None) -> None:
        """Takes an object in; None: it is gone."""
        name = self.name(key)
        match key.kind:
            case "Namespace":
                store(self._namespaces, name, cast("Namespace | None", value))
            case "ServiceAccount":
                store(self._accounts, name, cast("ServiceAccount | None", value))
            case _:
                store(self._profiles, name, cast("Profile | None", value))

    def profile(self, name: str) -> Profile | None:
        """The Profile object of a name."""
        return self._profiles.get(name)

    def labels(self, name: str) -> Mapping[str, str]:
        """What a profile hands down. A Profile's own labels come after those of its Namespace or ServiceAccount."""
        own = self._profiles.get(name)
        applied = own.spec.labels_to_apply if own is not None else {}
        if name.startswith(workloads.NAMESPACE_PROFILES):
            namespace = name.removeprefix(workloads.NAMESPACE_PROFILES)
            return {**applied, **workloads.namespace_labels(namespace, self._namespaces.get(name))}
        if name.startswith(workloads.ACCOUNT_PROFILES):
            account = name.removeprefix(workloads.ACCOUNT_PROFILES).partition(".")[2]
            return {**applied, **workloads.account_labels(account, self._accounts.get(name))}
        return applied
