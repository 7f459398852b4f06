"""The grammar of filters: from a text to a tree, or to an error that says where the text stops being a filter.

condition  = conjunction { OR conjunction }
conjunction = negation { AND negation }
negation   = NOT negation | predicate
predicate  = operand [ comparison operand | [NOT] IN ( literal, ... ) | [NOT] BETWEEN operand AND operand
                       | [NOT] LIKE text | [NOT] ILIKE text | IS [NOT] NULL ]
operand    = column | literal | function ( [ operand, ... ] ) | ( condition )
column     = name { . name }             a name is a word, or stands in "double quotes" or `backticks`
literal    = number | 'text' | TRUE | FALSE | DATE 'text' | TIMESTAMP 'text'
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn

from mcip.core.errors import ConfigError
from mcip.retrieval import filter_tree as tree

# A filter is written by a person, or by a program that names some ids; longer ones cost time and memory in the engine.
MAX_LENGTH: Final = 10_000
# The engine refuses expressions of more than about twenty levels.
MAX_DEPTH: Final = 12
# Numbers beyond 10^400 fit no column, and computing with them would take any amount of memory.
_MAX_EXPONENT: Final = 400
_EXCERPT: Final = 40

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?!\w)"
    r'|(?P<quoted>"(?:[^"]|"")+"|`(?:[^`]|``)+`)'
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<sign><=|>=|<>|!=|[=<>(),.\-])"
    r"|(?P<end>\Z))"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_KEYWORDS: Final = frozenset(("and", "or", "not", "in", "is", "null", "like", "ilike", "between", "true", "false"))


def fail(text: str, at: int, reason: str) -> NoReturn:
    """Raise an error that says why a filter is none, and shows the place.

    Raises:
        ConfigError: Always.
    """
    start = max(0, at - _EXCERPT)
    shown = "".join(sign if sign.isprintable() else " " for sign in text[start : at + _EXCERPT])
    raise ConfigError(f"The filter is wrong at character {at + 1}: {reason}.\n  {shown}\n  {' ' * (at - start)}^")


def parse_filter(text: str) -> tree.Node:
    """The tree of a filter.

    Args:
        text: A condition as in SQL, such as "year > 2015 AND label = 'mug'".

    Raises:
        ConfigError: The text is not wholly a filter; the message says where it stops being one.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"The filter has {len(text):,} characters: at most {MAX_LENGTH:,} are read.")
    if half := _SURROGATE.search(text):
        fail(text, half.start(), "this is half of a character")
    return _Parser(text).whole()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens, at = list[_Token](), 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            _explain_character(text, start)
        at = match.end()
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
    return tokens


def _explain_character(text: str, at: int) -> NoReturn:
    sign = text[at : at + 2]
    if sign[0] in "'\"`":
        fail(text, at, f"the quotation mark {sign[0]} is not closed")
    if sign in ("--", "/*"):
        fail(text, at, "comments are not allowed")
    if sign[0] == ";":
        fail(text, at, "a filter is one condition, without a semicolon")
    if sign[0].isdigit() or sign[0] == ".":
        fail(text, at, 'this is not a number; a name that starts with a digit stands in "double quotes"')
    fail(text, at, f"{sign[0]!r} has no meaning here; texts stand in 'single quotes', columns with odd names in "
         '"double quotes"')  # fmt: skip


