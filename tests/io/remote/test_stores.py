"""Data in a real S3 server: the same as in a folder, whatever the connection and others do."""

from __future__ import annotations

import os
import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from support.s3_server import BUCKET, KEY, SECRET, cutting, environment, variables_of

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig, PredictConfig
from odtrain.dataset.check import check
from odtrain.dataset.convert import convert
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import Dataset, read_dataset, read_labelled
from odtrain.errors import CheckpointError, ConfigError, DataError
from odtrain.io.download import Wanted, download
from odtrain.io.remote import cache, files, outputs, records, store
from odtrain.io.tfrecord import index_records
from odtrain.media.find import find_media, find_pictures

CREDENTIALS = (
    "Credentials are those of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL or ~/.aws."
)
AGAIN = "Run the same command again: what was brought here is kept."


def config(images: str, prepared: str, **more) -> DataConfig:
    return section(
        DataConfig, name="shapes", validation_fraction=0.1, images=images, prepared=prepared, **more
    )


@pytest.fixture
def folder(s3, request) -> Path:
    """A folder of the bucket for this test alone."""
    return Path(f"s3://{BUCKET}/{request.node.name}")


@pytest.fixture(scope="module")
def stored(s3_server, shapes) -> str:
    """The address of `shapes`, which no test changes."""
    return s3_server.put(shapes, "shapes")


@pytest.fixture(scope="module")
def prepared(s3_server, stored, tmp_path_factory) -> Dataset:
    """`shapes` prepared in the store, which no test changes."""
    with environment(
        s3_server.variables | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    ):
        return prepare(config(stored, "s3://pictures/prepared", shards=1))


