"""`odtrain collect`: pictures from folders, archives, videos and URLs under numbered names."""

import csv
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.commands import odtrain
from support.pictures import write_xml

from odtrain.cli.main import main
from odtrain.collect.collect import collect, collected_summary
from odtrain.errors import DataError


def photograph(seed, width=120, height=90):
    """Smooth random blobs, as a photograph has."""
    rough = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture, kind="JPEG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def card(tmp_path):
    """A camera's memory card: three pictures, numbered."""
    folder = tmp_path / "card" / "DCIM"
    folder.mkdir(parents=True)
    for number in (1, 2, 10):
        photograph(number).save(folder / f"IMG_{number}.jpg", quality=90)
    return folder.parent


@pytest.fixture
def to(tmp_path):
    return tmp_path / "pictures"


def manifest(folder):
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".csv")


def refusals(done):
    return [(Path(each.source).name, each.why) for each in done.refused]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_pictures_get_numbers_in_the_order_people_give_names(card, to):
    done = collect([str(card)], to)
    assert done.added == ["img1.jpg", "img2.jpg", "img3.jpg"]
    for name, source in (
        ("img1.jpg", "IMG_1.jpg"),
        ("img2.jpg", "IMG_2.jpg"),
        ("img3.jpg", "IMG_10.jpg"),
    ):
        assert (to / name).read_bytes() == (card / "DCIM" / source).read_bytes()


def test_the_manifest_says_where_each_came_from(card, to):
    collect([str(card)], to)
    row = manifest(to)[0]
    data = (card / "DCIM" / "IMG_1.jpg").read_bytes()
    assert row.pop("collected").endswith("+00:00")
    assert len(row.pop("likeness")) == 64
    assert row == {
        "file": "img1.jpg",
        "source": str(card / "DCIM" / "IMG_1.jpg"),
        "taken": "",
        "width": "120",
        "height": "90",
        "bytes": str(len(data)),
        "sha256": sha256(data),
        "source_bytes": str(len(data)),
        "source_sha256": sha256(data),
        "changes": "",
        "duplicate_of": "",
        "differing_bits": "",
    }


def test_a_second_call_adds_what_is_new_and_renumbers_nothing(card, to):
    collect([str(card)], to)
    before = {name: (to / name).read_bytes() for name in names(to)}
    photograph(5).save(card / "DCIM" / "IMG_0.jpg")
    done = collect([str(card)], to)
    assert (done.added, done.known) == (["img4.jpg"], 3)
    assert {name: (to / name).read_bytes() for name in before} == before


def test_a_picture_that_was_deleted_from_the_folder_does_not_come_back(card, to):
    collect([str(card)], to)
    (to / "img3.jpg").unlink()
    photograph(5).save(card / "DCIM" / "IMG_11.jpg")
    done = collect([str(card)], to)
    assert (done.added, names(to)) == (["img4.jpg"], ["img1.jpg", "img2.jpg", "img4.jpg"])


def test_a_card_that_uses_its_names_again_brings_new_pictures(card, to):
    collect([str(card)], to)
    photograph(77).save(card / "DCIM" / "IMG_1.jpg")
    assert collect([str(card)], to).added == ["img4.jpg"]


def test_copies_and_pictures_that_look_alike_are_set_aside(card, to):
    first = card / "DCIM" / "IMG_1.jpg"
    (card / "copy.jpg").write_bytes(first.read_bytes())
    (card / "copy of the copy.jpg").write_bytes(first.read_bytes())
    Image.open(first).resize((60, 45)).save(card / "smaller.png")
    done = collect([str(card)], to)
    assert (len(done.added), done.set_aside) == (3, 3)
    aside = to.with_name("pictures-duplicates")
    assert names(aside) == ["img1-copy1.jpg", "img1-copy2.png"]
    assert (aside / "img1-copy1.jpg").read_bytes() == first.read_bytes()
    set_aside = [row for row in manifest(to) if row["duplicate_of"]]
    assert [(row["file"], row["duplicate_of"]) for row in set_aside] == [
        ("../pictures-duplicates/img1-copy1.jpg", "img1.jpg"),
        ("../pictures-duplicates/img1-copy1.jpg", "img1.jpg"),
        ("../pictures-duplicates/img1-copy2.png", "img1.jpg"),
    ]
    assert [int(row["differing_bits"]) > 0 for row in set_aside] == [False, False, True]
    assert collect([str(card)], to).known == 6