class _Parser:
    """Reads one filter by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.position = 0
        self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def whole(self) -> tree.Node:
        if self.token.kind == "end":
            self.expected("a condition")
        node = self.condition()
        if self.token.kind != "end":
            self.expected("AND, OR or the end")
        return node

    def expected(self, what: str) -> NoReturn:
        if self.text.startswith("--", self.token.at):
            fail(self.text, self.token.at, "comments are not allowed")
        found = "the end" if self.token.kind == "end" else repr(self.token.text)
        fail(self.text, self.token.at, f"expected {what}, not {found}")

    def next(self) -> _Token:
        token = self.token
        self.position += 1
        return token

    def take(self, *words: str) -> str | None:
        """The keyword or sign that comes next, if it is one of these."""
        token = self.token
        if token.kind in ("word", "sign") and token.text.lower() in words:
            self.position += 1
            return token.text.lower()
        return None

    def need(self, word: str, what: str) -> None:
        if self.take(word) is None:
            self.expected(what)

    def deeper(self, read: Callable[[], tree.Node]) -> tree.Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            fail(self.text, self.token.at, f"conditions are nested more than {MAX_DEPTH} levels deep")
        node = read()
        self.depth -= 1
        return node

    def condition(self) -> tree.Node:
        return self.joined("or", lambda: self.joined("and", self.negation))

    def joined(self, operator: str, read: Callable[[], tree.Node]) -> tree.Node:
        at, operands = self.token.at, [read()]
        while self.take(operator):
            operands.append(read())
        return operands[0] if len(operands) == 1 else tree.Logical(operator, tuple(operands), at)

    def negation(self) -> tree.Node:
        at = self.token.at
        return tree.Not(self.deeper(self.negation), at) if self.take("not") else self.predicate()

    def predicate(self) -> tree.Node:
        left, at = self.operand(), self.token.at
        if operator := self.take(*tree.COMPARISONS, "!="):
            return tree.Comparison("<>" if operator == "!=" else operator, left, self.operand(), at)
        if self.take("is"):
            negated = self.take("not")
            self.need("null", "NULL or NOT NULL")
            return tree.Not(tree.IsNull(left, at), at) if negated else tree.IsNull(left, at)
        negated = self.take("not")
        word = self.take("in", "between", "like", "ilike")
        if word is None:
            if negated:
                self.expected("IN, BETWEEN, LIKE or ILIKE")
            return left
        node: tree.Node
        if word == "in":
            node = tree.In(left, self.items(), at)
        elif word == "between":
            low = self.operand()
            self.need("and", "AND and the upper bound")
            node = tree.Between(left, low, self.operand(), at)
        else:
            node = tree.Like(left, self.pattern(), word == "ilike", at)
        return tree.Not(node, at) if negated else node

    def items(self) -> tuple[tree.Literal, ...]:
        self.need("(", "a list in parentheses")
        items = [self.literal()]
        while self.take(","):
            items.append(self.literal())
        self.need(")", "a comma or a closing parenthesis")
        return tuple(items)

    def pattern(self) -> tree.Literal:
        if self.token.kind != "text":
            self.expected("a pattern in 'single quotes'")
        return self.literal()

    def operand(self) -> tree.Node:
        if self.take("("):
            node = self.deeper(self.condition)
            self.need(")", "AND, OR or a closing parenthesis")
            return node
        token, after = self.token, self.tokens[min(self.position + 1, len(self.tokens) - 1)]
        if token.kind == "word" and after.text == "(" and token.text.lower() not in _KEYWORDS:
            return self.call()
        is_name = token.kind == "quoted" or (token.kind == "word" and token.text.lower() not in _KEYWORDS)
        if is_name and not (token.text.lower() in ("date", "timestamp") and after.kind == "text"):
            return self.column()
        return self.literal()

    def call(self) -> tree.Node:
        token = self.next()
        self.next()
        arguments = list[tree.Node]()
        if self.token.text != ")":
            arguments.append(self.deeper(self.operand))
        while arguments and self.take(","):
            arguments.append(self.deeper(self.operand))
        self.need(")", "a comma or a closing parenthesis")
        return tree.Call(token.text.lower(), tuple(arguments), token.at)

    def column(self) -> tree.Node:
        at, path = self.token.at, [self.name()]
        while self.take("."):
            path.append(self.name())
        return tree.Column(tuple(path), at)

    def name(self) -> str:
        token = self.token
        if token.kind not in ("word", "quoted"):
            self.expected("a name")
        self.next()
        mark = token.text[0]
        return token.text[1:-1].replace(2 * mark, mark) if token.kind == "quoted" else token.text

    def literal(self) -> tree.Literal:
        at = self.token.at
        if word := self.take("true", "false"):
            return tree.Literal(word == "true", at=at)
        if (prefix := self.take("date", "timestamp")) and self.token.kind != "text":
            self.expected(f"a text such as '2024-05-01' after {prefix.upper()}")
        sign = "" if prefix else self.take("-") or ""
        token = self.token
        if token.kind == "number":
            self.next()
            return tree.Literal(self.number(sign + token.text, at), at=at)
        if token.kind == "text" and not sign:
            self.next()
            return tree.Literal(token.text[1:-1].replace("''", "'"), prefix or "", at)
        if token.text.lower() == "null":
            fail(self.text, token.at, "nothing equals NULL: write IS NULL or IS NOT NULL")
        return self.expected(
            "a number after -" if sign else "a value: a column, a number, a text in 'single quotes', TRUE or FALSE"
        )

    def number(self, text: str, at: int) -> Decimal:
        try:
            value = Decimal(text)
        except ArithmeticError:
            value = Decimal("Infinity")
        if not value:
            return Decimal(0)
        if not value.is_finite() or abs(value.adjusted()) > _MAX_EXPONENT:
            fail(self.text, at, "the number is too large or too small for any column")
        return value
