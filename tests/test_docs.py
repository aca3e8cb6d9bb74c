"""README and docs say what is there: commands, keys, choices, findings, modules."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from odtrain.cli.commands import COMMANDS
from odtrain.cli.parse import parse
from odtrain.config.compose import NOTHING_CHOSEN, compose_config
from odtrain.config.schema import keys
from odtrain.config.shipped import shipped
from odtrain.findings import KINDS
from odtrain.zoo.catalog import catalog_table
from odtrain.zoo.purposes import PURPOSES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MOST_WORDS = 1200
"""Of the README: a reader of two minutes."""
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
GUIDE = "\n".join(
    (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        *(f"docs/{each}.md" for each in ("training", "models", "sweeps", "team")),
    )
)
"""What users read first: its choices are names of conf/, never placeholders."""

KEYS = set(keys())
GROUPS = {
    group.name: {choice.stem for choice in group.glob("*.yaml")}
    for group in shipped("conf").iterdir()
    if group.is_dir()
}
SETTING = re.compile(r"^(--)?([a-z_]+(\.[a-z_]+)*)=(.*)$")
INLINE_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+|[a-z]+)=([^`]*)`")
INLINE_KEY = re.compile(rf"`((?:{'|'.join(sorted(GROUPS))})\.[a-z_]+)`")
FILE_SUFFIXES = (".yaml", ".tflite", ".onnx", ".xml", ".bin", ".pb", ".ckpt", ".json")


def fenced(text, language="sh"):
    """The lines of all fenced blocks of a language, comments cut off."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def words(line):
    return shlex.split(line, comments=True)


def commands(program, text):
    """What follows `program` in the fenced commands of a page."""
    lines = fenced(re.sub(r"\\\n *", "", text))
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [words(part)[1:] for part in parts if words(part)[:1] == [program]]


def once(found):
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


ODTRAIN = once(commands("odtrain", GUIDE))
MLFLOW_RUN = once(found for found in commands("mlflow", GUIDE) if found[0] == "run")


def settings(found):
    return [match.group(2, 4) for word in found if (match := SETTING.match(word))]


def refuse_setting(key, value):
    """Why a setting in a page cannot be; None if it can."""
    if key in GROUPS:
        known = value in GROUPS[key] or f"{key}={value}" in NOTHING_CHOSEN
        return None if known else f"{key} has no choice {value}"
    return None if key in KEYS else f"there is no key {key}"


def test_there_are_commands_to_check():
    assert len(commands("odtrain", README)) > 2
    assert len(ODTRAIN) > 40
    assert len(MLFLOW_RUN) > 1


def test_the_readme_is_for_a_reader_of_two_minutes():
    assert len(README.split()) <= MOST_WORDS


