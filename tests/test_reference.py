"""The pages of the site that docs/reference.py makes, and the list of pages in mkdocs.yml."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

import odtrain
from odtrain.cli.commands import COMMANDS, load
from odtrain.config.compose import compose_config
from odtrain.config.schema import keys
from odtrain.config.shipped import conf, groups

ROOT = Path(__file__).resolve().parents[1]
GROUPS = groups([conf()])


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def entry(page, key):
    """The two lines of a setting."""
    (found,) = re.findall(rf"^`{re.escape(key)}=.*\n:   .*$", page, re.M)
    return found.split("\n:   ")


def test_every_setting_has_its_entry_and_no_other(pages):
    page = pages["reference/settings.md"]
    listed = re.findall(r"^`([\w.]+)=.*?`\{ #([\w.]+) \}", page, re.M)
    assert sorted(key for key, _ in listed) == sorted(keys())
    assert [pair for pair in listed if pair[0] != pair[1]] == []


@pytest.mark.parametrize(
    ("key", "first", "said"),
    [
        (
            "train.checkpoint_every",
            "`train.checkpoint_every=100`{ #train.checkpoint_every } whole number, at least 1",
            "steps between checkpoints to resume from",
        ),
        (
            "evaluate.split",
            "`evaluate.split=test`{ #evaluate.split } one of train, validation, test",
            r"what `odtrain evaluate` looks at: train \| validation \| test",
        ),
        (
            "data.test_fraction",
            "`data.test_fraction=0.2`{ #data.test_fraction } number, 0 to less than 1",
            "drawn for test when no split is given",
        ),
        (
            "data.images",
            "`data.images=data/panels/images`{ #data.images } text",
            "folder of pictures, or of records that hold them, here or in a store (s3://...), or a .zip or "
            ".tar.gz elsewhere; with train/ and test/ inside, that is the split",
        ),
    ],
)
def test_a_setting_has_its_value_its_bounds_and_its_comment(pages, key, first, said):
    assert entry(pages["reference/settings.md"], key) == [first, said]


def test_the_values_are_those_of_the_composed_configuration(pages):
    steps = compose_config([]).train.steps
    assert entry(pages["reference/settings.md"], "train.steps")[0].startswith(
        f"`train.steps={steps}`"
    )


@pytest.mark.parametrize(
    "group", [name for name in GROUPS if len(GROUPS[name]) > 1 and "/" not in name]
)
def test_every_choice_of_a_group_is_listed(pages, group):
    section = pages["reference/settings.md"].partition(f"\n## {group}\n")[2].partition("\n## ")[0]
    assert set(GROUPS[group]) <= set(re.findall(r"^- `([\w.]+)`: .+$", section, re.M))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_action_and_flag_of_a_command_is_listed(pages, name):
    section = pages["reference/commands.md"].partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    command = load(name)
    assert re.findall(r"^### \S+ (\S+)$", section, re.M) == list(command.named)
    for action in command.actions.values():
        for flag in action.flags:
            assert flag.options["help"].replace("|", r"\|") in section.replace(r"\_", "_")
            assert flag.is_word or f"`{flag.name}" in section


def test_every_setting_that_a_command_reads_leads_to_its_place(pages):
    anchors = set(re.findall(r"\{ #([\w.]+) \}|^## (\w+)$", pages["reference/settings.md"], re.M))
    there = {name for pair in anchors for name in pair}
    led = re.findall(r"\]\(settings\.md#([\w.]+)\)", pages["reference/commands.md"])
    assert len(led) > 50
    assert [name for name in led if name not in there] == []


def test_all_that_import_odtrain_gives_is_on_the_page(pages):
    given = set(odtrain.__all__) - {"__version__"}
    assert {f"::: odtrain.api.{name}" for name in given} <= set(
        pages["reference/api.md"].splitlines()
    )


def test_no_page_tells_of_the_machine_that_made_it(pages):
    assert [
        uri for uri, page in pages.items() if str(ROOT) in page or str(Path.home()) in page
    ] == []


def test_every_page_of_docs_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!!python/", "#")
    named = set(
        re.findall(r"[\w./]+\.md$", str(yaml.safe_load(text)["nav"]).replace("'", "\n"), re.M)
    )
    assert {page.name for page in ROOT.glob("docs/*.md")} <= named
