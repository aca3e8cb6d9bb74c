"""Protobuf's text format: its freedoms, and its typos told with line and column."""

from __future__ import annotations

import re

import pytest

from odtrain.errors import DataError
from odtrain.io.textproto import Message, Token, parse

EXAMPLE = "Write it well."


def read(tmp_path, text: str | bytes) -> Message:
    file = tmp_path / "file.config"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parse(file, EXAMPLE)


def shape(message: Message) -> list:
    """Names with the texts of scalars, or with the shape of messages."""
    return [
        (each.name, each.value.text if isinstance(each.value, Token) else shape(each.value))
        for each in message.fields
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: 1 b: 2", [("a", "1"), ("b", "2")], id="nothing between"),
        pytest.param("a: 1, b: 2; c: 3,", [("a", "1"), ("b", "2"), ("c", "3")], id="separators"),
        pytest.param(
            "a { b: 1 } c: { } d <>", [("a", [("b", "1")]), ("c", []), ("d", [])], id="messages"
        ),
        pytest.param("# all\na: 1 # rest\n#", [("a", "1")], id="comments"),
        pytest.param("\ufeffa: 1\r\nb: 2\r\n", [("a", "1"), ("b", "2")], id="BOM and CRLF"),
        pytest.param("a: 'x' \"y\"\n'z'", [("a", "xyz")], id="adjacent strings"),
        pytest.param(r"a: 'it\'s\x41\n\355\225\234\u00e9'", [("a", "it'sA\n한é")], id="escapes"),
        pytest.param("a: [1, 2] b: []", [("a", "1"), ("a", "2")], id="list"),
        pytest.param(
            "a [{ b: 1 }, <b: 2>]",
            [("a", [("b", "1")]), ("a", [("b", "2")])],
            id="messages in a list",
        ),
        pytest.param(
            "a: .04 b: 1e-8 c: -2.5E+3 d: 0x1F e: 1.f",
            [("a", ".04"), ("b", "1e-8"), ("c", "-2.5E+3"), ("d", "0x1F"), ("e", "1.f")],
            id="numbers",
        ),
        pytest.param(
            "a: -inf b: nan c: RELU_6", [("a", "-inf"), ("b", "nan"), ("c", "RELU_6")], id="words"
        ),
        pytest.param(
            "[foo.bar/baz.Ext] { a: 1 }", [("[foo.bar/baz.Ext]", [("a", "1")])], id="extension"
        ),
        pytest.param("", [], id="nothing"),
    ],
)
def test_the_freedoms_of_the_format(tmp_path, text, expected):
    assert shape(read(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a {\n  b: 1\n", ':1:3: the "{" is never closed.', id="not closed"),
        pytest.param(
            "a { }\n}", ':2:1: "}" closes nothing: one too many, here or above.', id="too many"
        ),
        pytest.param(
            "a { b: 1 >",
            ':1:10: expected the name of a field or "}", found ">".',
            id="other bracket",
        ),
        pytest.param(
            "a:\nb { }", ':1:1: a has no value: expected a value, found "b".', id="no value"
        ),
        pytest.param(
            "a: }", ':1:1: a has no value: expected a value, found "}".', id="no value, closed"
        ),
        pytest.param(
            "a",
            ":1:1: a has no value: expected { or a value, found the end of the file.",
            id="only a name",
        ),
        pytest.param("a: 'x\nb: 1", ":1:4: the quote ' is not closed on its line.", id="quote"),
        pytest.param("a: [1 2]", ':1:7: expected "," or "]", found "2".', id="list"),
        pytest.param(
            "a: 1\n 5: 2", ':2:2: expected the name of a field, found "5".', id="number as name"
        ),
        pytest.param("a = 1", ':1:3: unexpected "=".', id="equals"),
    ],
)
def test_a_typo_is_told_with_its_place(tmp_path, text, said):
    with pytest.raises(DataError, match=f"^{re.escape(f'{tmp_path}/file.config{said}')}\n  Write"):
        read(tmp_path, text)


def test_curly_quotes_are_named(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path, "model {\n  type: \u201cssd\u201d\n}")
    assert str(error.value) == (
        f"{tmp_path}/file.config:2:9: curly quote \u201c.\n  Use straight quotes: name: 'cat'"
    )


def test_messages_nested_without_end_are_refused(tmp_path):
    with pytest.raises(DataError, match="more than 100 messages within each other"):
        read(tmp_path, "a {" * 5000)


def test_what_is_not_text_is_refused(tmp_path):
    with pytest.raises(DataError) as error:
        read(tmp_path, b"\xff\xfe\x00")
    assert str(error.value) == (
        f"{tmp_path}/file.config: cannot be read: it is not UTF-8.\n  Save it as UTF-8."
    )


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError) as error:
        parse(tmp_path / "none.config", EXAMPLE)
    assert str(error.value) == (
        f"{tmp_path}/none.config: cannot be read: No such file or directory.\n"
        "  Give a file that is there and may be read."
    )


@pytest.mark.parametrize(
    ("text", "ask", "said"),
    [
        pytest.param(
            "a: 1\na: 2",
            lambda m: m.whole("a"),
            ":2:1: a is there twice, first in line 1.\n  Remove one of the two.",
            id="twice",
        ),
        pytest.param(
            "a: x", lambda m: m.text("a"), ":1:4: a needs quotes, found \"x\".\n  a: 'x'", id="text"
        ),
        pytest.param(
            "a: '1'",
            lambda m: m.whole("a"),
            ':1:4: a is a whole number without quotes, not "1".\n  a: 1',
            id="whole",
        ),
        pytest.param(
            "a: 1.5",
            lambda m: m.whole("a"),
            ':1:4: a is a whole number without quotes, not "1.5".\n  a: 1',
            id="fraction",
        ),
        pytest.param(
            "a: x",
            lambda m: m.number("a"),
            ':1:4: a is a number without quotes, not "x".\n  a: 0.5',
            id="number",
        ),
        pytest.param(
            "a: yes",
            lambda m: m.truth("a"),
            ':1:4: a is true or false, not "yes".\n  a: true',
            id="truth",
        ),
        pytest.param(
            "a: 'X'", lambda m: m.word("a"), ":1:4: a takes no quotes.\n  a: X", id="word"
        ),
        pytest.param(
            "a: 1",
            lambda m: m.message("a"),
            ':1:4: a is a message: expected { after it, found "1".\n  Write it well.',
            id="message",
        ),
        pytest.param(
            "a { }",
            lambda m: m.number("a"),
            ":1:1: a is one value, not a message.\n  Write it well.",
            id="scalar",
        ),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_place(tmp_path, text, ask, said):
    message = read(tmp_path, text)
    with pytest.raises(DataError) as error:
        ask(message)
    assert str(error.value) == f"{tmp_path}/file.config{said}"


def test_values_are_read_by_their_kind(tmp_path):
    message = read(tmp_path, "w: 010 h: 0x10 n: .5 f: 2.f t: true u: 0 s: 'x' e: BOTH m { k: 1 }")
    assert (message.whole("w"), message.whole("h")) == (8, 16)
    assert (message.number("n"), message.number("f"), message.number("w")) == (0.5, 2.0, 10.0)
    assert (message.truth("t"), message.truth("u"), message.truth("none")) == (True, False, None)
    assert (message.text("s"), message.word("e"), message.text("none")) == ("x", "BOTH", None)
    inner = message.message("m")
    assert inner is not None
    assert inner.whole("k") == 1
    assert [each.name for each in message.left()] == []


def test_what_nobody_asked_for_is_left(tmp_path):
    message = read(tmp_path, "a { b: 1 c { d: 2 } } e: 3")
    inner = message.message("a")
    assert inner is not None
    assert inner.whole("b") == 1
    assert [(each.name, each.token.line) for each in message.left()] == [("c", 1), ("e", 1)]
