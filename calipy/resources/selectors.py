"""Calico's selector language: a parser, an evaluator, the canonical text and the identity made of it.

    expression = and { "||" and }          and = unary { "&&" unary }
    unary      = { "!" } ( "(" expression ")" | "all()" | "global()" | "has(" label ")" | comparison )
    comparison = label ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
               | label [ "not" ] "in" "{" [ string { "," string } ] "}"
    string     = '"' ... '"' | "'" ... "'"      no escapes
    label      = [A-Za-z0-9_./-]+               at most 512 characters

`!=` and `not in` also match where the label is absent. The empty selector is `all()`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from msgspec import Struct


class SelectorError(ValueError):
    """A text that isn't a selector: the message points at the column (from 1) and says what was expected there."""


class All(Struct, frozen=True, gc=False):
    """`all()`."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Always True."""
        return True

    def __str__(self) -> str:
        return "all()"


class Global(Struct, frozen=True, gc=False):
    """`global()`: what lies in no namespace; as Calico, it matches everything once it is evaluated."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Always True: the conversion of rules gives it its meaning."""
        return True

    def __str__(self) -> str:
        return "global()"


class Has(Struct, frozen=True, gc=False):
    """`has(label)`."""

    label: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the label is there."""
        return self.label in labels

    def __str__(self) -> str:
        return f"has({self.label})"


class Compare(Struct, frozen=True, gc=False):
    """One label against one string."""

    label: str
    operator: Literal["==", "!=", "contains", "starts with", "ends with"]
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the comparison holds."""
        found = labels.get(self.label)
        if self.operator == "!=":
            return found != self.value
        if found is None:
            return False
        match self.operator:
            case "==":
                return found == self.value
            case "contains":
                return self.value in found
            case "starts with":
                return found.startswith(self.value)
            case _:
                return found.endswith(self.value)

    def __str__(self) -> str:
        return f"{self.label} {self.operator} {_quoted(self.value)}"


class In(Struct, frozen=True, gc=False):
    """One label against a set of strings, sorted and each once."""

    label: str
    values: tuple[str, ...]
    negated: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the label's value is (not) one of the set."""
        return (labels.get(self.label) in self.values) != self.negated

    def __str__(self) -> str:
        operator = "not in" if self.negated else "in"
        return f"{self.label} {operator} {{{', '.join(map(_quoted, self.values))}}}"


class Not(Struct, frozen=True, gc=False):
    """`!expression`."""

    operand: Expression

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the operand doesn't match."""
        return not self.operand.matches(labels)

    def __str__(self) -> str:
        return f"!{self.operand}"


class Join(Struct, frozen=True, gc=False):
    """Two or more operands joined by one operator."""

    operator: Literal["&&", "||"]
    operands: tuple[Expression, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if all, or any, of the operands match."""
        results = (operand.matches(labels) for operand in self.operands)
        return all(results) if self.operator == "&&" else any(results)

    def __str__(self) -> str:
        return f"({f' {self.operator} '.join(map(str, self.operands))})"


Expression = All | Global | Has | Compare | In | Not | Join


class Selector(Struct, frozen=True, gc=False):
    """A parsed selector."""

    expression: Expression

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if something with these labels is selected."""
        return self.expression.matches(labels)

    @property
    def canonical(self) -> str:
        """Calico's canonical text; selectors that differ only in spaces, quotes or order in sets share it."""
        return str(self.expression)

    @property
    def id(self) -> str:
        """Calico's identity of the selector's set: `s:` and base64url of SHA-224 over `s:` and the canonical text."""
        digest = hashlib.sha224(f"s:{self.canonical}".encode()).digest()
        return "s:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


@lru_cache(maxsize=4096)
def parse(text: str) -> Selector:
    """The selector that `text` spells. Raises SelectorError."""
    if not text.strip():
        return Selector(All())
    return Selector(_Parser(text).whole())


def _quoted(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'


_TOKEN = re.compile(
    r"""\s*(?:(?P<operator>==|!=|&&|\|\||[!(){},])
          |"(?P<double>[^"]*)"
          |'(?P<single>[^']*)'
          |(?P<word>[A-Za-z0-9_./-]+))""",
    re.VERBOSE,
)
_MOST_LABEL = 512


class _Token(Struct, frozen=True, gc=False):
    kind: Literal["operator", "string", "word", "end"]
    text: str
    column: int


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    end = len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise SelectorError(f"column {column}: {text[column - 1 :][:10]!r} begins no word, string or operator")
        kind = found.lastgroup or ""
        column = found.start(kind) + 1
        if kind in ("double", "single"):
            tokens.append(_Token("string", found[kind], column - 1))
        else:
            tokens.append(_Token("operator" if kind == "operator" else "word", found[kind], column))
        position = found.end()
    return [*tokens, _Token("end", "the end", end + 1)]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0

    def whole(self) -> Expression:
        found = self._joined("||")
        self._expect_kind("end", "&&, || or the end")
        return found

    def _joined(self, operator: Literal["&&", "||"]) -> Expression:
        operands = [self._operand(operator)]
        while self._accept(operator):
            operands.append(self._operand(operator))
        return operands[0] if len(operands) == 1 else Join(operator, tuple(operands))

    def _operand(self, operator: str) -> Expression:
        return self._joined("&&") if operator == "||" else self._unary()

    def _unary(self) -> Expression:
        if self._accept("!"):
            return Not(self._unary())
        if self._accept("("):
            found = self._joined("||")
            self._expect(")")
            return found
        word = self._expect_kind("word", "a label, has(), all(), global(), ! or (")
        if word.text in ("all", "global", "has") and self._accept("("):
            return self._call(word)
        if len(word.text) > _MOST_LABEL:
            raise SelectorError(f"column {word.column}: a label has {_MOST_LABEL} characters at most")
        return self._comparison(word.text)

    def _call(self, word: _Token) -> Expression:
        if word.text == "has":
            label = self._expect_kind("word", "a label")
            self._expect(")")
            return Has(label.text)
        self._expect(")")
        return All() if word.text == "all" else Global()

    def _comparison(self, label: str) -> Expression:
        token = self._take()
        match token.text if token.kind in ("operator", "word") else "":
            case "==" | "!=" as operator:
                return Compare(label, operator, self._string())
            case "contains":
                return Compare(label, "contains", self._string())
            case "starts" | "ends" as edge:
                self._expect("with")
                return Compare(label, "starts with" if edge == "starts" else "ends with", self._string())
            case "in":
                return In(label, self._set())
            case "not":
                self._expect("in")
                return In(label, self._set(), negated=True)
        raise self._error(token, "==, !=, in, not in, contains, starts with or ends with")

    def _set(self) -> tuple[str, ...]:
        self._expect("{")
        values: set[str] = set()
        if not self._accept("}"):
            values.add(self._string())
            while self._accept(","):
                values.add(self._string())
            self._expect("}")
        return tuple(sorted(values))

    def _string(self) -> str:
        return self._expect_kind("string", "a string in quotes").text

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _accept(self, text: str) -> bool:
        token = self._tokens[self._next]
        if token.kind not in ("operator", "word") or token.text != text:
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error(self._tokens[self._next], text)

    def _expect_kind(self, kind: str, expected: str) -> _Token:
        token = self._take()
        if token.kind != kind:
            raise self._error(token, expected)
        return token

    def _error(self, token: _Token, expected: str) -> SelectorError:
        return SelectorError(f"column {token.column}: {token.text!r} where {expected} was expected")