@pytest.mark.parametrize("found", ODTRAIN, ids=" ".join)
def test_an_odtrain_command_exists(found):
    name, *rest = found
    assert name in COMMANDS
    flags = {flag.name for flag in parse(found).action.all_flags}
    assert {word for word in rest if word.startswith("--")} <= flags
    parse(found).invocation()
    assert [why for setting in settings(rest) if (why := refuse_setting(*setting))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_odtrain_commands_of_a_page_are_understood(page):
    for found in commands("odtrain", page.read_text(encoding="utf-8")):
        parse(found).invocation()
        own = [text for text in settings(found[1:]) if text[0] not in ("experiment", "data")]
        assert [why for setting in own if (why := refuse_setting(*setting))] == [], found


@pytest.mark.parametrize("found", ODTRAIN, ids=" ".join)
def test_the_settings_of_a_command_compose(found):
    compose_config([word for word in found if SETTING.match(word)])


@pytest.mark.parametrize("found", MLFLOW_RUN, ids=" ".join)
def test_an_mlflow_run_passes_settings_that_exist(found):
    assert found[1:4] == [".", "--env-manager", "local"]
    assert set(found[4::2]) <= {"-P"}
    assert [why for setting in settings(found) if (why := refuse_setting(*setting))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_keys_in_the_text_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    named = [key for key, _ in INLINE_SETTING.findall(text) if key != "key"]
    named += [key for key in INLINE_KEY.findall(text) if not key.endswith(FILE_SUFFIXES)]
    assert [key for key in named if key not in KEYS | set(GROUPS)] == []


def test_choices_in_the_text_of_a_page_exist():
    choices = re.findall(rf"`({'|'.join(sorted(GROUPS))})=([\w.]+)`", GUIDE)
    assert choices
    assert [why for choice in choices if (why := refuse_setting(*choice))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_of_a_page_exist(page):
    named = re.findall(r"`odtrain ([a-z]+)", page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in COMMANDS] == []


def test_the_page_of_models_names_every_command():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    named = {found[0] for found in commands("odtrain", page)}
    assert named == set(COMMANDS)


def test_contributing_names_the_entry_points_of_mlproject():
    (line,) = [line for line in CONTRIBUTING.splitlines() if line.startswith("MLproject ")]
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    assert line.partition(": ")[2].split(", ") == list(project["entry_points"])


def test_contributing_prints_the_test_command_of_the_readme():
    marked = README.partition("<!-- test-command -->")[2].partition("<!-- end -->")[0]
    (command,) = fenced(marked.lstrip())
    assert command in fenced(CONTRIBUTING)


def test_ci_runs_the_test_command_of_the_readme():
    marked = README.partition("<!-- test-command -->")[2].partition("<!-- end -->")[0]
    (command,) = fenced(marked.lstrip())
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (line,) = [line for line in script.splitlines() if line.startswith("test_command=")]
    done = subprocess.run(
        ["bash", "-c", f'{line}\nprintf %s "$test_command"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == command


def places(page):
    """What a link may lead to in a page: its headings, as GitHub and the site call them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
    broken = [file for file, _ in links if file and not (page.parent / file).exists()]
    assert broken == []
    ends = [(page.parent / file if file else page, place) for file, place in links if place]
    assert [place for end, place in ends if end.suffix == ".md" and place not in places(end)] == []


def test_the_tree_in_contributing_is_of_this_repository():
    (tree,) = re.findall(r"## The repository\n\n```\n(.*?)```", CONTRIBUTING, re.DOTALL)
    paths = [(line, line.split("  ")[0].split()) for line in tree.splitlines() if line[0] != " "]
    assert paths
    for line, names in paths:
        assert all((ROOT / name).exists() for name in names), line


# ---- docs/findings.md


def finding_rows():
    lines = [line for line in FINDINGS.splitlines() if line.startswith("| OD")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def as_markdown(text):
    return re.sub(r"(<\w+>)", r"`\1`", text)


def test_the_findings_page_lists_every_kind_as_the_code_has_it():
    expected = [
        [code, kind.severity, as_markdown(kind.title), as_markdown(kind.remedy)]
        for code, kind in KINDS.items()
    ]
    assert [[*row[:3], row[4]] for row in finding_rows()] == expected


def test_every_finding_on_the_page_has_a_cause():
    assert [row[0] for row in finding_rows() if not row[3].endswith(".")] == []


# ---- docs/design.md


def rooms():
    package = ROOT / "odtrain"
    alone = {file.stem for file in package.glob("*.py")} - {"__init__", "__main__"}
    return {f"{file.parent.name}/" for file in package.glob("*/__init__.py")} | alone


def test_the_design_page_tells_every_room():
    section = DESIGN.partition("## Shape of the code")[2].partition("### ")[0]
    assert set(re.findall(r"`([\w.]+/?)`", section)) >= rooms()


# ---- docs/zoo.md


def test_the_zoo_page_has_the_table_that_odtrain_zoo_prints():
    def rows(text):
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]

    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    listed = rows(page.partition("| model | input |")[2].partition("\n\n")[0])[2:]
    assert listed == [row[:-1] for row in rows(catalog_table())[2:]]


def test_the_zoo_page_groups_the_models_as_odtrain_zoo_does():
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    which = page.partition("## Which one")[2].partition("\n## ")[0]
    for each in PURPOSES:
        _, found, section = which.partition(f"### {each.name}\n")
        assert found, each.name
        section = section.partition("\n### ")[0]
        assert section.strip().splitlines()[0] == each.advice
        assert set(re.findall(r"`model=(\w\S*?)`", section)) == set(each.models)
