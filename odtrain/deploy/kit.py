"""`odtrain deploy`: a kit is a registered file, untouched, and what its target needs beside it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import odtrain_runtime
from odtrain.config.shipped import shipped
from odtrain.deploy.form import check_form, check_square, form_of
from odtrain.deploy.targets import TARGETS, Target
from odtrain.errors import ConfigError, TrackingError, choose
from odtrain.export.int8.rungs import RUNG, TAKEN, for_accelerators
from odtrain.export_formats import FORMATS
from odtrain.io.atomic import replacing_folder
from odtrain.io.checksums import SUMS, verify
from odtrain.io.free_names import is_taken
from odtrain.model_files.operators import for_edge_tpu, staying
from odtrain.registry.download import download
from odtrain.registry.versions import LABEL_FILES, SOUND, Version, files_of, find_version
from odtrain.system.progress import doing
from odtrain_runtime import resizing
from odtrain_runtime.plain import plain
from odtrain_runtime.provenance import read_labels, read_passport, read_thresholds
from odtrain_runtime.tflite_metadata import read_metadata
from odtrain_runtime.tiles import read_tiles

TEMPLATE = ".j2"
KIT = "kit.json"
COMPILER = "edgetpu_compiler"
COMPILED = "model_int8_edgetpu.tflite"
COMPILING_SECONDS = 600


def deploy(uri: str, to: str, out: Path, store: str) -> str:
    """Write the kit of a registered version into a new folder.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a bare name.
        to: one of `TARGETS`.
        out: the folder; made, and refused if there is something in it.
        store: URI of the MLflow store.

    Returns:
        What was written, in words.

    Raises:
        ConfigError: there is no such target, or the folder is not empty.
        TrackingError: there is no such version, or it holds no file that the target takes.
    """
    choose("--to", to, list(TARGETS))
    if is_taken(out):
        raise ConfigError(f"--out {out}", "is there already and not empty.", "Give a new folder.")
    target, version = TARGETS[to], find_version(uri, store)
    chosen = fitting(version, target, to)
    with replacing_folder(out) as part:
        facts = _registered(part, version, chosen, target, store)
        if target.edge_tpu:
            facts |= _for_edge_tpu(part / facts["file"])
        for kit in target.kits:
            _fill(part, kit, facts)
        if target.runtime:
            _bring_runtime(part)
        verify(part)
    return "\n".join(
        [
            f"{facts['uri']} for {to}: {out}",
            f"  {facts['file']} is the registered {chosen}, byte for byte.",
            *(f"  {doubt}" for doubt in facts["doubts"]),
            f"  Next: {out / 'README.md'} has the steps.",
        ]
    )


def fitting(version: Version, target: Target, to: str) -> str:
    """The format of the version's file that the target takes.

    Raises:
        TrackingError: it has none; the message says why.
    """
    held = files_of(version)
    found = next((name for name in target.formats if name in held), None)
    if found is not None:
        return found
    lost = [name for name in target.formats if f"export/{name}/failed" in version.tags]
    reasons = "".join(
        f" Its {name} was not registered: {version.tags[f'export/{name}/failed']}." for name in lost
    )
    wanted = " or ".join(target.formats)
    raise TrackingError(
        f"models:/{version.name}/{version.number}",
        f"holds no file for {to}, which takes {wanted}: {target.why}.{reasons}",
        f"It holds: {', '.join(held) or 'nothing'}. Train with {target.formats[0]} among export.formats.",
    )


def _registered(
    part: Path, version: Version, format: str, target: Target, store: str
) -> dict[str, Any]:
    """Bring the registered file and its labels into the kit; what templates and programs know of it."""
    place = part / target.place
    uri = f"models:/{version.name}/{version.number}"
    download(uri, place, store, format)
    slug = slug_of(version.name)
    file = place / FORMATS[format].file
    moved = part / "models" / slug / version.number if file.is_dir() else file
    if moved != file:
        moved.parent.mkdir(parents=True)
        file.rename(moved)
    inside = moved.relative_to(part).as_posix()
    _list_sums(part, place, file.name, inside)
    labels = (place / LABEL_FILES["labels"]).read_text(encoding="utf-8")
    known = {
        "uri": uri,
        "name": plain(version.name),
        "number": version.number,
        "slug": slug,
        "file": inside,
        "format": format,
        "class_names": list(read_labels(labels)),
        **_seen(moved, uri, target),
    }
    (part / KIT).write_text(
        json.dumps(known, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )
    doubts = doubts_of(version.tags, _passport(moved), target)
    return {**known, "doubts": doubts, "told": _told(known, version, doubts), **_words(known)}


def doubts_of(tags: Mapping[str, str], passport: Mapping[str, str], target: Target) -> list[str]:
    """Why what was measured may not be what the target sees."""
    doubts = []
    if tags.get(SOUND) == "failed":
        gate = plain(tags.get("odtrain.gate", ""))
        doubts.append(f"The gate found fault with its files: {gate}")
    if target.form and not for_accelerators(passport):
        doubts.append(
            f'It was made by "{plain(passport[RUNG])}" (see docs/int8.md): an Edge TPU takes '
            f"{plain(passport.get(f'{TAKEN}coral', '?'))} of its network's operators."
        )
    if (tiles := read_tiles(passport)) and not target.runtime:
        doubts.append(f"It was measured by {tiles}; here each picture is looked at once.")
    return doubts


def _seen(file: Path, uri: str, target: Target) -> dict[str, Any]:
    thresholds = read_thresholds(_passport(file))
    if file.is_dir():
        return {"thresholds": thresholds}
    form = form_of(file)
    if target.form:
        check_form(uri, form)
    if target.squares:
        check_square(uri, form)
    height, width = form.size
    fill = resizing.FILLS.get(form.resize)
    return {
        "height": height,
        "width": width,
        "dtype": form.dtype,
        "resize": form.resize,
        "fill": fill and [round(level) for level in fill],
        "thresholds": thresholds,
    }


def _passport(file: Path) -> dict[str, str]:
    if file.is_dir():
        return read_passport((file / "assets/passport.json").read_text(encoding="utf-8"))
    return read_metadata(file).passport


def _list_sums(part: Path, place: Path, name: str, inside: str) -> None:
    """`SHA256SUMS` of the kit: the registry's lines, with where each file lies in the kit."""
    before = (place / SUMS).read_text(encoding="utf-8").splitlines()
    folder = place.relative_to(part).as_posix()
    lines = []
    for digest, _, listed in (line.partition("  ") for line in before):
        top, _, rest = listed.partition("/")
        here = inside if top == name else (listed if folder == "." else f"{folder}/{listed}")
        lines.append(
            f"{digest}  {here}/{rest}\n" if top == name and rest else f"{digest}  {here}\n"
        )
    (part / SUMS).write_text("".join(lines), encoding="utf-8")


