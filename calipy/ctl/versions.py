"""`version`: of this program, and what the cluster says of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import TextIO

from calipy.console.formats import Output
from calipy.console.tables import Column, show
from calipy.ctl.stores import opened
from calipy.datastore.stores import NotFound
from calipy.resources import cluster_informations


def client_version() -> str:
    """This program's."""
    return version("calipy")


async def show_versions(datastore: str, output: Output, stream: TextIO) -> None:
    """Two columns of names and values; of the cluster only if a datastore is given."""
    facts = {"Client Version": client_version()}
    if datastore:
        facts |= await _cluster_facts(datastore)
    columns = [Column[tuple[str, str]]("WHAT", lambda row: row[0]), Column[tuple[str, str]]("IS", lambda row: row[1])]
    show(list(facts.items()), columns, output, document=dict, stream=stream)


async def _cluster_facts(datastore: str) -> dict[str, str]:
    async with opened(datastore) as store:
        try:
            spec = (await store.get(cluster_informations.KIND, "default")).value.spec
        except NotFound:
            return {"Datastore": datastore, "Cluster": "has no ClusterInformation yet; its first agent makes it"}
    return {
        "Datastore": datastore,
        "Cluster Calico Version": spec.calico_version,
        "Cluster Type": spec.cluster_type,
        "Cluster GUID": spec.cluster_guid,
    }
