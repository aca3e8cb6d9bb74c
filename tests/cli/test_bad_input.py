"""What users give by mistake: each time one screen that says where, what, and what to do."""

import errno
import io
import json
import shutil
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient
from PIL import Image
from support.commands import odtrain
from support.disks import mounted
from support.pictures import draw_picture, label_picture, write_xml
from support.stores import free_port

from odtrain.cli.main import _told, main
from odtrain.config.compose import compose_config
from odtrain.dataset.faulty import LEAVABLE
from odtrain.dataset.ways_out import REPAIRED
from odtrain.model_source import open_source

SCREEN_LINES = 24

BOX = [("circle", 5, 5, 40, 40)]

PICS = ("data.images=pics", "data.name=odd")

TINY = (
    *PICS,
    "model=panels_ssd_mobilenet_v1",
    "data.validation_fraction=0",
    "model.input_size=64",
    "model.depth_multiplier=0.1",
    "train.steps=2",
    "train.batch_size=2",
    "evaluate.bootstrap=0",
    "evaluate.drawn=1",
    "export.formats=[tflite_fp32]",
    "benchmark.runs=1",
    "registry.min_recall=0",
    "tracking.system_metrics=false",
)


@pytest.fixture
def pics(tmp_path, monkeypatch):
    """Twelve good pictures in `pics`, beside which the commands are run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for i in range(12):
        label_picture(
            Path(f"pics/img{i}.png"), (64, 64), [*BOX, ("square", 30, 30, 60, 60)], seed=i
        )
    return tmp_path / "pics"


@pytest.fixture
def tracked(pics, database):
    """`pics`, and a database of runs where a new one would be made, which takes seconds."""
    shutil.copy(database, "mlflow.db")


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail, and gives what it said."""

    def run(*arguments):
        status = main(list(map(str, arguments)))
        captured = capsys.readouterr()
        assert (status, captured.out) == (1, "")
        assert "Traceback" not in captured.err
        assert len(captured.err.splitlines()) <= SCREEN_LINES
        return captured.err

    return run


def only_run(database):
    """The one run that a database holds."""
    client = MlflowClient(f"sqlite:///{database.absolute()}")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return run


def in_the_data(finding):
    """The whole message about the one error of `pics`."""
    told = f"pics: 1 error in the data; nothing was written.\n  error {finding}\n"
    leave = finding[:5] in LEAVABLE
    return f"{told}{how_to_go_on(leave=leave)}" if finding[:5] in REPAIRED else told


def how_to_go_on(errors="1 error", leave=True):
    """What is said of repairing `pics`."""
    here = Path.cwd()
    lines = [
        f"  To put right or leave out what can be in a copy ({errors}):",
        f"    odtrain check data.images={here}/pics data.name=odd --fix {here}/odd-repaired",
        *(["  Without a copy: data.faulty=leave_out"] if leave else []),
    ]
    return "".join(f"{line}\n" for line in lines)


# ---- pictures and labels


def test_no_folder(pics, refused):
    assert refused("train", "data.images=pix", "data.name=odd") == (
        f"pix: is not a folder, taken from {Path.cwd()}.\n"
        "  Set data.images to the folder that holds the files.\n"
    )


def test_no_pictures(pics, refused):
    Path("empty").mkdir()
    assert refused("train", "data.images=empty", "data.name=odd") == (
        "empty: 1 error in the data; nothing was written.\n"
        "  error OD001 empty: holds no pictures. Set data.images to the folder that holds them.\n"
    )


def test_no_labels(pics, refused):
    for file in pics.glob("*.xml"):
        file.unlink()
    assert refused("train", *PICS) == in_the_data(
        "OD002 pics: holds no label files. Set data.annotations to the folder of the label files."
    )


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]><annotation><filename>&lol9;</filename></annotation>"
)
EXTERNAL = (
    '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    "<annotation><filename>&x;</filename></annotation>"
)
ENTITIES = (
    "OD005 pics/img3.xml: declares XML entities. No label tool writes that: look at where the file "
    "comes from, and label the picture anew."
)


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        pytest.param(
            "img3.png 5 5 40 40",
            "OD003 pics/img3.xml: is not XML: line 1, column 1: no tag begins there. "
            "Save it again in labelImg, or delete it.",
            id="not XML",
        ),
        pytest.param(BOMB, ENTITIES, id="bomb"),
        pytest.param(EXTERNAL, ENTITIES, id="external entity"),
    ],
)
def test_a_label_file_that_is_none(pics, refused, text, finding):
    (pics / "img3.xml").write_text(text)
    assert refused("train", *PICS) == in_the_data(finding)


