"""Records of attachments."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from calipy.cni.attachments import Attachment, Attachments, leaving
from calipy.cni.errors import CniError
from calipy.model.endpoints import EndpointId, WorkloadEndpoint

ENDPOINT = WorkloadEndpoint(
    id=EndpointId("k8s", "shop/web", "eth0"), container_id="c1", interface="cali1", addresses=("10.0.0.1",),
    namespace="shop", pod="web",
)  # fmt: skip
ONE = Attachment(
    network="net", container_id="c1", interface="eth0", state="adding", endpoint=ENDPOINT, blocks=("10.0.0.0/26",)
)


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_names():
    assert ONE.handle == "net.c1"
    assert ONE.key == "net@c1@eth0"


def test_a_record_outlives_the_process(tmp_path, thread):
    Attachments(tmp_path / "a", thread).put(ONE)
    again = Attachments(tmp_path / "a", thread)
    assert list(again) == [ONE]
    assert again.get("net", "c1", "eth0") == ONE
    assert again.of_container("c1") == (ONE,)
    assert again.get("net", "c1", "eth1") is None
    assert (tmp_path / "a" / "net@c1@eth0").stat().st_mode & 0o777 == 0o600


async def test_a_durable_record(tmp_path, thread):
    records = Attachments(tmp_path, thread)
    records.put(ONE)
    await records.put_durably(leaving(ONE))
    assert [entry.state for entry in Attachments(tmp_path, thread)] == ["leaving"]


def test_removal_any_number_of_times(tmp_path, thread):
    records = Attachments(tmp_path, thread)
    records.put(ONE)
    records.remove(ONE)
    records.remove(ONE)
    assert list(records) == list(tmp_path.iterdir()) == []


def test_a_broken_record_is_named_and_left(tmp_path, thread, caplog):
    (tmp_path / "net@c2@eth0").write_text("{")
    (tmp_path / ".net@c3@eth0").write_text("half written")
    records = Attachments(tmp_path, thread)
    assert list(records) == []
    assert "net@c2@eth0 can't be read" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


def test_a_record_that_cannot_be_written(tmp_path, thread):
    records = Attachments(tmp_path / "a", thread)
    (tmp_path / "a").rmdir()
    with pytest.raises(CniError, match="net@c1@eth0 can't be written: No such file") as caught:
        records.put(ONE)
    assert caught.value.code == 5
    assert list(records) == []
