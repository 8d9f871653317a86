"""A container's Pod object, as CNI reads and marks it in the store."""

from __future__ import annotations

from collections.abc import Mapping

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


class Mark(Struct, frozen=True, gc=False):
    """What CNI says of a pod: its container, and its addresses without prefix length."""

    container_id: str
    addresses: tuple[str, ...]

    def annotations(self) -> dict[str, str]:
        """Calico's."""
        prefixes = [prefix(address) for address in self.addresses]
        return {
            pods.POD_IP: prefixes[0] if prefixes else "",
            pods.POD_IPS: ",".join(prefixes),
            pods.CONTAINER_ID: self.container_id,
        }


class StoredPods:
    """Pods in a store."""

    def __init__(self, store: Store, node: str, *, embedded: bool) -> None:
        """`embedded`: nobody else makes Pods, so one is made for a container that comes without."""
        self._store = store
        self._node = node
        self._embedded = embedded

    async def find(self, reference: PodReference) -> Found | None:
        """The Pod and its Namespace; None where there is no such Pod. On the embedded store an empty one stands in for
        it. Raises StoreError."""
        stored = await self._pod(reference)
        if stored is None and not self._embedded:
            return None
        namespace = await self._namespace(reference.namespace)
        return Found(
            pod=stored.value if stored else self._minimal(reference, {}),
            namespace_annotations=namespace.metadata.annotations if namespace else {},
            namespace_labels=namespace.metadata.labels if namespace else {},
        )

    async def mark(self, reference: PodReference, mark: Mark, annotations: Mapping[str, str]) -> bool:
        """Writes the pod's addresses and container ID into its annotations; False where the Pod is gone. On the
        embedded store a minimal one is made then, with `annotations` besides. Raises StoreError."""
        for _ in range(ATTEMPTS):
            stored = await self._pod(reference)
            if stored is None and not self._embedded:
                return False
            try:
                if stored is None:
                    pod = self._minimal(reference, {**annotations, WRITTEN_BY: "cni"})
                    await self._store.create(pods.KIND, _annotated(pod, mark.annotations()))
                else:
                    await self._store.update(pods.KIND, stored, self._marked(stored.value, mark))
            except (Conflict, Exists, NotFound):
                continue
            return True
        raise _restless(reference)

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
        raise _restless(reference)

    async def _take_marks(self, stored: Stored[Pod], *, whole: bool) -> None:
        if whole:
            await self._store.delete(pods.KIND, stored)
        else:
            # Calico leaves the container ID: it tells a late DEL of an older sandbox from one of this.
            blank = _annotated(stored.value, {pods.POD_IP: "", pods.POD_IPS: ""})
            await self._store.update(pods.KIND, stored, blank)

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

    def _minimal(self, reference: PodReference, annotations: Mapping[str, str]) -> Pod:
        metadata = ObjectMeta(name=reference.name, namespace=reference.namespace, annotations=dict(annotations))
        return Pod(metadata=metadata, spec=PodSpec(node_name=self._node))

    def _marked(self, pod: Pod, mark: Mark) -> Pod:
        """In Kubernetes the scheduler has said which node; on the embedded store it may be for us to say."""
        if self._embedded and not pod.spec.node_name:
            pod = structs.replace(pod, spec=structs.replace(pod.spec, node_name=self._node))
        return _annotated(pod, mark.annotations())


def _restless(reference: PodReference) -> Conflict:
    return Conflict(f"Pod/{reference} has changed at each of {ATTEMPTS} attempts to annotate it: try again")


def _annotated(pod: Pod, notes: Mapping[str, str]) -> Pod:
    metadata = structs.replace(pod.metadata, annotations={**pod.metadata.annotations, **notes})
    return structs.replace(pod, metadata=metadata)