def test_a_truncated_jpeg(pics, refused):
    label_picture(pics / "cut.jpg", (64, 64), BOX)
    data = (pics / "cut.jpg").read_bytes()
    (pics / "cut.jpg").write_bytes(data[: len(data) // 2])
    said = refused("train", *PICS)
    assert said.startswith(
        "pics: 1 error in the data; nothing was written.\n"
        "  error OD010 pics/cut.jpg: cannot be decoded: image file is truncated"
    )
    assert said.endswith(
        f" Replace it by an undamaged copy, or delete it with its label file.\n{how_to_go_on()}"
    )


def test_two_pictures_of_one_name(pics, refused):
    draw_picture(pics / "more/img3.png", (64, 64), BOX)
    assert refused("train", *PICS) == in_the_data(
        "OD013 pics/img3.png: has the name of pics/more/img3.png. Rename one of them together with "
        "its label file, or delete it if it is a copy."
    )


def test_many_errors_still_fit_on_a_screen(pics, refused):
    for file in pics.glob("*.xml"):
        file.write_text("no XML")
    assert refused("train", *PICS).endswith(
        f"\n  and 2 more; to see all of them: odtrain check\n{how_to_go_on('12 errors')}"
    )


def test_a_wrong_extension_is_a_warning(pics, capsys):
    (pics / "img3.png").rename(pics / "img3.jpg")
    assert main(["prepare", *PICS]) == 0
    assert (
        "\n  findings: 4 warning, 1 info; to see them: odtrain check\n" in capsys.readouterr().out
    )
    assert main(["check", *PICS, "--json", "findings.json"]) == 0
    found = json.loads(Path("findings.json").read_text())
    (finding,) = [each for each in found if each["code"] == "OD101"]
    assert (finding["severity"], finding["file"]) == ("warning", "pics/img3.jpg")
    assert "PNG" in finding["cause"]


def test_an_empty_test_split(pics, refused):
    assert refused("train", *PICS, "data.test_fraction=0") == in_the_data(
        "OD017 pics: the test split is empty (12 labelled pictures in all). Set data.test_fraction, "
        "such as 0.2, or give data.test_list."
    )


def test_a_batch_larger_than_the_data(pics, refused):
    assert refused("train", *TINY, "train.batch_size=100") == (
        "train.batch_size=100: is more than the 10 training pictures of odd.\n"
        "  Give train.batch_size=10 or less.\n"
    )


def test_nothing_was_tracked_before_the_data_was_in_order(pics, refused):
    refused("train", *TINY, "train.batch_size=100")
    assert not Path("mlflow.db").exists()
    assert not Path("outputs").exists()


# ---- settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        pytest.param(
            "train.stepz=3",
            "train.stepz=3: no such key.\n  Did you mean: train.steps, train.seed, train.restore\n",
            id="key",
        ),
        pytest.param(
            "train.steps=many",
            "train.steps=many: Value 'many' of type 'str' could not be converted to Integer\n"
            "  Give a value of that type; odtrain --help names where every key is explained.\n",
            id="type",
        ),
        pytest.param(
            "train.optimizer=sgdd",
            "train.optimizer=sgdd: no such choice.\n  Choose one of: rmsprop, momentum, adam.\n",
            id="choice",
        ),
        pytest.param(
            "train.seed=-1",
            "train.seed=-1: too small.\n  Give at least 0.\n",
            id="seed",
        ),
        pytest.param(
            "export.formats=[]",
            "export.formats=[]: names no file to make.\n  Choose one of: pb, saved_model, "
            "tflite_fp32, tflite_fp16, tflite_dynamic, tflite_int8, onnx, onnx_raw, openvino_fp32, "
            "openvino_int8.\n",
            id="no format",
        ),
        pytest.param(
            "registry.name=a/b",
            'registry.name="a/b": cannot name a registered model.\n'
            "  Give one without / : @, such as registry.name=raccoon.\n",
            id="model name",
        ),
        pytest.param(
            "--overrides=train.steps='5",
            "--overrides train.steps='5: No closing quotation.\n  Close every quote, or double it.\n",
            id="open quote",
        ),
    ],
)
def test_a_wrong_override(pics, refused, override, message):
    assert refused("train", *PICS, override) == message


