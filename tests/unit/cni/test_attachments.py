"""Records of attachments."""

import resource
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

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


def test_a_record_is_written_over_in_place_while_it_fits(tmp_path, thread):
    records = Attachments(tmp_path, thread)
    records.put(ONE)
    path = tmp_path / "net@c1@eth0"
    first = path.stat().st_ino
    records.put(replace(ONE, state="attached", mtu=1440, blocks=("10.0.0.0/26", "fd00::/122")))
    assert path.stat().st_ino == first
    assert [entry.mtu for entry in Attachments(tmp_path, thread)] == [1440]
    records.put(replace(ONE, state="leaving"))
    assert [entry.state for entry in Attachments(tmp_path, thread)] == ["leaving"]


@pytest.mark.parametrize("length", [1000, 5000])
def test_a_record_that_has_outgrown_its_place_is_replaced_whole(tmp_path, thread, length):
    records = Attachments(tmp_path, thread)
    records.put(ONE)
    grown = replace(ONE, endpoint=replace(ENDPOINT, labels={"note": "x" * length}))
    for attachment in (grown, leaving(grown), leaving(ONE)):
        records.put(attachment)
        assert list(Attachments(tmp_path, thread)) == [attachment]
        assert [path.name for path in tmp_path.iterdir()] == ["net@c1@eth0"]


def test_a_record_longer_than_a_page_is_never_written_over(tmp_path, thread):
    records = Attachments(tmp_path, thread)
    long = replace(ONE, endpoint=replace(ENDPOINT, labels={"note": "x" * 5000}))
    records.put(long)
    former = (tmp_path / "net@c1@eth0").open("rb")  # its inode stays taken
    records.put(leaving(long))
    with former:
        assert b'"adding"' in former.read()
    assert list(Attachments(tmp_path, thread)) == [leaving(long)]


def test_a_record_without_a_word_goes(tmp_path, thread, caplog):
    (tmp_path / "net@c2@eth0").write_bytes(b"")
    assert list(Attachments(tmp_path, thread)) == list(tmp_path.iterdir()) == []
    assert not caplog.text


def test_on_a_full_disk_the_former_record_stays(tmp_path, thread):
    records = Attachments(tmp_path, thread)
    records.put(ONE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # SIGXFSZ is ignored by Python: EFBIG
    try:
        with pytest.raises(CniError, match="can't be written: File too large"):
            records.put(replace(ONE, endpoint=replace(ENDPOINT, labels={"note": "x" * 2000})))
        records.put(replace(ONE, mtu=1440))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(entry.state, entry.mtu) for entry in Attachments(tmp_path, thread)] == [("adding", 1440)]
    assert [path.name for path in tmp_path.iterdir()] == ["net@c1@eth0"]


def test_the_file_of_a_record_that_went_is_the_next_ones(tmp_path, thread):
    records = Attachments(tmp_path / "a", thread)
    records.put(replace(ONE, endpoint=replace(ENDPOINT, labels={"note": "x" * 2000})))
    held = tmp_path / "held"
    held.hardlink_to(tmp_path / "a" / "net@c1@eth0")  # its inode stays taken
    records.remove(ONE)
    assert list((tmp_path / "a").iterdir()) == []
    two = replace(ONE, container_id="c2")
    records = Attachments(tmp_path / "a", thread)  # another process finds it, too
    records.put(two)
    assert (tmp_path / "a" / "net@c2@eth0").samefile(held)
    assert list(Attachments(tmp_path / "a", thread)) == [two]


def test_so_many_spare_files_are_kept_and_no_more(tmp_path, thread):
    records = Attachments(tmp_path / "a", thread)
    many = [replace(ONE, container_id=f"c{number}") for number in range(80)]
    for entry in many:
        records.put(entry)
    for entry in many:
        records.remove(entry)
    assert len(list((tmp_path / "a-spare").iterdir())) == 64
    assert list((tmp_path / "a").iterdir()) == []
    for entry in many:
        records.put(entry)
    assert list((tmp_path / "a-spare").iterdir()) == []
    assert {entry.container_id for entry in Attachments(tmp_path / "a", thread)} == {f"c{n}" for n in range(80)}


def test_who_tidies_up_spare_files_does_no_harm(tmp_path, thread):
    records = Attachments(tmp_path / "a", thread)
    records.put(ONE)
    records.remove(ONE)
    shutil.rmtree(tmp_path / "a-spare")
    records.put(ONE)
    assert list(Attachments(tmp_path / "a", thread)) == [ONE]
    shutil.rmtree(tmp_path / "a-spare")
    records.remove(ONE)
    assert list(Attachments(tmp_path / "a", thread)) == list((tmp_path / "a").iterdir()) == []


def test_a_spare_file_that_cannot_be_filled_stays_one(tmp_path, thread):
    records = Attachments(tmp_path / "a", thread)
    records.put(ONE)
    records.remove(ONE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(CniError, match="can't be written: No space left"):
            records.put(replace(ONE, endpoint=replace(ENDPOINT, labels={"note": "x" * 2000})))
        records.put(ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(Attachments(tmp_path / "a", thread)) == [ONE]
    assert list((tmp_path / "a-spare").iterdir()) == []


def test_a_record_under_anothers_name_is_a_power_cuts(tmp_path, thread, caplog):
    """The new name was on the disk already, the new content wasn't."""
    records = Attachments(tmp_path / "a", thread)
    records.put(ONE)
    (tmp_path / "a" / "net@c1@eth0").rename(tmp_path / "a" / "net@c2@eth0")
    assert list(Attachments(tmp_path / "a", thread)) == list((tmp_path / "a").iterdir()) == []
    assert "net@c2@eth0 is net@c1@eth0's, from before a power cut" in caplog.text
