from __future__ import annotations

import re

import pytest

from odtrain.errors import DataError
from odtrain.labels.label_map import label_map_text, read_class_names, read_label_map


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("item {\n  id: 1\n  name: 'raccoon'\n}", ("raccoon",), id="tutorial"),
        pytest.param(
            'item: { name: "b", id: 2; } item { id: 1 name: "a" };', ("a", "b"), id="separators"
        ),
        pytest.param("\ufeffitem {\r\n id: 1\r\n name: 'a'\r\n}\r\n", ("a",), id="BOM and CRLF"),
        pytest.param("# all\nitem < id: 1 # one\n name: 'it''s' >", ("its",), id="comments"),
        pytest.param(r"item { id: 1 name: '\355\225\234' }", ("한",), id="octal UTF-8"),
        pytest.param("item { id: 1 name: 'Köter' }", ("Köter",), id="raw UTF-8"),
        pytest.param(r'item { id: 1 name: "a\"b" }', ('a"b',), id="escaped quote"),
        pytest.param(
            "item { id: 1 name: '/m/01' display_name: 'cat' }", ("cat",), id="display name"
        ),
        pytest.param(
            "item { id: 1 name: 'a' ancestor_ids: ['x', 'y'] keypoints { id: 7 label: 'k' } "
            "frequency: FREQUENT instance_count: -3 }",
            ("a",),
            id="fields of other programs",
        ),
        pytest.param(
            "item { id: 0 name: 'background' } item { id: 1 name: 'a' }", ("a",), id="background"
        ),
        pytest.param(
            "item { id: 1 name: 'a' } item { id: 3 name: 'c' }", ("a", "class 2", "c"), id="gap"
        ),
    ],
)
def test_a_label_map_is_read(tmp_path, text, expected):
    file = tmp_path / "label_map.pbtxt"
    file.write_bytes(text.encode("utf-8"))
    assert read_label_map(file) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "item {\n  id: 1\n  name: \u2018raccoon\u2019\n}",
            ":3:9: curly quote \u2018.\n  Use straight quotes: name: 'cat'",
            id="curly quote",
        ),
        pytest.param(
            "item { id: 1 name: raccoon }",
            ":1:20: name needs quotes, found \"raccoon\".\n  name: 'raccoon'",
            id="no quotes",
        ),
        pytest.param(
            "item { id: '1' name: 'a' }",
            ':1:12: id is a whole number without quotes, not "1".\n  id: 1',
            id="quoted id",
        ),
        pytest.param(
            "item {\n id: 1\n name: 'a\n}",
            ":3:8: the quote ' is not closed on its line.\n"
            "  Each class is: item { id: 1 name: 'cat' }",
            id="open quote",
        ),
        pytest.param(
            "item { id: 1 name: 'a'\n# no more",
            ":1:6: the \"{\" is never closed.\n  Each class is: item { id: 1 name: 'cat' }",
            id="not closed",
        ),
        pytest.param(
            "items { id: 1 name: 'a' }",
            ':1:1: expected "item", found "items".\n  Each class is: item { id: 1 name: \'cat\' }',
            id="wrong word",
        ),
        pytest.param(
            "item { id: 1 }",
            ":1:1: this item has no \"name\".\n  Each class is: item { id: 1 name: 'cat' }",
            id="no name",
        ),
        pytest.param(
            "item { id: 0 name: 'a' }",
            ':1: "a" has id 0.\n  Number the classes from 1; 0 is background.',
            id="id 0",
        ),
        pytest.param(
            "item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }",
            ':2: "b" has id 1, as "a" in line 1.\n  Give each class an id of its own.',
            id="id twice",
        ),
        pytest.param(
            "item { id: 1 name: 'a' }\nitem { id: 2 name: 'a' }",
            ':2: "a" is there twice.\n  Remove one of the two items.',
            id="name twice",
        ),
        pytest.param(
            "item {\n id: 1\n name: 'cup'\n item {\n id: 2\n name: 'pen'\n}\n}",
            ':4:2: this item stands within the item of line 1.\n  Close that one first, with "}".',
            id="item in item",
        ),
        pytest.param(
            "item { id: 1 name: 'a' nmae: 'b' }",
            ':1:24: unknown field "nmae".\n  An item has name, id, display_name, keypoints, ancestor_ids, '
            "descendant_ids, frequency, instance_count.",
            id="unknown field",
        ),
        pytest.param(
            "# nothing",
            ": holds no item.\n  Each class is: item { id: 1 name: 'cat' }",
            id="no item",
        ),
    ],
)
def test_a_typo_is_told_with_its_place(tmp_path, text, expected):
    file = tmp_path / "label_map.pbtxt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"^{re.escape(str(file) + expected)}$"):
        read_label_map(file)


def test_what_is_written_is_read_back(tmp_path):
    names = ("raccoon", "it's", "back\\slash", "번호판", "two words")
    file = tmp_path / "label_map.pbtxt"
    file.write_text(label_map_text(names), encoding="utf-8")
    assert read_label_map(file) == names


def test_the_text_is_that_of_the_tutorial():
    assert label_map_text(("a", "b")) == (
        "item {\n  id: 1\n  name: 'a'\n}\nitem {\n  id: 2\n  name: 'b'\n}\n"
    )


def test_class_names_come_from_a_text_file_too(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\n dog \n\n", encoding="utf-8")
    assert read_class_names(tmp_path / "labels.txt") == ("cat", "dog")


def test_a_list_that_counts_the_background_begins_with_the_second_line(tmp_path):
    (tmp_path / "labels.txt").write_text("???\nperson\nbicycle\n")
    assert read_class_names(tmp_path / "labels.txt") == ("person", "bicycle")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "0  person\n1  bicycle\n3  cat\n", ("person", "bicycle", "class 3", "cat"), id="Coral's"
        ),
        pytest.param("1: person\n2: cat", ("person", "cat"), id="from 1"),
        pytest.param(
            "0 ???\n1 person\n2 ???\n3 cat", ("person", "???", "cat"), id="with gaps filled"
        ),
        pytest.param("person\n\ncat\n\n", ("person", "class 2", "cat"), id="empty line"),
        pytest.param("background\nperson\n", ("person",), id="background"),
        pytest.param("1 euro\n2 euro\n", ("1 euro", "2 euro"), id="numbers that are names"),
        pytest.param(
            "1 cent\n2 euros\n5 pence", ("1 cent", "2 euros", "5 pence"), id="from 1 with gaps"
        ),
        pytest.param("2 cats\n3 dogs\n", ("2 cats", "3 dogs"), id="from 2"),
        pytest.param("0 cat\ndog\n", ("0 cat", "dog"), id="one number"),
        pytest.param(
            "\ufeff???\r\nperson\r\nbicycle\r\n", ("person", "bicycle"), id="BOM and CRLF"
        ),
        pytest.param("\n\n", (), id="nothing"),
    ],
)
def test_each_name_of_a_list_is_at_its_number(tmp_path, text, expected):
    file = tmp_path / "labels.txt"
    file.write_bytes(text.encode())
    assert read_class_names(file) == expected
