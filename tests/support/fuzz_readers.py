"""Label files broken in every way: no reader may crash, hang, read elsewhere, or fill the memory.

    python tests/fuzz_readers.py --inputs 20000 --seed 1

mutates the real files of tests/labelled and the inputs kept in tests/fuzz_seeds, byte by byte and value
by value. What goes wrong is printed and kept in tests/fuzz_seeds, which the tests read from then on (or in
`--keep FOLDER`).
Seeds 1 to 6 with 10,000 inputs each, 2026-11-25: one find (half-character.pbtxt), none after it was put right.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import copy
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

from lxml import etree

from odtrain.labels.annotations import LabelledImage, place
from odtrain.labels.formats import coco, csv_table, tfrecords, voc, yolo
from odtrain.labels.formats.recognise import FORMATS, Sources, read_labels
from odtrain.labels.label_map import label_map_text

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "fuzz_seeds"
NAMES = {".xml": ("voc", "cvat"), ".txt": ("yolo",), ".csv": ("csv",), ".record": ("tfrecord",)}
NAMES[".json"] = ("coco", "createml", "labelme", "label_studio")
NAMES |= {".yaml": ("yolo",), ".names": ("yolo",), ".pbtxt": ("tfrecord",)}
SUFFIXES = (*NAMES, ".xml", ".xml", ".json", ".json", ".json", ".record")
"""As often as they are tried."""
COMPANIONS = {
    ".yaml": ("labelimg_yolo/p1.txt",),
    ".names": ("labelimg_yolo/p1.txt",),
    ".pbtxt": ("tfrecord/test.record",),
    ".txt": ("cvat_yolo/obj.names",),
}
"""What must lie beside a file for it to be read."""
SECONDS, MEGABYTES = 5, 1500
"""What one input of a few kilobytes may take at most, by far."""
WORDS = (
    b'NaN Infinity -Infinity 1e999 -1 0 1e-320 9999999999999999999999 null true {} [] "" "x" [[1,2]] '
    b"../../../../etc/passwd /etc/passwd C:\\\\x \\ud800 \\u0000 \xff\xfe \xef\xbb\xbf \xed\xa0\x80 "
    b"&x; <!ENTITY ]]> <object> </annotation> xmlns:a='b' ' , ; : \r\n \t - &a *a << !!python/object "
    b"-00000-of-00001"
).split(b" ")
HUGE = (
    b"9" * 5000,
    b"[" * 3000,
    b"<a>" * 300,
    b"1 " * 3000,
    b"a" * 5000,
    b"\x80" * 3000,
    b'{"a":' * 2000,
)
VALUES = (
    *(None, True, False, 0, -1, 10**30, 10**400, 1e308, -1e308, 5e-324, float("nan"), float("inf")),
    *("", "x", "7", "../../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "\ufffe", "x" * 3000),
    *([], {}, [[]], [{}], [[1, 2]], [1, 2, 3, 4], {"x": 1}, [None], ["a"], {"id": [1]}),
)


def real_files() -> list[Path]:
    """Every kind of label file of tests/labelled, and what fuzzing has found."""
    folders = [folder for folder in (HERE / "labelled").iterdir() if folder.is_dir()]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in NAMES]
    files += [file for file in SEEDS.glob("*") if file.suffix in NAMES]
    return sorted(files)


def mutated(file: Path, others: list[Path], dice: random.Random) -> bytes:
    """The content of `file`, broken."""
    data = file.read_bytes()
    if file.suffix == ".json" and dice.random() < 0.6:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return _broken_bytes(data, others, dice)
        for _ in range(dice.choice((1, 1, 2, 5))):
            document = _broken_value(document, dice)
        try:
            return json.dumps(document).encode()
        except ValueError:  # an integer of too many digits
            return data
    if file.suffix == ".xml" and dice.random() < 0.6:
        return _broken_elements(data, dice)
    if file.suffix == ".record" and dice.random() < 0.7:
        return _broken_record(data, others, dice)
    return _broken_bytes(data, others, dice)


def _broken_elements(data: bytes, dice: random.Random) -> bytes:
    """XML with one element or attribute exchanged, doubled or left out, still well-formed."""
    try:
        root = etree.fromstring(data)
    except etree.XMLSyntaxError:
        return data
    for _ in range(dice.choice((1, 1, 2, 5))):
        element = dice.choice([one for one in root.iter() if isinstance(one.tag, str)])
        parent, action = element.getparent(), dice.random()
        value = str(dice.choice(VALUES[:11] + VALUES[12:15])).replace("\0", "")
        if action < 0.15 and parent is not None:
            parent.remove(element)
        elif action < 0.3 and parent is not None:
            parent.insert(0, copy.deepcopy(element))
        elif action < 0.4:
            element.tag = dice.choice(("annotation", "object", "bndbox", "polygon", "xmin", "box"))
        elif action < 0.5 and element.attrib:
            element.set(dice.choice(list(element.attrib)), value)
        elif action < 0.6:
            element.append(copy.deepcopy(root))
        else:
            element.text = value
    return etree.tostring(root)


def _broken_value(document: object, dice: random.Random) -> object:
    """The same with one value somewhere in it exchanged, doubled or left out."""
    places: list[tuple[dict | list, object]] = []
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            places += [(value, key) for key in keys]
            pending += [value[key] for key in keys]
    if not places or dice.random() < 0.02:
        return copy.deepcopy(dice.choice(VALUES))
    parent, key = dice.choice(places)
    action = dice.random()
    other, other_key = dice.choice(places)
    if action < 0.15:
        del parent[key]
    elif action < 0.25 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action < 0.35:
        parent[key] = copy.deepcopy(other[other_key])
    else:
        parent[key] = copy.deepcopy(dice.choice(VALUES))
    return document


def _broken_record(data: bytes, others: list[Path], dice: random.Random) -> bytes:
    """The payloads broken but framed right, so that more than the framing is tried."""
    from odtrain.io.tfrecord import frame

    framed, position = [], 0
    while position + 16 <= len(data) and len(framed) < 20:
        length = int.from_bytes(data[position : position + 8], "little")
        payload = data[position + 12 : position + 12 + length]
        framed.append(frame(_broken_bytes(payload, others, dice)))
        position += length + 16
    return b"".join(framed)


def _broken_bytes(data: bytes, others: list[Path], dice: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(result) + 1)
        until = min(len(result), at + dice.choice((1, 2, 4, 8, 30, 200)))
        action = dice.randrange(8)
        if action == 0:
            result[at:until] = b""
        elif action == 1:
            result[at:at] = result[at:until]
        elif action == 2 and at < len(result):
            result[at] ^= 1 << dice.randrange(8)
        elif action == 3:
            result[at:until] = bytes(dice.randrange(256) for _ in range(until - at))
        elif action == 4:
            other = dice.choice(others).read_bytes()
            start = dice.randrange(len(other) + 1)
            result[at:until] = other[start : start + 200]
        elif action == 5 and dice.random() < 0.2:
            result[at:at] = dice.choice(HUGE)
        elif action == 6:
            result = result[:at] if dice.random() < 0.3 else result
        else:
            result[at : at + dice.choice((0, 1, 3))] = dice.choice(WORDS)
    return bytes(result)


JSON_TEXT = ("utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le")
for encoding in ("utf-8-sig", "utf-16", "cp949", "cp1252", "latin-1", *JSON_TEXT):
    codecs.lookup(encoding)  # opens files of Python itself


class Watched:
    """Notes what is opened while a reader is at work."""

    def __init__(self) -> None:
        self.opened: list[str] | None = None
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if self.opened is not None and event in ("open", "os.scandir", "socket.connect"):
            self.opened.append(str(arguments[0]))


WATCHED = Watched()


def try_input(name: str, data: bytes, folder: Path) -> None:
    """Let every reader that may get it read a file of this name and content, and use what it says.

    Raises:
        AssertionError: it took too long, something outside `folder` was opened, or what came out
            cannot be used.
    """
    file = folder / name
    file.write_bytes(data)
    beside = []
    for other in COMPANIONS.get(file.suffix, ()):
        beside.append(folder / Path(other).name)
        beside[-1].write_bytes((HERE / "labelled" / other).read_bytes())
    sources = [file, *beside]
    began = time.process_time()
    WATCHED.opened = []
    try:
        for chosen in ("auto", *NAMES[file.suffix]):
            named = Sources(sources, (), frozenset(["p1", "p4"]), chosen != "auto")
            labels, findings = read_labels(named, folder, chosen)
            assert labels.format in ("", *FORMATS)
            _use(labels.entries, folder)
            assert len(findings) < 1000
            for finding in findings:
                str(finding).encode()
        if file.suffix == ".record":
            for picture in tfrecords.unpack([file], folder / "unpacked"):
                assert picture.resolve().is_relative_to((folder / "unpacked").resolve())
        opened = [path for path in WATCHED.opened if not path.startswith((str(folder), "<"))]
    finally:
        WATCHED.opened = None
        for one in sources:
            one.unlink()
    assert not [path for path in opened if not path.isdecimal()], opened
    assert time.process_time() - began < SECONDS, "took too long"


def _use(entries: list, folder: Path) -> None:
    """Place the objects in a picture, and write what came out in every format."""
    images, names = [], []
    for entry in entries[:50]:
        for name in entry.names:
            assert not name.startswith("/") and ".." not in name.split("/"), name
        objects, findings = place(entry, 120, 80)
        for finding in findings:
            str(finding).encode()
        for item in objects:
            assert all(0 <= side <= 1 for side in item.yxyx), item
        images.append(LabelledImage(Path("p1.jpg"), None, 80, 120, objects))
        names.append(Path(f"{len(names)}.jpg"))
    classes = sorted({item.name for image in images for item in image.objects})
    if classes:
        out = folder / "out"
        voc.write(out, images[:1], names[:1])
        yolo.write(out, images[:1], names[:1], classes)
        coco.write(out / "c.json", images, names, classes)
        csv_table.write(out / "c.csv", images, names)
        label_map_text(tuple(classes)).encode()


def run(inputs: int, seed: int, folder: Path, keep: Path | None) -> int:
    """Try `inputs` mutated files; returns how many of them failed."""
    dice, files, failed = random.Random(seed), real_files(), 0
    for file in files:  # what is imported late is imported now
        with contextlib.suppress(AssertionError):
            try_input(file.name, file.read_bytes(), folder)
    for _ in range(inputs):
        suffix = dice.choice(SUFFIXES)
        file = dice.choice([file for file in files if file.suffix == suffix])
        data = mutated(file, files, dice)
        name = dice.choice((file.name, f"p1{file.suffix}"))
        try:
            try_input(name, data, folder)
        except Exception:
            failed += 1
            traceback.print_exc()
            if keep is not None:
                keep.mkdir(exist_ok=True)
                (keep / f"seed{seed}-{failed}{file.suffix}").write_bytes(data)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="FOLDER", default=str(SEEDS))
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20,) * 2)
    with tempfile.TemporaryDirectory() as temporary:
        started = time.process_time()
        broken = run(arguments.inputs, arguments.seed, Path(temporary), Path(arguments.keep))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        spent = time.process_time() - started
        print(f"{arguments.inputs} inputs, {broken} failed; {spent:.0f} s of CPU, peak {peak} MB")
        sys.exit(bool(broken))
