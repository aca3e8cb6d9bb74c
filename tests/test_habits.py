"""One list of what is checked, whoever checks it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def checked_by_ci():
    """The commands that .ci/run runs beside the tests."""
    (line,) = re.findall(r'^for command in "\$test_command" (.*); do$', read(".ci/run"), re.M)
    return re.findall(r'"([^"]+)"', line)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_pre_commit_checks_what_ci_checks():
    (local,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == checked_by_ci()


def test_just_lints_what_ci_checks():
    (recipe,) = re.findall(r"^lint:\n((?:    .*\n)+)", read("justfile"), re.M)
    assert [line.strip() for line in recipe.splitlines()] == checked_by_ci()


def test_contributing_names_what_ci_checks():
    (block,) = re.findall(r"or by hand:\n\n```sh\n(.*?)```", read("CONTRIBUTING.md"), re.S)
    assert block.splitlines() == checked_by_ci()


def test_the_workflow_runs_ci():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    must_hold = jobs["everything-that-must-hold"]["steps"]
    assert [step["run"] for step in must_hold if "run" in step] == [".ci/run"]
