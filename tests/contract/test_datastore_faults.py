"""What the store on an API server makes of a server that is busy, slow, forgetful, or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from calipy.datastore.kubernetes.credentials import Credentials
from calipy.datastore.kubernetes.store import KubernetesStore
from calipy.datastore.kubernetes.tokens import TokenFile
from calipy.datastore.mirror import Mirror
from calipy.datastore.stores import Expired, NotFound, StoreError, Unauthorized, Unavailable
from calipy.resources import ipam_handles, profiles
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Key, ObjectMeta, Problem, Refused
from tests.contract.faulty import Faulty, cut_off, lines, silent, status, text

HANDLE = ipam_handles.KIND
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
BOOKMARK = {"type": "BOOKMARK", "object": {"kind": "IPAMHandle", "metadata": {"resourceVersion": "4000000"}}}


def handle(name: str) -> IPAMHandle:
    return IPAMHandle(metadata=ObjectMeta(name=name), spec=IPAMHandleSpec(handle_id=name, block={}))


@asynccontextmanager
async def opened(faulty: Faulty, path: Path, **how: Any) -> AsyncIterator[KubernetesStore]:
    """A store on `faulty`; its token is in the file."""
    credentials = Credentials(source="a test", server=faulty.url, authorization=TokenFile(path))
    store = await KubernetesStore.open(credentials, **how)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def token_file(tmp_path: Path, token: str) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    return path


@pytest.fixture
async def through(faulty: Faulty, token_file: Path) -> AsyncIterator[KubernetesStore]:
    async with opened(faulty, token_file) as store:
        yield store


async def test_a_busy_server_is_asked_again_when_it_said(faulty: Faulty, through: KubernetesStore) -> None:
    faulty.next("POST", status(429, "TooManyRequests", Retry_After="0"), status(503, Retry_After="0"))
    created = await through.create(HANDLE, handle("a"))
    assert len([each for each in faulty.asked if each.startswith("POST")]) == 3
    faulty.next("watch", status(429, "TooManyRequests", Retry_After="0"))
    event = await anext(aiter(through.watch(HANDLE, created.revision - 1)))
    assert event.object == created
    assert await through.get(HANDLE, "a") == created


async def test_patience_with_a_busy_server_has_an_end(faulty: Faulty, token_file: Path) -> None:
    async with opened(faulty, token_file, timeout_s=0.3) as store:
        faulty.next("GET", status(429, "TooManyRequests", Retry_After="60"))
        with pytest.raises(Unavailable, match=r"has too much to do \(get ipamhandles\.projectcalico\.org: HTTP 429\)"):
            await store.get(HANDLE, "a")


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        (status(500, "InternalError", "etcd is gone"), Unavailable, "HTTP 500: etcd is gone; look at the logs of kube"),
        (status(504, "Timeout"), Unavailable, "HTTP 504: said"),
        (text(502, "<html>Bad Gateway"), Unavailable, "HTTP 502: <html>Bad Gateway"),
        (text(429, "slow down"), Unavailable, "has too much to do"),
        (status(401, "Unauthorized"), Unauthorized, r"doesn't know who asks \(HTTP 401: said\); renew its token"),
        (status(403, "Forbidden"), Unauthorized, "allow verb 'get' on resource 'ipamhandles.projectcalico.org' in its"),
        (status(410, "Expired"), Expired, "said; list again"),
        (text(404, "404 page not found"), Unavailable, "apply the CustomResourceDefinitions: kubectl apply -k crds/"),
        (cut_off(), Unavailable, "the answer was cut off"),
    ],
)
async def test_answers_that_are_none(
    faulty: Faulty, through: KubernetesStore, fault: Any, error: type[StoreError], said: str
) -> None:
    faulty.next("GET", fault)
    with pytest.raises(error, match=said):
        await through.get(HANDLE, "a")
    await through.create(HANDLE, handle("a"))
    assert (await through.get(HANDLE, "a")).key.name == "a", "the next request is as good as ever"


async def test_a_slow_server_is_not_waited_for_too_long(faulty: Faulty, token_file: Path) -> None:
    async with opened(faulty, token_file, timeout_s=0.3) as store:
        faulty.next("GET", silent())
        with pytest.raises(Unavailable, match=r"no answer within 0\.3 s; check that kube-apiserver runs"):
            await store.get(HANDLE, "a")
        faulty.next("watch", silent())
        with pytest.raises(Unavailable, match=r"watch ipamhandles.*no answer within 0\.3 s"):
            await anext(aiter(store.watch(HANDLE, 1)))


async def test_a_server_that_is_not_there_is_unavailable(token_file: Path) -> None:
    credentials = Credentials(source="a test", server="http://127.0.0.1:9", authorization=TokenFile(token_file))
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9: .* check that kube-apiserver runs and can be"):
        await KubernetesStore.open(credentials)


async def test_a_name_that_nobody_knows_is_unavailable(token_file: Path) -> None:
    credentials = Credentials(source="a test", server="http://nobody.invalid", authorization=TokenFile(token_file))
    with pytest.raises(Unavailable, match=r"nobody\.invalid: its address can't be looked up"):
        await KubernetesStore.open(credentials)


async def test_a_name_is_looked_up_without_a_thread(faulty: Faulty, token_file: Path, token: str) -> None:
    server = faulty.url.replace("127.0.0.1", "localhost")
    credentials = Credentials(source="a test", server=server, authorization=TokenFile(token_file))
    loop = asyncio.get_running_loop()
    store = await KubernetesStore.open(credentials)
    await store.create(HANDLE, handle("a"))
    await store.close()
    assert getattr(loop, "_default_executor", None) is None


async def test_a_token_that_is_refused_is_sent_again_only_if_there_is_another(
    faulty: Faulty, through: KubernetesStore, token: str
) -> None:
    faulty.next("GET", status(401, "Unauthorized"))
    before = len(faulty.asked)
    with pytest.raises(Unauthorized):
        await through.get(HANDLE, "a")
    assert len(faulty.asked) == before + 1
    assert faulty.tokens[-1] == f"Bearer {token}"


async def test_a_token_that_the_server_refuses_is_read_again(faulty: Faulty, tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    faulty.next("GET", status(401, "Unauthorized"))

    class Renewed(TokenFile):
        def renew(self) -> bool:
            path.write_text(token)
            return super().renew()

    credentials = Credentials(source="a test", server=faulty.url, authorization=Renewed(path))
    store = await KubernetesStore.open(credentials)
    await store.create(HANDLE, handle("a"))
    await store.close()
    assert faulty.tokens == ["Bearer old", f"Bearer {token}", f"Bearer {token}"]


async def test_each_request_is_counted(faulty: Faulty, token_file: Path) -> None:
    seen: list[tuple[str, str, str]] = []
    async with opened(faulty, token_file, observe=lambda *answer: seen.append(answer)) as store:
        await store.create(HANDLE, handle("a"))
        faulty.next("GET", cut_off(), status(500))
        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.get(HANDLE, "a")
    resource = "ipamhandles.projectcalico.org"
    assert seen[1:] == [("create", resource, "201"), ("get", resource, "200"), ("get", resource, "500")]


async def test_what_the_server_finds_wrong_is_told_field_by_field(faulty: Faulty, through: KubernetesStore) -> None:
    causes = [
        {"reason": "FieldValueInvalid", "message": 'Invalid value: "x/33": is no CIDR', "field": "spec.cidr"},
        {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.node"},
        {"reason": "FieldValueNotSupported", "message": "Unsupported value: 7: supported values: 1, 2", "field": "a"},
    ]

    async def invalid(request: Any, behind: Any) -> Any:
        from aiohttp import web

        body = {"kind": "Status", "code": 422, "reason": "Invalid", "message": "m", "details": {"causes": causes}}
        return web.json_response(body, status=422)

    faulty.next("POST", invalid, status(400, "BadRequest", "no JSON"))
    with pytest.raises(Refused) as raised:
        await through.create(HANDLE, handle("a"))
    remedy = "write what the API server allows"
    assert raised.value.what == "IPAMHandle/a"
    assert raised.value.problems == (
        Problem("spec.cidr", "x/33", "Invalid value: is no CIDR", remedy),
        Problem("spec.node", "", "Required value", remedy),
        Problem("a", 7, "Unsupported value: supported values: 1, 2", remedy),
    )
    with pytest.raises(Refused, match="no JSON"):
        await through.create(HANDLE, handle("a"))


async def test_a_cluster_has_no_profiles(faulty: Faulty, through: KubernetesStore) -> None:
    kind, before = profiles.KIND, len(faulty.asked)
    assert [page.items async for page in through.list(kind)] == [()]
    with pytest.raises(NotFound, match="Profile/a does not exist: a Kubernetes cluster has no profiles of its own"):
        await through.get(kind, "a")
    with pytest.raises(Refused, match="Namespaces and ServiceAccounts are its profiles; write a NetworkPolicy"):
        await through.create(kind, profiles.Profile(metadata=ObjectMeta(name="a")))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(aiter(through.watch(kind, 1)))
    assert len(faulty.asked) == before


# --- lists and watches ---


async def test_a_list_goes_on_where_its_last_page_ended(through: KubernetesStore) -> None:
    for name in "abcde":
        await through.create(HANDLE, handle(name))
    pages = [page async for page in through.list(HANDLE, page_size=2)]
    assert ["".join(item.key.name for item in page.items) for page in pages] == ["ab", "cd", "e"]
    assert len({page.revision for page in pages}) == 1


async def test_a_list_that_the_server_forgets_midway_is_expired(faulty: Faulty, through: KubernetesStore) -> None:
    for name in "abc":
        await through.create(HANDLE, handle(name))
    pages = cast(Any, through.list(HANDLE, page_size=2))
    async with aclosing(pages):
        first = await anext(pages)
        assert [item.key.name for item in first.items] == ["a", "b"]
        faulty.next("GET", status(410, "Expired"))
        with pytest.raises(Expired, match="list again"):
            await anext(pages)


async def test_a_watch_that_the_server_forgets_is_expired(faulty: Faulty, through: KubernetesStore) -> None:
    faulty.next("watch", lines(BOOKMARK, GONE))
    watch = aiter(through.watch(HANDLE, 1))
    assert (await anext(watch)).revision == 4_000_000
    with pytest.raises(Expired, match="too old"):
        await anext(watch)


async def test_a_stream_that_the_server_ends_goes_on_from_where_it_was(
    faulty: Faulty, through: KubernetesStore
) -> None:
    created = await through.create(HANDLE, handle("a"))
    since = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(created.revision)}}}
    faulty.next("watch", lines(since))
    watch = aiter(through.watch(HANDLE, created.revision - 1))
    assert (await anext(watch)).type == "bookmark"
    await through.create(HANDLE, handle("b"))
    event = await anext(watch)
    assert event.object is not None
    assert event.object.key.name == "b"
    asked = [each for each in faulty.asked if "watch=1" in each]
    assert [f"resourceVersion={revision}&" in each for revision, each in zip(
        (created.revision - 1, created.revision), asked, strict=True
    )] == [True, True]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lines(), "has ended the stream at once"),
        (lines({"type": "GOSSIP", "object": {}}), "an event can't be read"),
        (lines(cut=True), "the connection was lost"),
        (status(500), "HTTP 500"),
    ],
)
async def test_streams_that_are_none(faulty: Faulty, through: KubernetesStore, fault: Any, said: str) -> None:
    faulty.next("watch", fault)
    with pytest.raises(Unavailable, match=said):
        async with asyncio.timeout(10):
            await anext(aiter(through.watch(HANDLE, 1)))


@pytest.mark.parametrize(
    ("faults", "listings"),
    [
        ([lines(cut=True)], 1),
        ([status(500), status(429, Retry_After="0"), lines()], 1),
        ([status(410, "Expired")], 2),
        ([lines(GONE)], 2),
    ],
)
async def test_a_mirror_goes_on_after_faults(
    faulty: Faulty, through: KubernetesStore, faults: list[Any], listings: int
) -> None:
    await through.create(HANDLE, handle("a"))
    faulty.next("watch", *faults)
    mirror = Mirror(through, (HANDLE,), sleep=lambda seconds: asyncio.sleep(0))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        follower = group.create_task(mirror.run())
        batches = aiter(mirror.batches())
        assert [event.type for event in (await anext(batches)).events] == ["put"]
        await through.create(HANDLE, handle("b"))
        while len(mirror.current(HANDLE)) < 2:
            await anext(batches)
        follower.cancel()
    assert set(mirror.current(HANDLE)) == {Key("IPAMHandle", "a"), Key("IPAMHandle", "b")}
    assert len([each for each in faulty.asked if "limit=500" in each]) == listings


async def test_a_server_that_has_only_calicos_storage_is_told_apart(faulty: Faulty, token_file: Path) -> None:
    faulty.next("GET", text(200, '{"groups": [{"name": "crd.projectcalico.org"}]}'), text(200, "hello"))
    with pytest.raises(Unavailable, match=r"in their storage form alone .* kubectl apply -k crds/"):
        async with opened(faulty, token_file):
            pass
    with pytest.raises(Unavailable, match="doesn't answer as a kube-apiserver"):
        async with opened(faulty, token_file):
            pass
