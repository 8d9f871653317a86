"""A kind as a CustomResourceDefinition (apiextensions.k8s.io/v1), from its struct, docstrings and Definition.

The schema is structural, as Kubernetes' "Extend the Kubernetes API with CustomResourceDefinitions" asks for. What
msgspec calls a struct's type it gives as JSON types; descriptions are what the source says of classes and fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec
import yaml
from msgspec import inspect

from calipy.resources.definitions import AGE, Column, Constraint, Definition, Validation
from calipy.resources.docstrings import said_of
from calipy.resources.metadata import Kind

Node = dict[str, object]
"""A JSON object: a part of a schema, or of the document around it."""

_FIRST = (
    "description", "type", "format", "enum", "default", "nullable", "pattern", "minimum", "maximum", "minLength",
    "maxLength", "minItems", "maxItems", "anyOf", "additionalProperties", "items", "properties", "required",
)  # fmt: skip
"""The order in which a schema's keywords are written; the others follow."""


def files(kinds: Iterable[Kind[Any]]) -> dict[str, str]:
    """A folder for `kubectl apply -k`: file name -> YAML, one file for each kind with a Definition."""
    found = {f"{kind.group}_{kind.resource}.yaml": crd(kind) for kind in kinds if kind.definition is not None}
    index: Node = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(found),
    }
    return {name: f"{_HEADER}{_yaml(node)}" for name, node in {**found, "kustomization.yaml": index}.items()}


_HEADER = "# Made by `make crds` from calipy/resources.\n"


def _yaml(node: Node) -> str:
    return yaml.dump(node, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118)


class _Dumper(yaml.SafeDumper):
    """Lists are set in, as kubectl's own files have them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def crd(kind: Kind[Any]) -> Node:
    """The document that defines a kind to an API server. Raises ValueError where the kind has no Definition, or its
    Definition speaks of a field that isn't there."""
    definition = kind.definition
    if definition is None:
        raise ValueError(f"{kind.name} has no definition: an API server knows it by itself")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.resource}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "names": _names(kind, definition),
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [_version(kind, definition)],
        },
    }


def _names(kind: Kind[Any], definition: Definition) -> Node:
    names: Node = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.resource,
        "singular": kind.kind.lower(),
    }
    for name, values in (("shortNames", definition.short_names), ("categories", definition.categories)):
        if values:
            names[name] = list(values)
    return names


def _version(kind: Kind[Any], definition: Definition) -> Node:
    version: Node = {"name": kind.version, "served": True, "storage": True}
    if definition.columns:
        version["additionalPrinterColumns"] = [_column(column) for column in (*definition.columns, AGE)]
    if definition.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in definition.selectable]
    if definition.status:
        version["subresources"] = {"status": {}}
    version["schema"] = {"openAPIV3Schema": schema(kind, definition)}
    return version


def _column(column: Column) -> Node:
    node: Node = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        node["description"] = column.description
    if column.wide:
        node["priority"] = 1
    return node


def schema(kind: Kind[Any], definition: Definition) -> Node:
    """The kind's openAPIV3Schema. What every object has is left to the API server, but for the name."""
    found = _Types(definition).of(inspect.type_info(kind.type), "")
    properties = _nodes(found, "properties")
    properties["metadata"] = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}}
    found["required"] = [name for name in ("metadata", "spec") if name in properties]
    for constraint in (*_name_constraints(kind), *definition.constraints):
        _at(found, constraint.path).update(_keywords(constraint))
    for validation in (*_name_validations(kind), *definition.validations):
        rules = _at(found, validation.path).setdefault("x-kubernetes-validations", [])
        cast(list[Node], rules).append(_rule(validation))
    return _ordered(found)


def _name_constraints(kind: Kind[Any]) -> Iterator[Constraint]:
    if kind.names == "label":
        yield Constraint(path="metadata.name", max_length=63)


def _name_validations(kind: Kind[Any]) -> Iterator[Validation]:
    """Beyond what the API server asks of every name (a DNS subdomain)."""
    if kind.names == "label":
        rule, message = "!self.metadata.name.contains('.')", "its name has no dots"
    elif kind.names == "policy":
        rule = "self.metadata.name.indexOf('.') == self.metadata.name.lastIndexOf('.')"
        message = "its name has one dot at most"
    else:
        return
    yield Validation(path="", field=".metadata.name", rule=rule, message=message)


