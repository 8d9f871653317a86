"""Values of Secrets."""

from __future__ import annotations

import pytest

from calipy.resources.metadata import ObjectMeta
from calipy.resources.secrets import Secret

META = ObjectMeta(name="bgp", namespace="kube-system")


def test_data_is_base64_and_string_data_wins() -> None:
    secret = Secret(metadata=META, data={"a": "c2VjcmV0", "b": "b2xk"}, string_data={"b": "new"})
    assert secret.text("a") == "secret"
    assert secret.text("b") == "new"
    assert secret.text("c") is None


@pytest.mark.parametrize("broken", ["not base64!", "/w=="])
def test_what_is_broken_is_named_and_not_shown(broken: str) -> None:
    with pytest.raises(ValueError, match="Secret/kube-system/bgp: data.a") as error:
        Secret(metadata=META, data={"a": broken}).text("a")
    assert broken not in str(error.value)
