"""Calico's selector language: a parser, an evaluator, the canonical text and the identity made of it.

    expression = and { "||" and }          and = unary { "&&" unary }
    unary      = { "!" } ( "(" expression ")" | "all(" ")" | "global(" ")" | "has(" label ")" | comparison )
    comparison = label ( "==" | "!=" | "contains" | "starts" "with" | "ends" "with" ) string
               | label [ "not" ] "in" "{" [ string { "," string } [ "," ] ] "}"
    string     = '"' ... '"' | "'" ... "'"      no escapes
    label      = [A-Za-z0-9_./-]+               at most 512 characters

Blanks and tabs may stand between all of these, and need not: `startswith` is `starts with`; `has (a)` is no `has(a)`.
`!=` and `not in` also match where the label is absent. The empty selector is `all()`. `!!x` is `x`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from calipy.resources.metadata import Problem


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
    if not text.strip(_BLANKS):
        return Selector(All())
    return Selector(_Parser(text).whole())


MOST_CHARACTERS = 1024
"""Of a selector in an object, as in Calico's schemas."""


def selector_problems(field: str, text: str) -> Iterator[Problem]:
    """What is wrong with the selector in a field of an object; an empty one is none."""
    if len(text) > MOST_CHARACTERS:
        yield Problem(field, text, f"has {len(text)} characters", f"{MOST_CHARACTERS} at most")
        return
    try:
        parse(text)
    except SelectorError as error:
        yield Problem(field, text, str(error), "see Calico's selector syntax")


def _quoted(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'


_BLANKS = " \t"
_TOKEN = re.compile(
    r"""[ \t]*(?:(?P<call>(?:has|all|global)\()
          |(?P<operator>==|!=|&&|\|\||[!(){},])
          |"(?P<double>[^"]*)"
          |'(?P<single>[^']*)'
          |(?P<word>[A-Za-z0-9_./-]+))""",
    re.VERBOSE,
)
_COMPARISON = re.compile(
    r"[ \t]*(?:(?P<contains>contains)|(?P<edge>starts|ends)[ \t]*with|(?P<negated>not)?[ \t]*(?P<set>in))"
)
"""What may stand behind a label, as far as it is made of letters: Calico needs no blank behind it."""
_MOST_LABEL = 512
_MOST_DEPTH = 50
"""Parentheses in parentheses; what is deeper would be a slip, and deep recursion is no way to find out."""


class _Token(Struct, frozen=True, gc=False):
    kind: Literal["call", "operator", "string", "word", "comparison", "end"]
    text: str
    column: int


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip(_BLANKS))
    while position < end:
        token, position = _token(text, position, after_label=bool(tokens) and tokens[-1].kind == "word")
        tokens.append(token)
    return [*tokens, _Token("end", "the end", end + 1)]


def _token(text: str, position: int, *, after_label: bool) -> tuple[_Token, int]:
    if after_label and (comparison := _COMPARISON.match(text, position)):
        words = comparison["contains"] or ("not in" if comparison["negated"] else comparison["set"])
        name = f"{comparison['edge']} with" if comparison["edge"] else words
        column = comparison.end() - len(comparison[0].lstrip(_BLANKS)) + 1
        return _Token("comparison", name, column), comparison.end()
    found = _TOKEN.match(text, position)
    if found is None:
        rest = text[position:].lstrip(_BLANKS)
        column = len(text) - len(rest) + 1
        problem = "is a string without its end" if rest[0] in "\"'" else "begins no word, string or operator"
        raise SelectorError(f"column {column}: {rest[:10]!r} {problem}")
    kind = found.lastgroup or ""
    column = found.start(kind) + 1
    match kind:
        case "double" | "single":
            return _Token("string", found[kind], column - 1), found.end()
        case "call":
            return _Token("call", found[kind], column), found.end()
        case "operator":
            return _Token("operator", found[kind], column), found.end()
    return _Token("word", found[kind], column), found.end()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        found = self._any()
        self._expect_kind("end", "&&, || or the end")
        return found

    def _any(self) -> Expression:
        operands = [self._all()]
        while self._accept("||"):
            operands.append(self._all())
        return operands[0] if len(operands) == 1 else Join("||", tuple(operands))

    def _all(self) -> Expression:
        operands = [self._unary()]
        while self._accept("&&"):
            operands.append(self._unary())
        return operands[0] if len(operands) == 1 else Join("&&", tuple(operands))

    def _unary(self) -> Expression:
        negated = False
        while self._accept("!"):
            negated = not negated
        found = self._operand()
        return Not(found) if negated else found

    def _operand(self) -> Expression:
        if self._accept("("):
            return self._nested()
        token = self._take()
        if token.kind == "call":
            return self._call(token)
        if token.kind != "word":
            raise self._error(token, "a label, has(), all(), global(), ! or (")
        return self._comparison(self._label(token))

    def _nested(self) -> Expression:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            column = self._tokens[self._next - 1].column
            raise SelectorError(f"column {column}: more than {_MOST_DEPTH} parentheses are open")
        found = self._any()
        self._expect(")")
        self._depth -= 1
        return found

    def _call(self, token: _Token) -> Expression:
        if token.text == "has(":
            label = self._label(self._expect_kind("word", "a label"))
            self._expect(")")
            return Has(label)
        self._expect(")")
        return All() if token.text == "all(" else Global()

    def _label(self, token: _Token) -> str:
        if len(token.text) > _MOST_LABEL:
            raise SelectorError(f"column {token.column}: a label has {_MOST_LABEL} characters at most")
        return token.text

    def _comparison(self, label: str) -> Expression:
        token = self._take()
        match token.text if token.kind in ("operator", "comparison") else "":
            case "==" | "!=" | "contains" | "starts with" | "ends with" as operator:
                return Compare(label, operator, self._string())
            case "in":
                return In(label, self._set())
            case "not in":
                return In(label, self._set(), negated=True)
        raise self._error(token, "==, !=, in, not in, contains, starts with or ends with")

    def _set(self) -> tuple[str, ...]:
        self._expect("{")
        values: set[str] = set()
        while self._tokens[self._next].kind == "string":
            values.add(self._take().text)
            if not self._accept(","):
                break
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
        if token.kind != "operator" or token.text != text:
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
