"""What `input=` names, above all at a URL: a real server on this machine."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from support.pictures import draw_picture
from support.videos import make_video

from odtrain.config.compose import section
from odtrain.config.schema import PredictConfig
from odtrain.errors import DataError
from odtrain.media.find import camera_number, find_media


def media(folder, text, **limits):
    return find_media(
        section(PredictConfig, **{"private": True} | limits), str(text), folder / "out", "drawn"
    )


@pytest.fixture
def folder(tmp_path):
    """A picture, a video, a GIF of one frame and one of three, and a note."""
    draw_picture(tmp_path / "in" / "a.jpg", (32, 24), [])
    make_video(tmp_path / "in" / "b.mp4", 3)
    frames = [Image.new("L", (32, 24), 80 * i) for i in range(3)]
    frames[0].save(tmp_path / "in" / "c.gif")
    frames[0].save(tmp_path / "in" / "d.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "in" / "note.md").write_text("not for the model")
    return tmp_path


@pytest.fixture
def server():
    """Serves `files` by path; `delays` are seconds before each of ten pieces."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = server.files.get(self.path.partition("?")[0])
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            if self.path.startswith("/sized"):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            step = -(-len(content) // 10)
            for start in range(0, len(content), step):
                time.sleep(server.delay)
                try:
                    self.wfile.write(content[start : start + step])
                except OSError:
                    return None
            return None

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.delay = {}, 0
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_folder_gives_pictures_and_videos_in_order(folder):
    found = media(folder, folder / "in")
    assert [(medium.file.name, medium.moving) for medium in found] == [
        ("a.jpg", False),
        ("b.mp4", True),
        ("c.gif", False),
        ("d.gif", True),
    ]


def test_a_file_without_a_suffix_is_told_by_its_bytes(folder):
    (folder / "in/a.jpg").rename(folder / "a")
    (folder / "in/b.mp4").rename(folder / "b")
    assert [media(folder, folder / name)[0].moving for name in "ab"] == [False, True]


def test_a_list_names_several_things_once(folder):
    names = folder / "list.txt"
    names.write_text(f"# mine\n{folder}/in/b.mp4\n\n{folder}/in/*.jpg\n{folder}/in/b.mp4\n")
    assert [medium.file.name for medium in media(folder, names)] == ["b.mp4", "a.jpg"]


def test_an_empty_list_is_told(tmp_path):
    (tmp_path / "list.txt").write_text("# nothing yet\n")
    with pytest.raises(DataError) as caught:
        media(tmp_path, tmp_path / "list.txt")
    assert str(caught.value) == (
        f"{tmp_path}/list.txt: names nothing.\n  Write one picture, video or URL a line."
    )


@pytest.mark.parametrize(
    ("text", "number"), [("camera:0", 0), ("camera:12", 12), ("camera", None), (None, None)]
)
def test_cameras_are_named_by_number(text, number):
    assert camera_number(text) == number


def test_a_picture_at_a_url_is_fetched_and_kept(folder, server):
    content = (folder / "in/a.jpg").read_bytes()
    server.files["/x/a%20b.jpg"] = content
    url = f"{server.address}/x/a%20b.jpg?size=2"
    (found,) = media(folder, url)
    assert found.name == url
    assert found.file.read_bytes() == content
    assert found.file.name.endswith("-a_b.jpg")
    server.files.clear()
    again = find_media(
        section(PredictConfig, private=True), url, folder / "out", "drawn", going_on=True
    )
    assert again == [found]


def test_a_name_in_a_url_leads_to_no_other_folder(folder, server):
    server.files["/..%2F..%2Fa.jpg"] = (folder / "in/a.jpg").read_bytes()
    (found,) = media(folder, f"{server.address}/..%2F..%2Fa.jpg")
    assert found.file.parent == folder / "out/fetched"


@pytest.mark.parametrize("path", ["/sized.mp4", "/unsized.mp4"])
def test_what_is_too_large_is_not_fetched(tmp_path, server, path):
    server.files[path] = b"x" * 300_000
    with pytest.raises(DataError) as caught:
        media(tmp_path, server.address + path, max_download_mb=0.2)
    assert str(caught.value) == (
        f"{server.address}{path}: is larger than 0.2 MB: it was not fetched.\n"
        "  Allow more: predict.max_download_mb=N."
    )
    assert not list(tmp_path.rglob("*.part"))


def test_what_takes_too_long_is_not_fetched(tmp_path, server):
    server.files["/slow.mp4"], server.delay = b"x" * 700_000, 0.1
    with pytest.raises(DataError, match=r"takes more than 0.2 s: it was not fetched\."):
        media(tmp_path, f"{server.address}/slow.mp4", max_download_seconds=0.2)
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_not_there_is_told(tmp_path, server):
    with pytest.raises(DataError) as caught:
        media(tmp_path, f"{server.address}/none.jpg")
    assert str(caught.value) == (
        f"{server.address}/none.jpg: cannot be fetched: the server answered 404 Not Found.\n"
        "  Is the address right?"
    )


def test_a_server_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"cannot be fetched: no connection to the server\."):
        media(tmp_path, "http://127.0.0.1:9/a.jpg")


def test_a_url_is_known_without_its_password_and_apart_from_its_like(tmp_path, server):
    draw_picture(tmp_path / "a.jpg", (32, 24), [])
    server.files["/a.jpg"] = (tmp_path / "a.jpg").read_bytes()
    host = server.address.removeprefix("http://")
    (tmp_path / "links.txt").write_text(
        f"http://bob:PASSWORD@{host}/a.jpg\n{server.address}/a.jpg?key=1\n{server.address}/a.jpg?key=2\n"
    )
    one, two, three = media(tmp_path, tmp_path / "links.txt")
    assert one.name == f"http://bob:***@{host}/a.jpg"
    assert two.name == f"{server.address}/a.jpg?key=*** ({two.file.name})"
    assert three.name == f"{server.address}/a.jpg?key=*** ({three.file.name})"
    assert two.file != three.file


def test_a_stream_that_cannot_be_read_is_told_without_its_password(tmp_path):
    with pytest.raises(DataError) as caught:
        media(tmp_path, "rtsp://bob:PASSWORD@127.0.0.1/stream")
    assert str(caught.value).startswith("rtsp://bob:***@127.0.0.1/stream: ")
    assert "PASSWORD" not in str(caught.value)


def test_an_address_of_this_machine_is_not_fetched_unasked(tmp_path, server):
    server.files["/a.jpg"] = b"secret"
    with pytest.raises(DataError) as caught:
        media(tmp_path, f"{server.address}/a.jpg", private=False)
    assert str(caught.value) == (
        f"{server.address}/a.jpg: cannot be fetched: leads to 127.0.0.1, an address of this machine or "
        "network; predict.private=true allows it.\n  Is the address right?"
    )
    assert not list(tmp_path.rglob("*.jpg"))