def slug_of(name: str) -> str:
    """A model's name as a folder, a service and a served model may be called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "detector"


def _told(known: Mapping[str, Any], version: Version, doubts: list[str]) -> str:
    """What every README begins with."""
    tags = version.tags
    score = tags.get(f"export/{known['format']}/mAP")
    said = [
        f"`{known['file']}` is `{known['uri']}` ({known['format']}), byte for byte as it was registered: "
        f"`sha256sum --check {SUMS}` in this folder says whether it still is."
    ]
    if score is not None:
        said.append(f"mAP of this very file on its test pictures: {score}.")
    return "\n".join([*said, *(f"**{doubt}**" for doubt in doubts)])


def _words(known: Mapping[str, Any]) -> dict[str, str]:
    """Names in the forms that targets want."""
    slug = str(known["slug"])
    return {
        "title": f"{slug}, what a camera sees",
        "package": f"detector_{slug.replace('-', '_')}",
        "model_file": Path(str(known["file"])).name,
        "compiled": COMPILED,
    }


# ---- what stands beside the file


def _fill(part: Path, kit: str, facts: Mapping[str, Any]) -> None:
    """Copy the files of a folder of `kits/`; templates are filled with the facts."""
    templates, kits = _templates(), shipped("kits")
    for source in sorted(path for path in (kits / kit).rglob("*") if path.is_file()):
        if source.parent.name == "__pycache__" or source.name == "model.yml":
            continue
        target = part / source.relative_to(kits / kit)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == TEMPLATE:
            text = templates.get_template(source.relative_to(kits).as_posix()).render(facts)
            target.with_suffix("").write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(source, target)


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(shipped("kits")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # no pages: text, YAML and Kotlin
    )
    # Every JSON text is YAML too, whatever letters are in it.
    made.filters["yaml"] = lambda text: json.dumps(text, ensure_ascii=False)
    return made


def _for_edge_tpu(file: Path) -> dict[str, Any]:
    """Which operators it takes; its file beside the registered one, where its compiler is installed."""
    operators = for_edge_tpu(file.read_bytes())
    said = f"{COMPILER} was not installed where this kit was made: nothing was compiled."
    if shutil.which(COMPILER):
        _compile(file)
        said = f"`{COMPILED}` in this folder was made so; it is another file than the one that was measured."
    stays = [each for each in operators if each.why]
    return {
        "operators": operators,
        "stays": stays,
        "staying": staying(operators),
        "compiling": said,
    }


@doing("Compiling for an Edge TPU")
def _compile(file: Path) -> None:
    """Make the Edge TPU's file.

    Raises:
        TrackingError: the compiler makes none, or not in time.
    """
    try:
        done = subprocess.run(
            [COMPILER, "-s", file.name],
            cwd=file.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"{COMPILER} was not done with it after {COMPILING_SECONDS} s."
    except OSError as error:
        problem = f"{COMPILER} does not start: {error.strerror}."
    else:
        if done.returncode == 0 and file.with_name(COMPILED).is_file():
            return
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
        problem = f"{COMPILER} cannot compile it; it says: {plain(said[0])}"
    raise TrackingError(
        file.name, problem, f"Take {COMPILER} off PATH, and compile the kit's file elsewhere."
    )


def _bring_runtime(part: Path) -> None:
    package = Path(str(odtrain_runtime.__file__)).parent
    leave = shutil.ignore_patterns("__pycache__", "pyfunc.py")
    shutil.copytree(package, part / package.name, ignore=leave)
