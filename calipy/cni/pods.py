"""A container's Pod object, as CNI reads and marks it in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, structs

from calipy.cni.protocol import PodReference
from calipy.cni.results import prefix
from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.resources import namespaces, pods
from calipy.resources.metadata import ObjectMeta
from calipy.resources.namespaces import Namespace
from calipy.resources.pods import Pod, PodSpec

ATTEMPTS = 6
"""Calico's: so often a write is tried again when the Pod has changed meanwhile."""
WRITTEN_BY = "calipy.io/written-by"
"""Annotation on a Pod that CNI itself wrote, because the embedded store had none: it goes with its container."""


class Found(Struct, frozen=True, gc=False, kw_only=True):
    """A Pod and what its Namespace says."""

    pod: Pod
    namespace_annotations: Mapping[str, str] = {}
    namespace_labels: Mapping[str, str] = {}


class StoredPods:
    """Pods in a store."""

    def __init__(self, store: Store, node: str, *, embedded: bool) -> None:
        """`embedded`: nobody else makes Pods, so one is made for a container that comes without."""
        self._store = store
        self._node = node
        self._embedded = embedded

    async def find(self, reference: PodReference, annotations: Mapping[str, str]) -> Found | None:
        """The Pod and its Namespace; None where there is no such Pod. On the embedded store a minimal one is written,
        with `annotations`. Raises StoreError."""
        stored = await self._pod(reference)
        if stored is None and self._embedded:
            stored = await self._create(reference, annotations)
        if stored is None:
            return None
        namespace = await self._namespace(reference.namespace)
        return Found(
            pod=stored.value,
            namespace_annotations=namespace.metadata.annotations if namespace else {},
            namespace_labels=namespace.metadata.labels if namespace else {},
        )

    async def mark(self, reference: PodReference, container_id: str, addresses: Sequence[str]) -> bool:
        """Writes the pod's addresses and container ID into its annotations; False where the Pod is gone."""
        prefixes = [prefix(address) for address in addresses]
        notes = {
            pods.POD_IP: prefixes[0] if prefixes else "",
            pods.POD_IPS: ",".join(prefixes),
            pods.CONTAINER_ID: container_id,
        }

        def marked(pod: Pod) -> Pod:
            spec = pod.spec if pod.spec.node_name else structs.replace(pod.spec, node_name=self._node)
            return structs.replace(_annotated(pod, notes), spec=spec if self._embedded else pod.spec)

        return await self._rewrite(reference, marked)

    async def blank(self, reference: PodReference, container_id: str) -> None:
        """Takes the addresses from the annotations if they are still `container_id`'s; a Pod that CNI wrote goes
        altogether. Fine where the Pod is gone. Raises StoreError."""
        for _ in range(ATTEMPTS):
            stored = await self._pod(reference)
            notes = stored.value.metadata.annotations if stored else {}
            own = WRITTEN_BY in notes and notes.get(pods.CONTAINER_ID, container_id) == container_id
            if stored is None or not (own or notes.get(pods.CONTAINER_ID) == container_id):
                return
            try:
                await self._take_marks(stored, whole=own)
            except Conflict:
                continue
            except NotFound:
                return
            return
        raise Conflict(f"Pod/{reference} has changed at each of {ATTEMPTS} attempts to mark it; try again")

    async def _take_marks(self, stored: Stored[Pod], *, whole: bool) -> None:
        if whole:
            await self._store.delete(pods.KIND, stored)
        else:
            # Calico leaves the container ID: it tells a late DEL of an older sandbox from one of this.
            blank = _annotated(stored.value, {pods.POD_IP: "", pods.POD_IPS: ""})
            await self._store.update(pods.KIND, stored, blank)

    async def _rewrite(self, reference: PodReference, change: Callable[[Pod], Pod]) -> bool:
        for _ in range(ATTEMPTS):
            stored = await self._pod(reference)
            if stored is None:
                return False
            try:
                await self._store.update(pods.KIND, stored, change(stored.value))
            except Conflict:
                continue
            except NotFound:
                return False
            return True
        raise Conflict(f"Pod/{reference} has changed at each of {ATTEMPTS} attempts to mark it; try again")

    async def _pod(self, reference: PodReference) -> Stored[Pod] | None:
        try:
            return await self._store.get(pods.KIND, reference.name, reference.namespace)
        except NotFound:
            return None

    async def _namespace(self, name: str) -> Namespace | None:
        try:
            return (await self._store.get(namespaces.KIND, name)).value
        except NotFound:
            return None

    async def _create(self, reference: PodReference, annotations: Mapping[str, str]) -> Stored[Pod] | None:
        meta = ObjectMeta(
            name=reference.name, namespace=reference.namespace, annotations={**annotations, WRITTEN_BY: "cni"}
        )
        try:
            return await self._store.create(pods.KIND, Pod(metadata=meta, spec=PodSpec(node_name=self._node)))
        except Exists:
            return await self._pod(reference)


def _annotated(pod: Pod, notes: Mapping[str, str]) -> Pod:
    metadata = structs.replace(pod.metadata, annotations={**pod.metadata.annotations, **notes})
    return structs.replace(pod, metadata=metadata)
