"""The forwarder and the conflist in their places."""

import json
import os

import pytest
from click.testing import CliRunner

from calipy.__main__ import calipy
from calipy.cni import install
from calipy.cni.install import conflist, install_forwarder

ANSWERS = b"""#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] && echo '{"cniVersion":"0.4.0"}'
"""


def built(path, text=ANSWERS):
    path.write_bytes(text)
    path.chmod(0o755)
    return path


def test_the_forwarder_is_replaced(tmp_path):
    source = built(tmp_path / "built")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "calipy-cni").write_bytes(b"old")
    place = install_forwarder(str(tmp_path / "bin"), str(source))
    assert place == str(tmp_path / "bin" / "calipy-cni")
    assert (tmp_path / "bin" / "calipy-cni").read_bytes() == ANSWERS
    assert (tmp_path / "bin" / "calipy-cni").stat().st_mode & 0o777 == 0o755
    assert len(list((tmp_path / "bin").iterdir())) == 1


def test_one_that_is_there_may_stay(tmp_path):
    source, variables = str(built(tmp_path / "built")), {"CALIPY_CNI_BIN_DIR": f"{tmp_path}/bin"}
    for old, update, now in ((None, "false", ANSWERS), (b"old", "false", b"old"), (b"old", "true", ANSWERS)):
        if old is not None:
            (tmp_path / "bin" / "calipy-cni").write_bytes(old)
        environment = {**variables, "UPDATE_CNI_BINARIES": update}
        done = CliRunner().invoke(calipy, ["install-cni", "--forwarder", source], env=environment)
        assert (done.exit_code, done.output) == (0, f"{tmp_path}/bin/calipy-cni\n")
        assert (tmp_path / "bin" / "calipy-cni").read_bytes() == now


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\x7fELF of another machine", "Exec format error"),
        (b"#!/bin/sh\necho hello\n", "it answers VERSION with b'hello\\n'"),
        (b"#!/bin/sh\nexec sleep 60\n", "no answer within 0.2 s"),
    ],
)
def test_a_forwarder_that_does_not_run_here_replaces_none(tmp_path, monkeypatch, text, said):
    monkeypatch.setattr(install, "_TRY_S", 0.2)
    (tmp_path / "calipy-cni").write_bytes(b"old")
    source = built(tmp_path / "built", text)
    done = CliRunner().invoke(calipy, ["install-cni", str(tmp_path), "--forwarder", str(source)])
    assert done.exit_code == 1
    assert done.output == f"Error: {source}: {said}; is it built for this machine, {os.uname().machine}?\n"
    assert (tmp_path / "calipy-cni").read_bytes() == b"old"


def test_a_forwarder_that_is_not_built(tmp_path):
    with pytest.raises(FileNotFoundError, match="build it"):
        install_forwarder(str(tmp_path), str(tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_wrong(tmp_path):
    done = CliRunner().invoke(calipy, ["install-cni", str(tmp_path), "--forwarder", str(tmp_path / "absent")])
    assert done.exit_code == 1
    assert (
        done.output
        == f"Error: {tmp_path}/absent: no forwarder there; build it (make setup) or name one with --forwarder\n"
    )


def test_the_command_names_a_folder_that_is_none(tmp_path):
    (tmp_path / "bin").write_bytes(b"")
    built(tmp_path / "built")
    done = CliRunner().invoke(calipy, ["install-cni", f"{tmp_path}/bin", "--forwarder", f"{tmp_path}/built"])
    assert (done.exit_code, done.output) == (
        1,
        f"error: folder {tmp_path}/bin: {tmp_path}/bin: File exists; name a folder that can be made and written\n",
    )


def test_conflist():
    assert json.loads(conflist()) == {
        "name": "k8s-pod-network",
        "cniVersion": "0.4.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "plugins": [
            {
                "type": "calipy-cni",
                "capabilities": {"portMappings": True, "io.kubernetes.cri.pod-annotations": True},
            }
        ],
    }
    assert json.loads(conflist(1400))["plugins"][0]["mtu"] == 1400


def test_the_forwarder_of_a_checkout_is_found(tmp_path):
    place = install_forwarder(str(tmp_path))
    assert (tmp_path / "calipy-cni").read_bytes()[:4] == b"\x7fELF"
    assert place == str(tmp_path / "calipy-cni")
