"""Protocol buffers' text format, read without the message types: label maps, pipeline.config.

The reader takes every freedom that the format gives (any order, `item: {`, separators or none, comments,
`{ }` or `< >`, both quotes, adjacent strings, escapes, lists, a byte order mark, CRLF) and says of a typo
in which line and column it is. Which fields there may be, only the caller knows: it asks for them by
name, and `Message.left` tells what nobody asked for.

Source of the grammar: protobuf.dev, "Text Format Language Specification".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from odtrain.errors import DataError, taken_from

TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>-?[A-Za-z_][\w.]*)
    |(?P<number>-?(?:0[xX][0-9a-fA-F]+|[0-9.][\w.]*(?:(?<=[eE])[+-]?\d+)?[fF]?))
    |(?P<mark>[{}<>\[\]:;,/])""",
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
CURLY_QUOTES = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u00b4`"
CLOSES = {"{": "}", "<": ">"}
DEEPEST = 100
"""Messages within messages; protobuf's own limit."""
TRUTHS = {"true": True, "t": True, "True": True, "1": True}
FALSEHOODS = {"false": False, "f": False, "False": False, "0": False}


@dataclass(frozen=True)
class Token:
    """A piece of the text, and where it begins (both 1-based)."""

    kind: str
    text: str
    line: int
    column: int

    def __str__(self) -> str:
        """The token as an error message shows it."""
        return f'"{self.text}"' if self.text else "the end of the file"


@dataclass(frozen=True)
class Field:
    """A name and its value.

    Attributes:
        token: the name, and where it is.
        value: a message, or the token of a scalar; adjacent strings are joined and without quotes.
    """

    token: Token
    value: Message | Token

    @property
    def name(self) -> str:
        """As it is written."""
        return self.token.text


@dataclass
class Message:
    """Fields in the order of the text.

    Attributes:
        reader: of the text, for error messages.
        start: where it begins.
        fields: all of them, repeated ones several times.
        asked: names that a caller asked for.
    """

    reader: Reader
    start: Token
    fields: list[Field] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def all(self, name: str) -> list[Field]:
        """Every field of that name; none if there is none."""
        self.asked.add(name)
        return [each for each in self.fields if each.name == name]

    def one(self, name: str) -> Field | None:
        """The only field of that name, or None.

        Raises:
            DataError: there are several.
        """
        found = self.all(name)
        if len(found) > 1:
            first, second, *_ = found
            problem = f"{name} is there twice, first in line {first.token.line}."
            raise self.reader.fail(second.token, problem, "Remove one of the two.")
        return found[0] if found else None

    def message(self, name: str) -> Message | None:
        """The message of that name, or None."""
        found = self.one(name)
        return None if found is None else self._message(found)

    def messages(self, name: str) -> list[Message]:
        """Every message of that name."""
        return [self._message(found) for found in self.all(name)]

    def _message(self, found: Field) -> Message:
        if isinstance(found.value, Token):
            problem = f"{found.name} is a message: expected {{ after it, found {found.value}."
            raise self.reader.fail(found.value, problem)
        return found.value

    def text(self, name: str) -> str | None:
        """The string of that name, or None.

        Raises:
            DataError: it has no quotes.
        """
        found = self.one(name)
        return None if found is None else self.text_of(found)

    def text_of(self, found: Field) -> str:
        """The string that a field holds."""
        value = self._scalar(found)
        if value.kind != "string":
            problem = f"{found.name} needs quotes, found {value}."
            raise self.reader.fail(value, problem, f"{found.name}: '{value.text}'")
        return value.text

    def word(self, name: str) -> str | None:
        """The name of a choice, without quotes, or None."""
        found = self.one(name)
        if found is None:
            return None
        value = self._scalar(found)
        if value.kind == "string":
            raise self.reader.fail(value, f"{name} takes no quotes.", f"{name}: {value.text}")
        return value.text

    def truth(self, name: str) -> bool | None:
        """`true` or `false`, or None where it is not there."""
        found = self.one(name)
        if found is None:
            return None
        value = self._scalar(found)
        if value.kind == "string" or value.text not in TRUTHS | FALSEHOODS:
            problem = f"{name} is true or false, not {value}."
            raise self.reader.fail(value, problem, f"{name}: true")
        return value.text in TRUTHS

    def whole(self, name: str) -> int | None:
        """The whole number of that name, or None."""
        found = self.one(name)
        return None if found is None else self.whole_of(found)

    def whole_of(self, found: Field) -> int:
        """The whole number that a field holds."""
        value = self._scalar(found)
        try:
            if value.kind == "number":
                octal = re.fullmatch(r"-?0[0-7]+", value.text)
                return int(value.text, 8 if octal else 0)
        except ValueError:
            pass
        problem = f"{found.name} is a whole number without quotes, not {value}."
        raise self.reader.fail(value, problem, f"{found.name}: 1")

    def number(self, name: str) -> float | None:
        """The number of that name, or None."""
        found = self.one(name)
        return None if found is None else self.number_of(found)

    def number_of(self, found: Field) -> float:
        """The number that a field holds."""
        value = self._scalar(found)
        try:
            if value.kind != "string":
                return float(value.text.rstrip("fF"))
        except ValueError:
            pass
        problem = f"{found.name} is a number without quotes, not {value}."
        raise self.reader.fail(value, problem, f"{found.name}: 0.5")

    def _scalar(self, found: Field) -> Token:
        if isinstance(found.value, Message):
            raise self.reader.fail(found.token, f"{found.name} is one value, not a message.")
        return found.value

    def left(self) -> Iterator[Field]:
        """Fields, at any depth, that nobody asked for, in the order of the text."""
        for each in self.fields:
            if each.name not in self.asked:
                yield each
            elif isinstance(each.value, Message):
                yield from each.value.left()


class Reader:
    """Reads the tokens of one text from first to last."""

    def __init__(self, file: Path, text: str, example: str) -> None:
        """Cut `text` into tokens; `file` and `example`, of how to write it, are for error messages.

        Raises:
            DataError: a character that no token begins with.
        """
        self.file = file
        self.example = example
        self.tokens = list(self._tokenize(text))
        self.position = 0

    def fail(self, token: Token, problem: str, remedy: str = "") -> DataError:
        """The error to raise about a place in the text."""
        where = f"{self.file}:{token.line}:{token.column}"
        return DataError(where, problem, remedy or self.example)

    def _tokenize(self, text: str) -> Iterator[Token]:
        position, line, start = 0, 1, 0
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise self._unreadable(Token("", text[position], line, position - start + 1))
            kind, found = str(match.lastgroup), match.group()
            if kind != "space":
                yield Token(kind, found, line, position - start + 1)
            line += found.count("\n")
            start = start if "\n" not in found else position + found.rindex("\n") + 1
            position = match.end()
        end = text.rstrip()
        yield Token("end", "", end.count("\n") + 1, len(end) - end.rfind("\n"))

    def _unreadable(self, token: Token) -> DataError:
        if token.text in CURLY_QUOTES:
            return self.fail(
                token, f"curly quote {token.text}.", "Use straight quotes: name: 'cat'"
            )
        if token.text in "'\"":
            return self.fail(token, f"the quote {token.text} is not closed on its line.")
        return self.fail(token, f"unexpected {token}.")

    def _take(self) -> Token:
        token = self.tokens[self.position]
        self.position += token.kind != "end"
        return token

    def _next(self) -> Token:
        return self.tokens[self.position]

    def _accept(self, *texts: str) -> Token | None:
        token = self._next()
        return self._take() if token.kind == "mark" and token.text in texts else None

    def message(self) -> Message:
        """The whole text as one message.

        Raises:
            DataError: a typo, with line and column.
        """
        message = Message(self, self._next())
        self._fields(message, None, 0)
        return message

    def _fields(self, message: Message, opening: Token | None, depth: int) -> None:
        """Read the fields of a message up to what closes it."""
        if opening is not None and depth > DEEPEST:
            raise self.fail(opening, f"more than {DEEPEST} messages within each other.")
        while True:
            token = self._take()
            if token.kind == "end" and opening is None:
                return
            if token.kind == "end" and opening is not None:
                raise self.fail(opening, f"the {opening} is never closed.")
            if opening is not None and token.text == CLOSES[opening.text]:
                return
            name = self._name(token, opening)
            message.fields += self._values(name, depth)
            self._accept(";", ",")

    def _name(self, token: Token, opening: Token | None) -> Token:
        """The name that begins with `token`: a word, or an extension in brackets."""
        if token.kind == "word":
            return token
        if token.text == "[" and token.kind == "mark":
            words = []
            while (part := self._take()).text != "]" and part.kind in ("word", "mark"):
                words.append(part.text)
            return Token("word", f"[{''.join(words)}]", token.line, token.column)
        if token.text in ("}", ">") and opening is None:
            raise self.fail(token, f"{token} closes nothing: one too many, here or above.")
        closing = "" if opening is None else f' or "{CLOSES[opening.text]}"'
        raise self.fail(token, f"expected the name of a field{closing}, found {token}.")

    def _values(self, name: Token, depth: int) -> list[Field]:
        """What stands behind a name: one value, or a list of them."""
        colon = self._accept(":")
        if self._accept("[") is None:
            return [Field(name, self._value(name, colon, depth))]
        values: list[Field] = []
        while self._accept("]") is None:
            values.append(Field(name, self._value(name, colon, depth)))
            if self._accept(",") is None and self._next().text != "]":
                token = self._next()
                raise self.fail(token, f'expected "," or "]", found {token}.')
        return values

    def _value(self, name: Token, colon: Token | None, depth: int) -> Message | Token:
        opening = self._accept("{", "<")
        if opening is not None:
            message = Message(self, name)
            self._fields(message, opening, depth + 1)
            return message
        token = self._next()
        if token.kind == "string":
            return self._string()
        after = self.tokens[min(self.position + 1, len(self.tokens) - 1)]
        missing = token.kind in ("mark", "end") or (
            token.kind == "word" and after.kind == "mark" and after.text in "{<:"
        )
        if missing:
            wants = "a value" if colon else "{ or a value"
            raise self.fail(name, f"{name.text} has no value: expected {wants}, found {token}.")
        return self._take()

    def _string(self) -> Token:
        """Adjacent strings, joined."""
        first, parts = self._next(), []
        while self._next().kind == "string":
            parts.append(unescape(self._take().text[1:-1]))
        return Token("string", "".join(parts), first.line, first.column)


def parse(file: Path, example: str) -> Message:
    """The message that a file holds.

    Args:
        file: UTF-8, with or without a byte order mark.
        example: how such a file is written, the remedy of errors that have no better one.

    Raises:
        DataError: the file cannot be read, or has a typo (told with line and column).
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            remedy = "Give a file that is there and may be read."
            raise DataError(
                file, f"cannot be read{taken_from(file)}: {error.strerror}.", remedy
            ) from None
        raise DataError(file, "cannot be read: it is not UTF-8.", "Save it as UTF-8.") from None
    return Reader(file, text, example).message()


def unescape(text: str) -> str:
    """Undo C escapes; octal and hexadecimal ones are bytes of UTF-8."""

    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] in "01234567":
            return chr(int(code, 8) & 0xFF)
        if code[0] in "xX" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code[0] in "uU" and len(code) > 1:
            return _utf8(int(code[1:], 16)).decode("latin-1")
        return LETTERS.get(code, code)

    if "\\" not in text:
        return text
    as_bytes = text.encode("utf-8").decode("latin-1")
    return ESCAPE.sub(replace, as_bytes).encode("latin-1").decode("utf-8", errors="replace")


def _utf8(code: int) -> bytes:
    """The character of a number in UTF-8; ? if no file can hold it."""
    return chr(code).encode("utf-8", "replace") if code <= sys.maxunicode else b"?"