def test_near_0_sets_aside_copies_alone(card, to):
    first = card / "DCIM" / "IMG_1.jpg"
    (card / "copy.jpg").write_bytes(first.read_bytes())
    Image.open(first).resize((60, 45)).save(card / "smaller.png")
    done = collect([str(card)], to, near=0)
    assert (len(done.added), done.set_aside) == (4, 1)


def test_what_exif_turns_is_turned_and_said(tmp_path, to):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2026:11:25 03:00:00"
    picture = tmp_path / "phone.jpg"
    photograph(3).save(picture, exif=exif)
    done = collect([str(picture)], to)
    with Image.open(to / "img1.jpg") as kept:
        assert (kept.size, kept.getexif().get(0x0112)) == ((90, 120), None)
        shown = photograph(3).transpose(Image.Transpose.ROTATE_270)
        assert np.abs(np.asarray(kept, int) - np.asarray(shown, int)).mean() < 6
    assert dict(done.changes) == {"turned upright": 1}
    assert manifest(to)[0]["taken"] == "2026:11:25 03:00:00"


@pytest.mark.parametrize(
    ("kind", "suffix", "kept", "changes"),
    [
        ("BMP", ".bmp", "img1.png", "from BMP"),
        ("WEBP", ".webp", "img1.png", "from WEBP"),
        ("TIFF", ".tif", "img1.png", "from TIFF"),
        ("PNG", ".jpg", "img1.png", ""),
    ],
)
def test_the_bytes_decide_the_format_and_others_are_converted(
    tmp_path, to, kind, suffix, kept, changes
):
    file = tmp_path / f"picture{suffix}"
    options = {"lossless": True} if kind == "WEBP" else {}
    file.write_bytes(encoded(photograph(4), kind, **options))
    collect([str(file)], to)
    with Image.open(to / kept) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(photograph(4)))
    assert manifest(to)[0]["changes"] == changes