class _Types:
    """From msgspec's types to JSON's."""

    def __init__(self, definition: Definition) -> None:
        self._holds = {path: inspect.type_info(type_()) for path, type_ in definition.holds}

    def of(self, found: inspect.Type, path: str) -> Node:
        """The schema of what stands at a path."""
        found = self._holds.get(path, found)
        match found:
            case inspect.Metadata(type=inner, extra_json_schema=extra):
                return self.of(inner, path) | dict(extra or {})
            case inspect.StructType():
                return self._struct(found, path)
            case inspect.UnionType(types=types):
                return self._union(types, path)
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                return {"type": "array", "items": self._element(item, path)}
            case inspect.DictType(value_type=value):
                return {"type": "object", "additionalProperties": self._element(value, path)}
            case inspect.LiteralType(values=values):
                return {"type": "string" if isinstance(values[0], str) else "integer", "enum": list(values)}
        return {"type": _PLAIN[type(found)]}

    def _element(self, found: inspect.Type, path: str) -> Node:
        """Of a list or a mapping; there null means something."""
        node = self.of(found, f"{path}[]")
        if isinstance(found, inspect.UnionType) and found.includes_none:
            node["nullable"] = True
        return node

    def _union(self, types: tuple[inspect.Type, ...], path: str) -> Node:
        """A type and None, which is a field left out; or a number or a text."""
        left = [each for each in types if not isinstance(each, inspect.NoneType)]
        if len(left) == 1:
            return self.of(left[0], path)
        if {type(each) for each in left} == {inspect.IntType, inspect.StrType}:
            return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
        raise ValueError(f"{path}: a structural schema has no union of {types}")

    def _struct(self, found: inspect.StructType, path: str) -> Node:
        said = said_of(found.cls)
        properties: Node = {}
        fields = [each for each in found.fields if path or each.name not in _EVERYBODYS]
        for each in sorted(fields, key=lambda field: field.encode_name):
            node = self.of(each.type, f"{path}.{each.encode_name}".removeprefix("."))
            if text := said.fields.get(each.name):
                node["description"] = text
            properties[each.encode_name] = node
        node = {"type": "object", "properties": properties}
        if said.itself:
            node["description"] = said.itself
        if required := sorted(each.encode_name for each in fields if each.required):
            node["required"] = required
        return node


_EVERYBODYS = ("metadata", "api_version")
"""Fields of every object."""
_PLAIN: Mapping[type, str] = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
}


_STEP = re.compile(r"\[\]|[^.\[\]]+")


def _at(node: Node, path: str) -> Node:
    """The schema at a path (`Constraint.path`). Raises ValueError where there is none."""
    for step in _STEP.findall(path):
        below = (
            _nodes(node, "properties").get(step)
            if step != "[]"
            else node.get("items", node.get("additionalProperties"))
        )
        if not isinstance(below, dict):
            raise ValueError(f"{path}: there is no such field")
        node = below
    return node


def _nodes(node: Node, name: str) -> Node:
    return cast(Node, node.get(name, {}))


_WRITTEN = {"list_type": "x-kubernetes-list-type", "list_keys": "x-kubernetes-list-map-keys",
            "map_type": "x-kubernetes-map-type"}  # fmt: skip
"""A Constraint's field -> its keyword, where it is not the same in camel case."""


def _keywords(constraint: Constraint) -> Node:
    values = msgspec.structs.asdict(constraint)
    del values["path"]
    return {
        _WRITTEN.get(name) or _camel(name): list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and value != ()
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _rule(validation: Validation) -> Node:
    node: Node = {"rule": validation.rule, "message": validation.message, "reason": validation.reason}
    if validation.field:
        node["fieldPath"] = validation.field
    return node


def _ordered(node: Node) -> Node:
    """The same with its keywords in the order of `_FIRST`, at every level."""
    ranks = {name: rank for rank, name in enumerate(_FIRST)}
    ordered: Node = {}
    for name in sorted(node, key=lambda name: (ranks.get(name, len(ranks)), name)):
        value = node[name]
        if name == "properties" and isinstance(value, dict):
            ordered[name] = {field: _ordered(below) for field, below in sorted(value.items())}
        elif name in ("items", "additionalProperties") and isinstance(value, dict):
            ordered[name] = _ordered(value)
        else:
            ordered[name] = value
    return ordered
