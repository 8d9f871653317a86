"""SCTP's first two packets, byte by byte. The bytes were written by Scapy 2.8, an implementation that isn't ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calipy.lab import sctp
from calipy.lab.sctp import ABORT, INIT, INIT_ACK, Chunk, Malformed, Packet

THEIRS, OURS = 0x01020304, 0x11121314
ASKED = bytes.fromhex("c000005000000000085df10d0100001401020304000100000001000101020304")
ANSWERED = bytes.fromhex("0050c000010203046596f5d602000020111213140001000000010001111213140007000c0102030411121314")
REFUSED = bytes.fromhex("0051c00001020304182b279e06000004")


# RFC 3720, appendix B.4; and the check value in the catalogue of parametrised CRC algorithms
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksums(data: bytes, checksum: int) -> None:
    assert sctp.crc32c(data) == checksum


def test_a_question_and_its_answers() -> None:
    question = sctp.ask(49152, 80, THEIRS)
    assert sctp.encode(question) == ASKED
    assert sctp.encode(sctp.answer(sctp.decode(ASKED), {80}, OURS)) == ANSWERED  # type: ignore[arg-type]
    refused = sctp.answer(question._replace(destination=81), {80}, OURS)
    assert refused is not None
    assert sctp.encode(refused) == REFUSED


chunks = st.builds(Chunk, st.integers(0, 255), st.binary(max_size=40), st.integers(0, 255))
ports, tags = st.integers(0, 65535), st.integers(0, 0xFFFFFFFF)


@given(st.builds(Packet, ports, ports, tags, st.lists(chunks, max_size=3).map(tuple)))
def test_a_packet_is_read_as_it_was_written(packet: Packet) -> None:
    assert sctp.decode(sctp.encode(packet)) == packet


def test_a_packet_with_a_wrong_bit_is_none() -> None:
    for at in range(len(ANSWERED)):
        wrong = bytearray(ANSWERED)
        wrong[at] ^= 0x10
        with pytest.raises(Malformed):
            sctp.decode(bytes(wrong))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x01\x00\x00", "3 bytes are no chunk"),
        (b"\x01\x00\x00\x03", "a chunk says it has 3 bytes, of 4"),
        (b"\x01\x00\x00\x09\x00\x00\x00\x00", "a chunk says it has 9 bytes, of 8"),
    ],
)
def test_what_is_no_chunk(body: bytes, reason: str) -> None:
    head = ASKED[:8] + bytes(4)
    data = ASKED[:8] + sctp.crc32c(head + body).to_bytes(4, "little") + body
    with pytest.raises(Malformed, match=reason):
        sctp.decode(data)


def test_what_is_too_short() -> None:
    with pytest.raises(Malformed, match="11 bytes are no SCTP packet"):
        sctp.decode(ASKED[:11])


GOOD = sctp.ask(49152, 80, THEIRS)
INITIAL = GOOD.chunks[0].value


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(GOOD._replace(tag=1), id="a tag in the header"),
        pytest.param(GOOD._replace(chunks=()), id="nothing"),
        pytest.param(GOOD._replace(chunks=GOOD.chunks * 2), id="INIT with company"),
        pytest.param(GOOD._replace(chunks=(Chunk(ABORT),)), id="another chunk"),
        pytest.param(GOOD._replace(chunks=(Chunk(INIT, INITIAL[:-1]),)), id="too short"),
        pytest.param(GOOD._replace(chunks=(Chunk(INIT, bytes(4) + INITIAL[4:]),)), id="initiate tag 0"),
        pytest.param(GOOD._replace(chunks=(Chunk(INIT, INITIAL[:8] + bytes(2) + INITIAL[10:]),)), id="no stream out"),
        pytest.param(GOOD._replace(chunks=(Chunk(INIT, INITIAL[:10] + bytes(2) + INITIAL[12:]),)), id="no stream in"),
    ],
)
def test_what_gets_no_answer(packet: Packet) -> None:
    assert sctp.answer(packet, {80}, OURS) is None


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (sctp.decode(ANSWERED), INIT_ACK),
        (sctp.decode(ANSWERED)._replace(tag=THEIRS + 1), 0),
        (sctp.decode(ANSWERED)._replace(source=81), 0),
        (sctp.decode(ANSWERED)._replace(destination=49153), 0),
        (GOOD, 0),
        (sctp.decode(REFUSED)._replace(source=80), ABORT),
    ],
)
def test_what_answers_a_question(packet: Packet, kind: int) -> None:
    assert sctp.answers(packet, GOOD) == kind
