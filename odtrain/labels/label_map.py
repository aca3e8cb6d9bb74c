"""Label maps: which id stands for which class, in the text format of `label_map.pbtxt`.

    item {
      id: 1
      name: 'raccoon'
    }

`text_format` says which freedoms the format gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from odtrain.errors import DataError
from odtrain.io.remote.files import local
from odtrain.io.textproto import Message, parse
from odtrain_runtime.provenance import read_label_list

EXAMPLE = "Each class is: item { id: 1 name: 'cat' }"
FIELDS = (
    *("name", "id", "display_name", "keypoints", "ancestor_ids", "descendant_ids"),
    *("frequency", "instance_count"),
)
"""Of an item: those of the Object Detection API's string_int_label_map.proto."""


class Item(NamedTuple):
    """One class of a label map, and the line it begins on."""

    id: int
    name: str
    line: int


def _items(label_map: Message) -> Iterator[Item]:
    """The items in the order of the file.

    Raises:
        DataError: one is not complete, or there is something else.
    """
    for field in label_map.fields:
        if field.name != "item":
            raise label_map.reader.fail(field.token, f'expected "item", found {field.token}.')
    yield from map(_item, label_map.messages("item"))


def _item(item: Message) -> Item:
    for field in item.fields:
        if field.name == "item":
            problem = f"this item stands within the item of line {item.start.line}."
            raise item.reader.fail(field.token, problem, 'Close that one first, with "}".')
        if field.name not in FIELDS:
            known = f"An item has {', '.join(FIELDS)}."
            raise item.reader.fail(field.token, f"unknown field {field.token}.", known)
    name = item.text("display_name") or item.text("name")
    number = item.whole("id")
    if not name:
        raise item.reader.fail(item.start, 'this item has no "name".')
    if number is None:
        raise item.reader.fail(item.start, f'the item "{name}" has no "id".')
    return Item(number, " ".join(name.split()), item.start.line)


def read_label_map(file: Path) -> tuple[str, ...]:
    """The class names by id: the first has id 1.

    Ids that the map leaves out (COCO's does) are filled with `class N`; a background item with id 0
    is passed over.

    Raises:
        DataError: the file cannot be read, has a typo (told with line and column), or gives an id
            or a name twice.
    """
    names: dict[int, Item] = {}
    known: set[str] = set()
    for item in _items(parse(file, EXAMPLE)):
        if item.id == 0 and item.name.lower() == "background":
            continue
        _refuse_clash(file, item, names, known)
        names[item.id] = item
        known.add(item.name)
    if not names:
        raise DataError(file, "holds no item.", EXAMPLE)
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

    What a text file may be, `read_label_list` says: it may count the background in, or be numbered.

    Raises:
        DataError: the file cannot be read or is wrong.
    """
    if file.suffix.lower() != ".txt":
        return read_label_map(file)
    try:
        text = local(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(file, f"cannot be read: {error}.", "Give a text file of names.") from None
    return read_label_list(text)


def _refuse_clash(file: Path, item: Item, earlier: dict[int, Item], names: set[str]) -> None:
    where = f"{file}:{item.line}"
    if item.id < 1:
        raise DataError(
            where, f'"{item.name}" has id {item.id}.', "Number the classes from 1; 0 is background."
        )
    if item.id in earlier:
        other = earlier[item.id]
        problem = f'"{item.name}" has id {item.id}, as "{other.name}" in line {other.line}.'
        raise DataError(where, problem, "Give each class an id of its own.")
    if item.name in names:
        raise DataError(where, f'"{item.name}" is there twice.', "Remove one of the two items.")


def label_map_text(class_names: tuple[str, ...]) -> str:
    """The label map that gives `class_names` the ids 1, 2, ..."""
    quoted = [name.replace("\\", "\\\\").replace("'", "\\'") for name in class_names]
    return "".join(
        f"item {{\n  id: {number}\n  name: '{name}'\n}}\n"
        for number, name in enumerate(quoted, start=1)
    )