def test_a_run_that_is_not_there(tracked, refused):
    nobody = "0" * 32
    assert refused("train", *TINY, f"train.resume={nobody}") == (
        f"runs:/{nobody}/config/config.yaml: cannot be downloaded: Run with id={nobody} not found\n"
        f"  Is the run in sqlite:///{Path.cwd()}/mlflow.db? Choose another: tracking.uri=.\n"
    )


# ---- checkpoints


def tarball(*members):
    with tarfile.open("zoo.tar.gz", "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_a_truncated_tarball(tracked, refused):
    tarball(("m/model.ckpt.index", np.random.default_rng(0).bytes(5000)))
    data = Path("zoo.tar.gz").read_bytes()
    Path("zoo.tar.gz").write_bytes(data[: len(data) // 2])
    assert refused("train", *TINY, "train.checkpoint=zoo.tar.gz").endswith(
        "zoo.tar.gz: not a whole tarball (Compressed file ended before the end-of-stream marker was "
        "reached).\n  Download it again: it is truncated, or something else under this name.\n"
    )


def test_a_hostile_tarball(tracked, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tarball(("../../evil", b"evil"))
    assert refused("train", *TINY, "train.checkpoint=zoo.tar.gz").endswith(
        'zoo.tar.gz: not unpacked: "../../evil" would be written outside its folder.\n'
        "  No zoo archive does that. Do not trust it; get the archive from its publisher.\n"
    )
    assert not list(tmp_path.rglob("evil"))


def test_a_checkpoint_of_another_network(tracked, refused, shared):
    faces = shared / "zoo/ssd_mobilenet_v1_widerface_2018.tar.gz"
    assert refused("train", *TINY, f"train.checkpoint={faces}").endswith(
        f"{faces}: it fits 0% of the backbone's parameters: it looks like ssd_mobilenet_v1 of depth "
        "1, and model=panels_ssd_mobilenet_v1 is ssd_mobilenet_v1 of depth 0.1.\n"
        "  Set model.depth_multiplier=1, or give another train.checkpoint.\n"
    )
    assert only_run(Path("mlflow.db")).info.status == "FAILED"


# ---- pictures of every kind, and a tracking server that is away


def odd_pictures(folder):
    """A data set in which hardly a picture is like the other; all of them can be used."""
    modes = {"CMYK": "jpg", "L": "png", "RGBA": "png", "P": "png", "LA": "png", "1": "png"}
    for mode, suffix in modes.items():
        file = draw_picture(folder / f"{mode} 그림.png", (64, 64), BOX)
        image = Image.open(file).convert(mode)
        file.unlink()
        image.save(file.with_suffix(f".{suffix}"))
        write_xml(file.with_suffix(".xml"), f"{file.stem}.{suffix}", (64, 64), BOX)
    deep = np.random.default_rng(0).integers(0, 65535, (64, 64)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "16 bit.png")
    write_xml(folder / "16 bit.xml", "16 bit.png", (64, 64), BOX)
    turned = folder / "turned é.jpg"
    label_picture(turned, (48, 80), [("square", 5, 30, 40, 70)])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    image = Image.open(turned)
    image.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    for i in range(4):
        label_picture(folder / f"img{i}.jpg", (64, 64), [("square", 20, 20, 60, 60)], seed=i)


@pytest.fixture(scope="module")
def offline(tmp_path_factory, request):
    """A training on odd pictures, without its tracking server: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "pics").mkdir()
    odd_pictures(folder / "pics")
    command = ["train", *TINY, f"tracking.uri=http://127.0.0.1:{free_port()}"]
    with ThreadPoolExecutor() as pool:
        done = pool.submit(odtrain, command, folder, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
        request.getfixturevalue("trained")  # needed later anyway, and two go on two cores
        return folder, done.result()


@pytest.mark.slow
def test_pictures_of_every_kind_are_trained_on(offline):
    folder, done = offline
    assert done.returncode == 0, done.stderr
    counts = json.loads((folder / "datasets/odd/dataset.json").read_text())["counts"]
    assert sum(split["images"] for split in counts.values()) == 12
    assert sum(split["boxes"] for split in counts.values()) == 12


@pytest.mark.slow
def test_a_run_goes_on_without_its_server_and_says_so(offline):
    _, done = offline
    assert "cannot be reached (Connection refused). The run goes on; everything is kept in " in (
        done.stderr.replace("[Errno 111] ", "")
    )
    assert "Later: odtrain track sync outputs/Default/offline-" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_validation_the_last_weights_are_the_run_s(offline, monkeypatch):
    folder, _ = offline
    monkeypatch.chdir(folder)
    (run,) = Path("outputs/Default").iterdir()
    last, best = (tf.train.load_checkpoint(str(run / f"checkpoints/{n}")) for n in ("last", "best"))
    keys = [key for key in best.get_variable_to_shape_map() if key.startswith("network/")]
    assert len(keys) > 100
    for key in keys:
        assert np.array_equal(best.get_tensor(key), last.get_tensor(key)), key
    assert open_source(run.name, compose_config([])).class_names == ("circle", "square")


@pytest.mark.slow
def test_what_waited_is_sent_and_registered_later(offline, database, tmp_path, monkeypatch, capsys):
    folder, _ = offline
    store = tmp_path / "mlflow.db"
    store.write_bytes(database.read_bytes())
    monkeypatch.chdir(folder)
    assert main(["track", "sync", f"tracking.uri=sqlite:///{store}"]) == 0
    assert capsys.readouterr().out == "1 runs sent, 1 models registered.\n"
    run, client = only_run(store), MlflowClient(f"sqlite:///{store}")
    assert run.info.status == "FINISHED"
    assert {"train/loss", "eval/mAP", "export/tflite_fp32/mAP"} <= run.data.metrics.keys()
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {
        "checkpoints",
        "config",
        "data",
        "eval",
        "export",
    }
    assert client.get_model_version_by_alias("odd", "champion").run_id == run.info.run_id


# ---- disks


def test_a_disk_too_small_for_the_prepared_data(pics, refused, tmp_path):
    with mounted(tmp_path / "disk", "size=40k") as disk:
        said = refused("train", *TINY, f"data.prepared={disk}/odd")
        assert said == (
            f"{disk}/odd: cannot be written: No space left on device.\n"
            "  Free space on that disk, or set data.prepared to a folder on another one.\n"
        )
        assert not list(disk.glob("odd/*.record*"))


def test_a_full_disk_that_no_error_names_is_that_with_the_least_room(tmp_path, monkeypatch):
    with mounted(tmp_path / "disk", "size=8k") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        assert _told(OSError(errno.ENOSPC, "No space left on device")) == (
            f"{disk} (TMPDIR): No space left on device.\n"
            "  Free space on that disk, or choose a folder on another one."
        )


@pytest.mark.slow
def test_a_disk_too_small_for_what_was_drawn(pics, refused, tmp_path, trained):
    with mounted(tmp_path / "disk", "size=8k") as disk:
        said = refused(
            "predict",
            f"source={trained.run / 'export/model.tflite'}",
            "input=pics",
            f"output={disk}",
        )
        assert said.endswith(
            f"{disk}: cannot be written: No space left on device.\n"
            "  Free space there, or choose another folder: output=DIR.\n"
        )


def test_a_prepared_folder_that_cannot_be_written(pics, refused, tmp_path):
    with mounted(tmp_path / "disk", "ro") as disk:
        assert refused("train", *TINY, f"data.prepared={disk}/odd") == (
            f"{disk}/.odd.lock: cannot be written: Read-only file system.\n"
            "  Set data.prepared to a folder that you may write to.\n"
        )


def test_an_output_folder_that_cannot_be_written(tracked, refused, tmp_path):
    with mounted(tmp_path / "disk", "ro") as disk:
        said = refused("train", *TINY, f"outputs={disk}/runs")
        assert said.endswith("\n  Choose another folder with outputs=DIR.\n")
        assert f"{disk}/runs/Default/" in said
        assert "Read-only file system" in said
    assert only_run(Path("mlflow.db")).info.status == "FAILED"


def test_findings_that_cannot_be_written(pics, refused, tmp_path):
    with mounted(tmp_path / "disk", "ro") as disk:
        assert refused("check", *PICS, "--json", f"{disk}/findings.json") == (
            f"{disk}/findings.json: Read-only file system.\n"
            "  Choose a folder that you may write to.\n"
        )


def test_a_real_command_line_ends_with_status_one_and_no_traceback(tmp_path):
    done = odtrain(["prepare", "data.images=nowhere"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        f"nowhere: is not a folder, taken from {tmp_path}.\n"
        "  Set data.images to the folder that holds the files.\n"
    )