@pytest.fixture
def record(s3, folder, prepared) -> Path:
    """The training record of `prepared`, copied for this test alone."""
    (original,) = prepared.records("train")
    s3.fs.pipe_file(f"{key(folder)}/{original.name}", s3.fs.cat_file(key(original)))
    return folder / original.name


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The names of objects whose content a store was asked for."""
    names: list[str] = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda file: names.append(file.name) or read(file))
    return names


def key(file: Path) -> str:
    return store.key_of(file)


# ---- data sets


def test_a_data_set_is_prepared_to_the_same_bytes_from_and_in_a_store(
    s3, prepared, shapes, tmp_path
):
    here = prepare(config(str(shapes), str(tmp_path / "here"), shards=1))
    there = prepared
    assert (there.digest, there.counts, there.files) == (here.digest, here.counts, here.files)
    for name in here.files:
        assert s3.fs.cat_file(f"pictures/prepared/{name}") == (here.folder / name).read_bytes()
    again = read_dataset(Path("s3://pictures/prepared"))
    assert read_labelled(again, "train").keys == read_labelled(here, "train").keys
    left = {Path(name).name for name in s3.fs.find("pictures/prepared")}
    assert left == {*here.files, "dataset.json", "state.json"}


def test_unchanged_objects_are_not_asked_for_again(s3, folder, shapes, tmp_path, asked):
    images = s3.put(shapes, f"{folder.name}/shapes")
    first = prepare(config(images, str(tmp_path / "prepared")))
    assert len(asked) == 40  # 20 pictures, looked at and recorded, and their labels
    asked.clear()
    assert prepare(config(images, str(tmp_path / "prepared"))) == first
    assert asked == []
    s3.fs.pipe_file(f"{key(folder)}/shapes/img1.xml", (shapes / "img2.xml").read_bytes())
    check(config(images, str(tmp_path / "prepared")))
    assert asked == ["img1.xml"]


@pytest.mark.long
def test_findings_and_copies_name_addresses(s3, folder, shapes, tmp_path):
    images = s3.put(shapes, f"{folder.name}/shapes")
    s3.fs.pipe_file(f"{key(folder)}/shapes/img1.xml", b"<annotation><object>")
    with pytest.raises(DataError) as error:
        prepare(config(images, str(tmp_path / "prepared")))
    where, problem, remedy = error.value.args
    assert (where, problem) == (images, "1 error in the data; nothing was written.")
    assert remedy.splitlines()[0] == (
        f"error OD003 {images}/img1.xml: is not XML: line 1, column 21: it ends before its tags are closed. "
        "Save it again in labelImg, or delete it."
    )
    assert f"odtrain check data.images={images} data.name=shapes --fix" in remedy
    left_out = config(images, "prepared", faulty="leave_out")
    convert(left_out, "yolo", output=str(tmp_path / "yolo"))
    assert len(list((tmp_path / "yolo").rglob("*.txt"))) > 15


@pytest.mark.long
def test_a_killed_preparation_is_gone_on_with(s3, folder, stored, shapes, tmp_path, monkeypatch):
    settings = config(stored, f"{folder}/prepared", shards=3)
    upload, written = store.upload, []

    def fails_at_the_third(source: Path, file: Path) -> None:
        if ".record-" in file.name:
            written.append(file.name)
            if len(written) == 3:
                raise KeyboardInterrupt
        upload(source, file)

    with monkeypatch.context() as patched:
        patched.setattr(store, "upload", fails_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings)
    with pytest.raises(DataError, match="was not prepared to the end"):
        read_dataset(folder / "prepared")
    before = len(written)
    monkeypatch.setattr(
        store, "upload", lambda source, file: written.append(file.name) or upload(source, file)
    )
    whole = prepare(settings)
    here = prepare(config(str(shapes), str(tmp_path / "here"), shards=3))
    assert whole.files == here.files
    again = [name for name in written[before:] if ".record-" in name]
    assert len(again) < len([name for name in whole.files if ".record-" in name])


# ---- what others and the connection do


def test_an_object_that_changes_while_it_is_read_is_said_to(s3, folder):
    file = folder / "a.jpg"
    s3.fs.pipe_file(key(file), b"one" * 1000)
    opened = store.Ranges(file)
    s3.fs.pipe_file(key(file), b"two" * 1000)
    with pytest.raises(DataError) as error:
        opened.read(0, 10)
    assert error.value.args == (
        f"s3://{key(file)}",
        "changed while it was read.",
        "Run the command again.",
    )
    assert files.read_bytes(file) == b"two" * 1000


def read_through(s3, file: Path, cuts: list[int], up: list[int] = []) -> int:  # noqa: B006 - not changed
    with cutting(s3.endpoint) as proxy, environment(variables_of(proxy.endpoint)):
        proxy.after, proxy.up = list(cuts), list(up)
        assert files.read_bytes(file) == s3.fs.cat_file(key(file))
        return proxy.cuts


def test_a_connection_that_is_cut_costs_nothing(s3, folder, monkeypatch):
    file = folder / "a.jpg"
    s3.fs.pipe_file(key(file), random.Random(3).randbytes(3000))
    for cut in (0, 600, 2000):
        shutil.rmtree(cache.root(), ignore_errors=True)
        assert read_through(s3, file, [cut]) == 1


@pytest.mark.long
def test_a_connection_may_be_cut_at_any_byte(s3, folder):
    file = folder / "a.bin"
    s3.fs.pipe_file(key(file), random.Random(3).randbytes(100))
    cuts = 0
    for cut in range(900):
        shutil.rmtree(cache.root(), ignore_errors=True)
        cuts += read_through(s3, file, [cut])
    assert cuts > 600  # until the answers were whole


@pytest.mark.long
def test_what_a_cut_connection_does_not_bring_is_not_kept(s3, folder):
    file = folder / "a.jpg"
    s3.fs.pipe_file(key(file), random.Random(3).randbytes(3000))
    with cutting(s3.endpoint) as proxy, environment(variables_of(proxy.endpoint)):
        store._filesystem("s3").retries = 2
        proxy.after = [1500] * 100
        with pytest.raises(DataError) as error:
            files.read_bytes(file)
        where, problem, remedy = error.value.args
        assert where == f"s3://{key(file)}"
        assert problem.startswith("the store does not answer as it should: ")
        assert remedy == AGAIN
        assert not [each for each in cache.root().rglob("*") if each.is_file()]
        proxy.after = []
        assert len(files.read_bytes(file)) == 3000


@pytest.mark.long
def test_what_is_cut_while_it_is_written_is_not_there(s3, folder, tmp_path):
    file, source = folder / "a.record", tmp_path / "a"
    source.write_bytes(random.Random(3).randbytes(200_000))
    with cutting(s3.endpoint) as proxy, environment(variables_of(proxy.endpoint)):
        store._filesystem("s3").retries = 1
        proxy.up = [100_000] * 20
        with pytest.raises(DataError):
            store.upload(source, file)
        assert store.stat(file) is None
        proxy.up = []
        store.upload(source, file)
    assert s3.fs.cat_file(key(file)) == source.read_bytes()


REFUSED = {
    "wrong secret": (
        {"AWS_SECRET_ACCESS_KEY": "another-secret"},
        "refused: The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    ),
    "unknown key": (
        {"AWS_ACCESS_KEY_ID": "nobody"},
        "refused: The access key ID you provided does not exist in our records.",
    ),
    "none": (
        {
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "AWS_SHARED_CREDENTIALS_FILE": "none",
        },
        "refused: Unable to locate credentials.",
    ),
}


QUESTIONS = [
    store.listed,
    *(pytest.param(ask, marks=pytest.mark.long) for ask in (store.read, store.stat, store.Ranges)),
]


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("ask", QUESTIONS)
def test_wrong_credentials_are_one_line(s3, folder, case, ask):
    variables, problem = REFUSED[case]
    with environment(s3.variables | variables), pytest.raises(DataError) as error:
        ask(folder / "a.jpg")
    assert error.value.args == (f"s3://{key(folder)}/a.jpg", problem, CREDENTIALS)


@pytest.mark.parametrize("ask", QUESTIONS)
def test_a_clock_that_is_off_is_said_to_be(s3, folder, ask, monkeypatch):
    import botocore.auth

    now = botocore.auth.get_current_datetime
    ahead = lambda *given, **named: now(*given, **named) + timedelta(hours=1)  # noqa: E731
    monkeypatch.setattr(botocore.auth, "get_current_datetime", ahead)
    with pytest.raises(DataError) as error:
        ask(folder / "a.jpg")
    assert error.value.args == (
        f"s3://{key(folder)}/a.jpg",
        "refused: The difference between the request time and the server's time is too large.",
        "Set this machine's clock: it is off.",
    )


def test_a_missing_bucket_is_one_line(s3):
    with pytest.raises(DataError) as error:
        check(config("s3://no-such-bucket/pictures", "prepared"))
    assert error.value.args == (
        "s3://no-such-bucket",
        "there is no such bucket.",
        "Is its name right, and the endpoint?",
    )


def test_an_empty_folder_is_one_line(s3, folder):
    with pytest.raises(DataError) as error:
        check(config(str(folder), "prepared"))
    remedy = "Set data.images to what is before their names."
    assert error.value.args == (f"s3://{key(folder)}", "holds no objects.", remedy)


def test_credentials_in_an_address_are_refused_and_not_shown(s3):
    with pytest.raises(ConfigError) as error:
        check(config(f"s3://{KEY}:{SECRET}@pictures/a", "prepared"))
    assert SECRET not in str(error.value)
    assert error.value.args[1:] == (
        "holds what looks like credentials.",
        f"Leave them out, and give them as {CREDENTIALS[25:]}",
    )


def test_a_name_that_leads_out_of_its_folder_is_refused(s3, folder, monkeypatch):
    monkeypatch.setattr(store, "listed", lambda place: {"../../a.jpg": (1, 1)})
    with pytest.raises(DataError, match="is a name that no file can have"):
        files.found(folder)


# ---- the cache


def test_the_cache_keeps_within_its_bound(s3, folder, monkeypatch):
    monkeypatch.setenv("ODTRAIN_CACHE_GB", "0.0005")  # 500 kB
    monkeypatch.setattr(cache, "DURABLE", 0.0)
    monkeypatch.setattr(cache._Copy.__new__, "__defaults__", (0.0,))
    monkeypatch.setattr(cache, "_SPACE", space := cache._Space())
    monkeypatch.setattr(cache, "admits", space.admits)
    for i in range(20):
        file = folder / f"{i}.jpg"
        s3.fs.pipe_file(key(file), bytes([i]) * 60_000)
        assert files.read_bytes(file) == bytes([i]) * 60_000
        assert sum(each.size for each in cache._copies(cache.root())) <= 560_000
    assert cache.held(folder / "19.jpg", None)
    assert not cache.held(folder / "0.jpg", None)


@pytest.fixture
def ranges(monkeypatch) -> list[tuple[int, int]]:
    """The ranges that a store was asked for."""
    asked: list[tuple[int, int]] = []
    read = store.Ranges.read

    def noted(self, begin, end):
        asked.append((begin, end))
        return read(self, begin, end)

    monkeypatch.setattr(store.Ranges, "read", noted)
    return asked


def test_records_are_read_in_ranges_and_each_once(record, ranges, monkeypatch):
    monkeypatch.setattr(records, "BLOCK", 4096)
    ranges.clear()
    first = index_records([record])
    payloads = [first.read(i) for i in (5, 2, 5)]
    assert len(set(ranges)) == len(ranges) > 5
    ranges.clear()
    again = index_records([record])
    assert [again.read(i) for i in (5, 2)] == payloads[:2]
    assert ranges == []
    assert list(again.read_all()) == [again.read(i) for i in range(len(again))]


def test_records_are_read_where_the_cache_has_no_room(record, ranges, monkeypatch):
    monkeypatch.setattr(cache, "admits", lambda size: False)
    index = index_records([record])
    ranges.clear()
    index.read(3)
    assert ranges == [(int(index.offset[3]), int(index.offset[3] + index.length[3] + 4))]
    held = next(cache.root().rglob(f"train.record-*{cache.HELD}"))
    assert held.stat().st_blocks == 0
    assert cache.is_in_use(held)
    index.closer()
    assert not cache.is_in_use(held)


def test_records_that_were_prepared_again_are_not_mixed(s3, record, monkeypatch):
    monkeypatch.setattr(records, "BLOCK", 64)
    index = index_records([record])
    s3.fs.pipe_file(key(record), s3.fs.cat_file(key(record)) + b"more")
    with pytest.raises(DataError) as error:
        index.read(5)
    assert error.value.args[1] == "changed while it was read."


def test_a_damaged_record_is_said_to_be(s3, record):
    content = bytearray(s3.fs.cat_file(key(record)))
    content[500] ^= 1
    s3.fs.pipe_file(key(record), bytes(content))
    index = index_records([record])
    with pytest.raises(DataError) as error:
        index.read(0)
    assert error.value.args == (
        f"s3://{key(record)}",
        "is damaged at byte 12, or was changed while it was read.",
        "Run the command again, or odtrain prepare.",
    )


# ---- other settings


def test_input_names_objects_globs_folders_and_lists(s3, stored, shapes, tmp_path):
    images = stored
    settings = section(PredictConfig)

    def names(text: str) -> list[str]:
        return [medium.name for medium in find_media(settings, text, tmp_path, "drawn")]

    assert len(names(images)) == 20
    assert names(f"{images}/img1*.jpg") == [
        f"{images}/img{i}.jpg" for i in (1, 11, 12, 13, 14, 16, 17, 18, 19)
    ]
    assert names(f"{images}/img2.jpg") == [f"{images}/img2.jpg"]
    text = f"shapes/img1.jpg\n{images}/img3.jpg\n"
    s3.fs.pipe_file("pictures/list.txt", text.encode())
    assert names("s3://pictures/list.txt") == [f"{images}/img1.jpg", f"{images}/img3.jpg"]
    (medium,) = find_media(settings, f"{images}/img2.jpg", tmp_path, "drawn")
    assert medium.here.read_bytes() == (shapes / "img2.jpg").read_bytes()
    with pytest.raises(DataError) as error:
        find_pictures(f"{images}/*.bmp")
    assert error.value.args[1:] == ("no picture is there.", "Name a picture, a folder or a glob.")


@pytest.mark.long
def test_a_model_comes_with_what_is_beside_it(s3, folder):
    for name in ("m/ckpt-3.index", "m/ckpt-3.data-00000-of-00001", "m/checkpoint", "m/other.txt"):
        s3.fs.pipe_file(f"{key(folder)}/{name}", name.encode())
    prefix = Path(files.local_model(f"{folder}/m/ckpt-3"))
    assert {each.name for each in prefix.parent.iterdir()} == {
        "checkpoint",
        "ckpt-3.data-00000-of-00001",
        "ckpt-3.index",
    }
    inside = Path(files.local_model(f"{folder}/m"))
    assert (inside / "other.txt").read_text() == "m/other.txt"
    with pytest.raises(DataError) as error:
        files.local_model(f"{folder}/none")
    assert error.value.args == (
        f"s3://{key(folder)}/none",
        "is not there.",
        "Is the address right?",
    )


@pytest.mark.long
def test_weights_are_taken_from_a_mirror_in_a_store(s3, folder, tmp_path):
    s3.fs.pipe_file(f"{key(folder)}/weights.bin", b"weights")
    wanted = Wanted(
        ("http://127.0.0.1:1/weights.bin",),
        tmp_path / "weights.bin",
        None,
        "By hand.",
        (str(folder),),
    )
    assert download(wanted).read_bytes() == b"weights"
    with pytest.raises(CheckpointError, match="there is no such object"):
        download(
            Wanted(("no such folder/b",), tmp_path / "b", None, "By hand.", (f"{folder}/none",))
        )


@pytest.mark.long
def test_a_folder_that_a_command_writes_is_taken_there(s3, folder):
    address = f"s3://{key(folder)}"

    def write(here: str) -> int:
        Path(here).mkdir(parents=True, exist_ok=True)
        Path(here, "new.txt").write_text("new")
        Path(here, "old.txt").unlink(missing_ok=True)
        return 0

    s3.fs.pipe_file(f"{key(folder)}/old.txt", b"old")
    s3.fs.pipe_file(f"{key(folder)}/kept.txt", b"kept")
    assert outputs.written_there(address, "job", write) == (0, f"1 files are in {address}.")
    assert sorted(Path(name).name for name in s3.fs.find(key(folder))) == ["kept.txt", "new.txt"]


@pytest.mark.long
def test_what_could_not_be_taken_there_is_by_the_same_command(s3, folder, monkeypatch):
    address, runs = f"s3://{key(folder)}", []

    def write(here: str) -> int:
        runs.append(here)
        Path(here).mkdir(parents=True)
        Path(here, "new.txt").write_text("new")
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(store, "upload", lambda source, file: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            outputs.written_there(address, "job", write)
    assert outputs.written_there(address, "job", write)[1] == f"1 files are in {address}."
    assert len(runs) == 1
    assert s3.fs.cat_file(f"{key(folder)}/new.txt") == b"new"


def test_the_credentials_are_in_no_file(s3, prepared):
    list(index_records(prepared.records("train")).read_all())
    written = [each for each in cache.root().rglob("*") if each.is_file()]
    assert written
    for each in written:
        content = each.read_bytes()
        assert KEY.encode() not in content and SECRET.encode() not in content
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