def test_files_that_are_no_whole_pictures_are_refused_and_listed(card, to):
    whole = (card / "DCIM" / "IMG_2.jpg").read_bytes()
    (card / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (card / "page.png").write_text("<html>not found</html>")
    (card / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    done = collect([str(card)], to)
    assert len(done.added) == 3
    assert refusals(done)[1:] == [
        ("page.png", "holds text such as a web page, not a picture."),
        ("phone.heic", "is HEIC, which is not read."),
    ]
    assert refusals(done)[0][1].startswith("cannot be decoded: ")
    listed = csv.reader((to / "refused.csv").read_text().splitlines())
    assert [Path(row[0]).name for row in listed] == ["source", "cut.jpg", "page.png", "phone.heic"]


def test_links_hidden_files_and_the_folder_itself_are_passed_over(card, tmp_path):
    outside = tmp_path / "outside.jpg"
    photograph(9).save(outside)
    (card / "link.jpg").symlink_to(outside)
    (card / "linked").symlink_to(tmp_path)
    (card / "._IMG_1.jpg").write_bytes(b"resource fork")
    to = card / "pictures"
    assert len(collect([str(card)], to).added) == 3
    assert collect([str(card)], to).known == 3


def zipped(file, members):
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def tarred(file, members, mode="w:gz"):
    with tarfile.open(file, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


MEMBERS = {
    "b/img10.jpg": encoded(photograph(1)),
    "b/img9.jpg": encoded(photograph(2)),
    "b/img9.xml": b"<annotation/>",
    "__MACOSX/b/._img9.jpg": b"resource fork",
    "../../outside.jpg": encoded(photograph(3)),
}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_pictures_of_archives_are_taken_wherever_their_names_would_lead(tmp_path, to, mode):
    suffix = {"zip": ".zip", "w": ".tar"}.get(mode, f".tar.{mode[2:]}")
    file = tmp_path / f"pictures{suffix}"
    zipped(file, MEMBERS) if mode == "zip" else tarred(file, MEMBERS, mode)
    done = collect([str(file)], to)
    assert {row["source"] for row in manifest(to)} == {
        f"{file}!{name}" for name in ("b/img10.jpg", "b/img9.jpg", "../../outside.jpg")
    }
    assert (names(to), done.refused) == (["img1.jpg", "img2.jpg", "img3.jpg"], [])
    assert not (tmp_path.parent / "outside.jpg").exists()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_that_breaks_off_gives_what_came_before_or_says_why(tmp_path, to, pack):
    whole = pack(tmp_path / "whole", MEMBERS).read_bytes()
    file = tmp_path / ("cut.zip" if pack is zipped else "cut.tar.gz")
    file.write_bytes(whole[: len(whole) * 2 // 3])
    done = collect([str(file)], to)
    assert len(done.refused) == 1
    assert "is not a whole archive (" in done.refused[0].why
    assert (len(done.added) > 0) == (pack is tarred)


def test_a_bomb_is_stopped_at_the_limit(tmp_path, to, monkeypatch):
    monkeypatch.setattr("odtrain.collect.sources.MOST_UNPACKED", 2**20)
    members = {"good.jpg": MEMBERS["b/img9.jpg"], "bomb.jpg": bytes(2**24)}
    bombs = tarred(tmp_path / "bomb.tar.gz", members), tmp_path / "bomb.zip"
    with zipfile.ZipFile(bombs[1], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for file in bombs:
        done = collect([str(file)], to)
        why = [each.why for each in done.refused if each.source == str(file)]
        assert why == ["it unpacks to more than 1,048,576 bytes; what came before that is kept."]


def test_a_picture_that_claims_to_be_huge_reserves_no_memory(tmp_path, to, monkeypatch):
    monkeypatch.setattr("odtrain.collect.sources.PICTURE_BYTES", 2**20)
    file = tarred(
        tmp_path / "a.tar.gz", {"huge.jpg": bytes(2**21), "good.jpg": MEMBERS["b/img9.jpg"]}
    )
    done = collect([str(file)], to)
    assert refusals(done) == [("a.tar.gz!huge.jpg", "has more than 1,048,576 bytes.")]
    assert done.added == ["img1.jpg"]


def test_a_locked_zip_says_so(tmp_path, to):
    file = zipped(tmp_path / "locked.zip", {"a.jpg": MEMBERS["b/img9.jpg"]})
    data = bytearray(file.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(start) + offset] |= 1  # general purpose bit 0: encrypted (APPNOTE 4.4.4)
    file.write_bytes(data)
    ((name, why),) = refusals(collect([str(file)], to))
    assert (name, "encrypted" in why) == ("locked.zip!a.jpg", True)


@pytest.fixture
def video(tmp_path):
    """40 frames: a scene of 20 that hardly moves, then 20 that are each another."""
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(40):
            scene = photograph(0 if number < 20 else number, 160, 120)
            frame = av.VideoFrame.from_ndarray(np.asarray(scene), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def test_every_nth_frame_of_a_video_is_taken_unless_it_looks_like_another(video, to):
    done = collect([str(video)], to, every=5)
    assert [row["source"] for row in manifest(to)] == [
        f"{video}#frame={number}" for number in (0, 20, 25, 30, 35)
    ]
    assert (done.frames_dropped, done.set_aside) == (3, 0)
    with Image.open(to / "img2.jpg") as frame:
        shown = np.asarray(photograph(20, 160, 120), int)
        assert np.abs(np.asarray(frame, int) - shown).mean() < 12
    again = collect([str(video)], to, every=5)
    assert (again.added, again.known, again.frames_dropped) == ([], 5, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\0\0\0\x18ftypmp42" + bytes(400),
        b"",
    ],
    ids=["playlist", "list of files", "header alone", "empty"],
)
def test_a_file_that_is_no_video_is_refused(tmp_path, to, data):
    file = tmp_path / "clip.mp4"
    file.write_bytes(data)
    ((name, why),) = refusals(collect([str(file)], to))
    assert (name, why.partition(": ")[0]) == ("clip.mp4", "is no video that can be read")


def test_a_video_that_breaks_off_gives_what_came_before_and_says_so(video, to):
    whole = video.read_bytes()
    moved = video.with_suffix(".mkv")
    with av.open(str(video)) as source, av.open(str(moved), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    whole = moved.read_bytes()
    moved.write_bytes(whole[: len(whole) * 3 // 4])
    done = collect([str(moved)], to, every=5)
    assert 1 < len(done.added) < 5
    ((name, why),) = refusals(done)
    assert (name, why.endswith(" What came before is kept.")) == ("clip.mkv", True)


@pytest.fixture
def web(card):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(card)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_of_a_list_of_urls_only_pictures_are_kept(card, web, tmp_path, to):
    (card / "page.jpg").write_text("<html>login</html>")
    lines = ["# found today", f"{web}/DCIM/IMG_2.jpg", "", f"{web}/page.jpg", f"{web}/no.jpg"]
    links = tmp_path / "links.txt"
    links.write_text("\n".join([*lines, f"{web}/DCIM/IMG_2.jpg", "file:///etc/passwd"]))
    done = collect([str(links)], to, private=True)
    assert [row["source"] for row in manifest(to)] == [f"{web}/DCIM/IMG_2.jpg"]
    assert refusals(done) == [
        ("page.jpg", "holds text such as a web page, not a picture."),
        ("no.jpg", "the server answered 404 File not found."),
        ("passwd", "is not an http or https URL."),
    ]
    assert collect([str(links)], to, private=True).known == 1


def test_a_url_with_a_query_is_a_source_and_this_machine_is_refused(web, tmp_path, capsys):
    url = f"{web}/DCIM/IMG_2.jpg?size=large"
    assert main(["collect", url, "--to", str(tmp_path / "new")]) == 1
    assert f"{url}: leads to 127.0.0.1, an address of this machine" in capsys.readouterr().out
    assert main(["collect", url, "--private", "--to", str(tmp_path / "new")]) == 0


def test_what_is_collected_from_a_url_is_known_without_its_password(web, tmp_path, to):
    links, host = tmp_path / "links.txt", web.removeprefix("http://")
    lines = (f"http://bob:PASSWORD@{host}/DCIM/IMG_2.jpg", f"{web}/no.jpg?token=TOKEN")
    links.write_text("\n".join(lines))
    done = collect([str(links)], to, private=True)
    assert [row["source"] for row in manifest(to)] == [f"http://bob:***@{host}/DCIM/IMG_2.jpg"]
    assert (to / "refused.csv").read_text() == (
        f"source,reason\n{web}/no.jpg?token=***,the server answered 404 File not found.\n"
    )
    assert "TOKEN" not in collected_summary(done)
    again = collect([str(links)], to, private=True)
    assert (again.known, again.added, again.set_aside) == (1, [], 0)


def test_a_source_that_is_not_there_is_told_before_anything_is_collected(card, to):
    with pytest.raises(
        DataError, match=r"^nowhere: no such file or folder, taken from /"
    ) as raised:
        collect([str(card), "nowhere"], to)
    assert "Give folders, archives, videos, or lists of URLs." in str(raised.value)
    assert not to.exists()


def test_somebody_elses_manifest_is_left_alone(card, to):
    to.mkdir()
    (to / "manifest.csv").write_text("name,price\nbolt,3\n")
    with pytest.raises(DataError) as raised:
        collect([str(card)], to)
    assert str(raised.value) == (
        f"{to / 'manifest.csv'}: is not a manifest that odtrain wrote.\n"
        "  Collect into a new folder, or move this file away."
    )
    assert (to / "manifest.csv").read_text() == "name,price\nbolt,3\n"


def test_a_row_that_was_cut_off_is_made_again(card, to):
    collect([str(card)], to)
    whole = (to / "manifest.csv").read_bytes()
    (to / "manifest.csv").write_bytes(whole[:-40])
    done = collect([str(card)], to)
    assert (done.added, done.known) == (["img3.jpg"], 2)
    assert [row["file"] for row in manifest(to)] == ["img1.jpg", "img2.jpg", "img3.jpg"]
    assert names(to) == ["img1.jpg", "img2.jpg", "img3.jpg"]


def test_the_command_says_what_it_did(card, tmp_path, capsys):
    write_xml(card / "DCIM" / "IMG_1.xml", "IMG_1.jpg", (120, 90), [])
    (card / "page.png").write_text("<html>")
    status = main(["collect", str(card), "--to", str(tmp_path / "new")])
    said = capsys.readouterr().out
    assert (status, said) == (
        0,
        f"{tmp_path / 'new'}: 3 new: img1.jpg to img3.jpg\n"
        "  1 have label files beside them, which were not taken: labelled pictures need no "
        "collecting, odtrain reads them where they lie\n"
        f"  1 refused, listed in {tmp_path / 'new' / 'refused.csv'}:\n"
        f"    {card / 'page.png'}: holds text such as a web page, not a picture.\n",
    )


def test_a_command_that_got_nothing_fails(tmp_path):
    (tmp_path / "page.png").write_text("<html>")
    assert main(["collect", str(tmp_path / "page.png"), "--to", str(tmp_path / "new")]) == 1


KILLED = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from odtrain import collect
    collect.collect([sys.argv[1]], Path(sys.argv[2]))
    """
)


@pytest.mark.parametrize("rounds", [4])
def test_killed_at_any_moment_and_run_again_it_loses_and_repeats_nothing(tmp_path, to, rounds):
    card = tmp_path / "card"
    card.mkdir()
    for number in range(60):
        photograph(number, 300, 200).save(card / f"IMG_{number}.jpg")
        photograph(number, 200, 133).save(card / f"IMG_{number}_small.jpg")
    for _ in range(rounds):
        had = len(list(to.glob("img*.jpg"))) if to.exists() else 0
        running = subprocess.Popen([sys.executable, "-c", KILLED, str(card), str(to)])
        while running.poll() is None and len(list(to.glob("img*.jpg"))) < had + 7:
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert len(list(to.glob("img*.jpg"))) < 60
    done = collect([str(card)], to)
    rows = manifest(to)
    assert done.refused == []
    assert len({row["source"] for row in rows}) == len(rows) == 120
    kept = {row["file"]: row["sha256"] for row in rows if not row["duplicate_of"]}
    assert sorted(kept) == sorted(f"img{number}.jpg" for number in range(1, 61))
    assert {name: sha256((to / name).read_bytes()) for name in kept} == kept
    assert not list(to.glob(".*.part"))
    aside = {row["file"] for row in rows if row["duplicate_of"]}
    assert len(aside) == 60
    assert {sha256((to / name).read_bytes()) for name in aside} == {
        row["sha256"] for row in rows if row["duplicate_of"]
    }


def test_a_full_disk_is_told_and_leaves_whole_pictures(card, small_disk):
    for number in range(60):
        photograph(number + 100, 300, 200).save(card / f"IMG_{number + 100}.jpg", quality=95)
    done = odtrain(["collect", str(card), "--to", str(small_disk / "pictures")], card)
    assert done.returncode == 1
    assert "Free space on that disk" in done.stderr
    assert "Traceback" not in done.stderr
    kept = sorted((small_disk / "pictures").glob("img*"))
    assert kept
    for file in kept:
        with Image.open(file) as picture:
            picture.load()


def test_what_was_done_is_described_on_one_screen(card, to):
    (card / "copy.jpg").write_bytes((card / "DCIM" / "IMG_1.jpg").read_bytes())
    photograph(20).save(card / "scan.bmp")
    assert collected_summary(collect([str(card)], to)).splitlines() == [
        f"{to}: 4 new: img1.jpg to img4.png",
        "  1 from BMP",
        f"  1 look like others, set aside in {to}-duplicates",
    ]
    assert names(to.with_name("pictures-duplicates")) == ["img1-copy1.jpg"]
