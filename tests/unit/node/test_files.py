"""Small files for others."""

from pathlib import Path

from calipy.node import files


def test_put_makes_replaces_and_leaves_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mtu"
    files.put(path, "1450\n")
    first = path.stat()
    files.put(path, "1450\n")
    assert path.stat().st_ino == first.st_ino
    files.put(path, "1500\n")
    assert path.read_text() == "1500\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["mtu"]


def test_what_is_no_text_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mtu").write_bytes(b"\xff\xfe")
    files.put(tmp_path / "mtu", "1450\n")
    assert (tmp_path / "mtu").read_text() == "1450\n"
