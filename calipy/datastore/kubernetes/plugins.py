"""Credentials that programs and cloud providers hand out: by the official client, imported when they are met."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calipy.datastore.kubernetes.tls import Pem
from calipy.datastore.kubernetes.tokens import Authorization
from calipy.datastore.stores import Unavailable


class Fetched:
    """A token that the official client keeps fresh."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._last = ""

    def header(self) -> str:
        """The client looks itself whether it has ended, and fetches another one."""
        self._last = self._configuration.get_api_key_with_prefix("authorization") or ""
        return self._last

    def renew(self) -> bool:
        """Whether the client has another one by now."""
        before = self._last
        return self.header() != before


def fetched(source: str, paths: Sequence[Path], context: str) -> tuple[Authorization, Pem, Pem]:
    """Authorization, client certificate and key. Runs the program of the kubeconfig, which blocks: for commands of
    users, not for agents. Raises Unavailable."""
    try:
        from kubernetes import client, config
    except ImportError:
        needs = "its user's credentials come from a program or an auth provider, which the package `kubernetes` runs"
        raise Unavailable(f"{source}: {needs}; install it: pip install 'calipy[kubernetes]'") from None
    configuration = client.Configuration()
    try:
        config.load_kube_config(os.pathsep.join(map(str, paths)), context, configuration)
    except (config.ConfigException, OSError, ValueError) as error:
        raise Unavailable(f"{source}: its user's credentials can't be fetched: {type(error).__name__}") from None
    authorization, certificate = Fetched(configuration), Pem(configuration.cert_file or "")
    if not (certificate or authorization.header()):  # the client only logs that a program has failed
        raise Unavailable(f"{source}: its user's program gave no credentials; run it by hand, and see what it says")
    return authorization, certificate, Pem(configuration.key_file or "")
