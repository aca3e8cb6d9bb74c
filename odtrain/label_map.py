"""Label maps: which id stands for which class, in the text format of `label_map.pbtxt`.

    item {
      id: 1
      name: 'raccoon'
    }

The reader takes every freedom that protobuf's text format gives (any order, `item: {`, separators,
comments, both quotes, adjacent strings, escapes, unknown fields) and says of a typo where it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odtrain.errors import DataError

TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[A-Za-z_][\w.]*)
    |(?P<number>-?(?:0[xX][0-9a-fA-F]+|[0-9.][\w.+-]*))
    |(?P<mark>[{}<>\[\]:;,])""",
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\([0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
CURLY_QUOTES = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u00b4`"
CLOSES = {"{": "}", "<": ">"}
PLACEHOLDER = "???"
"""First line of the label files that count the background in, as the published COCO ones do."""


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
class Item:
    """One class of a label map, and the line it begins on."""

    id: int
    name: str
    line: int


class Parser:
    """Reads the tokens of one file from first to last."""

    def __init__(self, file: Path, text: str) -> None:
        """Cut `text` into tokens; `file` is for error messages.

        Raises:
            DataError: a character that no token begins with.
        """
        self.file = file
        self.tokens = list(self._tokenize(text))
        self.position = 0

    def _fail(self, token: Token, problem: str, remedy: str = "") -> DataError:
        where = f"{self.file}:{token.line}:{token.column}"
        return DataError(where, problem, remedy or "Each class is: item { id: 1 name: 'cat' }")

    def _tokenize(self, text: str) -> Iterator[Token]:
        position, line, line_start = 0, 1, 0
        while position < len(text):
            column = position - line_start + 1
            match = TOKEN.match(text, position)
            if match is None:
                raise self._unreadable(Token("", text[position], line, column))
            kind = str(match.lastgroup)
            if kind != "space":
                yield Token(kind, match.group(), line, column)
            position = match.end()
            if newlines := match.group().count("\n"):
                line += newlines
                line_start = text.rindex("\n", 0, position) + 1
        end = text.rstrip()
        yield Token("end", "", end.count("\n") + 1, len(end) - end.rfind("\n"))

    def _unreadable(self, token: Token) -> DataError:
        if token.text in CURLY_QUOTES:
            return self._fail(
                token, f"curly quote {token.text}.", "Use straight quotes: name: 'cat'"
            )
        if token.text in "'\"":
            return self._fail(token, f"the quote {token.text} is not closed on its line.")
        return self._fail(token, f"unexpected {token}.")

    def _take(self) -> Token:
        token = self.tokens[self.position]
        self.position += token.kind != "end"
        return token

    def _accept(self, *texts: str) -> Token | None:
        token = self.tokens[self.position]
        return self._take() if token.kind == "mark" and token.text in texts else None

    def items(self) -> Iterator[Item]:
        """The items in the order of the file.

        Raises:
            DataError: a typo, with line and column.
        """
        while (token := self._take()).kind != "end":
            if token.text != "item":
                raise self._fail(token, f'expected "item", found {token}.')
            self._accept(":")
            opening = self._accept("{", "<")
            if opening is None:
                raise self._fail(self._take(), 'expected "{" after "item".')
            yield self._item(token, CLOSES[opening.text])
            self._accept(";", ",")

    def _item(self, start: Token, closing: str) -> Item:
        fields: dict[str, Token | str] = {}
        while self._accept(closing) is None:
            field = self._take()
            if field.kind != "word":
                raise self._fail(
                    field, f'expected a field such as "name" or "{closing}", found {field}.'
                )
            self._accept(":")
            if field.text in ("name", "display_name"):
                fields[field.text] = self._string(field)
            elif field.text == "id":
                fields["id"] = self._take()
            else:
                self._skip()
            self._accept(";", ",")
        return self._complete(start, fields)

    def _complete(self, start: Token, fields: dict[str, Token | str]) -> Item:
        name = fields.get("display_name") or fields.get("name")
        number = fields.get("id")
        if not isinstance(name, str):
            raise self._fail(start, 'this item has no "name".')
        if not isinstance(number, Token):
            raise self._fail(start, f'the item "{name}" has no "id".')
        if number.kind != "number" or not re.fullmatch(r"-?\d+", number.text):
            raise self._fail(number, f"an id is a whole number without quotes, not {number.text}.")
        return Item(int(number.text), " ".join(name.split()), start.line)

    def _string(self, field: Token) -> str:
        parts = []
        while self.tokens[self.position].kind == "string":
            parts.append(self._take().text[1:-1])
        if not parts:
            token = self._take()
            raise self._fail(token, f"{field.text} needs quotes, found {token}.", "name: 'cat'")
        return unescape("".join(parts))

    def _skip(self) -> None:
        """Pass over the value of a field that no one here needs: a scalar, a list or a message."""
        opening = self._accept("{", "<", "[")
        if opening is None:
            if self._take().kind in ("mark", "end"):
                raise self._fail(self.tokens[self.position - 1], "a value is missing.")
            while self.tokens[self.position].kind == "string":
                self._take()
            return
        depth = 1
        while depth:
            token = self._take()
            if token.kind == "end":
                raise self._fail(opening, f"the {opening} is never closed.")
            depth += (token.text in "{<[") - (token.text in "}>]") if token.kind == "mark" else 0


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


def read_label_map(file: Path) -> tuple[str, ...]:
    """The class names by id: the first has id 1.

    Ids that the map leaves out (COCO's does) are filled with `class N`; a background item with id 0
    is passed over.

    Raises:
        DataError: the file cannot be read, has a typo (told with line and column), or gives an id
            or a name twice.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            file, f"cannot be read: {error}.", "Give a label map: data.label_map="
        ) from None
    names: dict[int, Item] = {}
    for item in Parser(file, text).items():
        if item.id == 0 and item.name.lower() == "background":
            continue
        _refuse_clash(file, item, names)
        names[item.id] = item
    if not names:
        raise DataError(file, "holds no item.", "Each class is: item { id: 1 name: 'cat' }")
    if max(names) > 2 * len(names) + 10:
        raise DataError(
            file, f"has {len(names)} items but ids up to {max(names)}.", "Number them from 1."
        )
    return tuple(
        names[number].name if number in names else f"class {number}"
        for number in range(1, max(names) + 1)
    )


def read_class_names(file: Path) -> tuple[str, ...]:
    """The class names in a label map, or in a text file with one name a line, the first id 1.

    A text file may begin with `PLACEHOLDER`: then the second line is id 1.

    Raises:
        DataError: the file cannot be read or is wrong.
    """
    if file.suffix.lower() != ".txt":
        return read_label_map(file)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, f"cannot be read: {error}.", "Give a text file of names.") from None
    names = tuple(line.strip() for line in lines if line.strip())
    return names[1:] if names[:1] == (PLACEHOLDER,) else names


def _refuse_clash(file: Path, item: Item, earlier: dict[int, Item]) -> None:
    where = f"{file}:{item.line}"
    if item.id < 1:
        raise DataError(
            where, f'"{item.name}" has id {item.id}.', "Number the classes from 1; 0 is background."
        )
    if item.id in earlier:
        other = earlier[item.id]
        problem = f'"{item.name}" has id {item.id}, as "{other.name}" in line {other.line}.'
        raise DataError(where, problem, "Give each class an id of its own.")
    if item.name in {other.name for other in earlier.values()}:
        raise DataError(where, f'"{item.name}" is there twice.', "Remove one of the two items.")


def label_map_text(class_names: tuple[str, ...]) -> str:
    """The label map that gives `class_names` the ids 1, 2, ..."""
    quoted = [name.replace("\\", "\\\\").replace("'", "\\'") for name in class_names]
    return "".join(
        f"item {{\n  id: {number}\n  name: '{name}'\n}}\n"
        for number, name in enumerate(quoted, start=1)
    )
