"""Merge patches: the examples of RFC 7386, appendix A, and the law that they keep."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from calipy.datastore.patches import difference, document, encode_patch, merge
from calipy.resources import ipam_blocks, ipam_handles
from calipy.resources.ipam_blocks import IPAMBlock, IPAMBlockSpec
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import ObjectMeta

scalars = st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "1"]) | st.sampled_from([0.0, 1.0, 2.5])
names = st.sampled_from(["a", "b", "c", "metadata", ""])
values = st.recursive(scalars, lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(names, inner))
objects = st.dictionaries(names, values)


def same(one: object, other: object) -> bool:
    """Equal as JSON, where 1 is not true."""
    return repr(_sorted(one)) == repr(_sorted(other))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return sorted((name, _sorted(inner)) for name, inner in value.items())
    return [_sorted(inner) for inner in value] if isinstance(value, list) else value


@given(values, values)
def test_the_difference_leads_from_old_to_new(old: Any, new: Any) -> None:
    assert same(merge(old, difference(old, new)), new)


@given(objects, objects)
def test_no_argument_is_changed(old: Any, new: Any) -> None:
    before = copy.deepcopy((old, new))
    merge(old, difference(old, new))
    assert (old, new) == before


@given(objects)
def test_equal_objects_differ_by_nothing(value: Any) -> None:
    assert difference(value, copy.deepcopy(value)) == {}


@given(objects, objects, st.dictionaries(st.sampled_from(["x", "y"]), values))
def test_fields_that_the_writer_does_not_know_survive(old: Any, new: Any, unknown: Any) -> None:
    assert same(merge({**old, **unknown}, difference(old, new)), {**new, **unknown})


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


def test_true_is_not_one() -> None:
    assert difference({"a": 1, "b": [1]}, {"a": True, "b": [True]}) == {"a": True, "b": [True]}


def test_a_patch_of_resources_names_only_what_differs() -> None:
    old = IPAMHandle(metadata=ObjectMeta(name="h"), spec=IPAMHandleSpec(handle_id="h", block={"x": 1, "y": 1}))
    new = replace(old, spec=replace(old.spec, block={"x": 2}))
    assert encode_patch(ipam_handles.KIND, old, new) == {"spec": {"block": {"x": 2, "y": None}}}


def test_raw_fields_go_through_as_they_are() -> None:
    spec = IPAMBlockSpec(cidr="10.0.0.0/32", allocations=(0,), unallocated=(), attributes=(Raw(b'{"future": 1}'),))
    block = IPAMBlock(metadata=ObjectMeta(name="b"), spec=spec)
    assert document(block)["spec"]["attributes"] == [{"future": 1}]  # type: ignore[index]
    emptied = replace(block, spec=replace(spec, attributes=()))
    assert encode_patch(ipam_blocks.KIND, block, emptied) == {"spec": {"attributes": []}}


def test_two_kinds_have_no_difference() -> None:
    handle = IPAMHandle(metadata=ObjectMeta(name="h"), spec=IPAMHandleSpec(handle_id="h", block={}))
    with pytest.raises(TypeError, match="IPAMBlock"):
        encode_patch(ipam_blocks.KIND, handle, handle)  # type: ignore[misc]
