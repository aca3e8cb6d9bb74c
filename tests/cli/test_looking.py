"""Commands that only look leave nothing behind, and say that there is nothing yet."""

import pytest

from odtrain.cli.main import main

RUN = "0123456789abcdef0123456789abcdef"
NOTHING = (
    "{folder}/mlflow.db: is not there: nothing has been tracked yet.\n"
    "  `odtrain train` makes it. Runs and models that are elsewhere: tracking.uri=URI.\n"
)
NO_RUN = (
    'run "latest": there is none in sqlite:///{folder}/mlflow.db.\n'
    "  It holds no runs yet; `odtrain train` makes the first.\n"
)
NO_SOURCE = "source=latest: there is no run yet.\n  `odtrain train` makes the first.\n"


@pytest.mark.parametrize(
    ("command", "status", "out", "err"),
    [
        (
            "models list",
            0,
            "No model is registered yet; `odtrain train` registers one.\n",
            "",
        ),
        ("models show x", 1, "", NOTHING),
        ("models rollback x", 1, "", NOTHING),
        ("models promote x 1", 1, "", NOTHING),
        ("models download x", 1, "", NOTHING),
        (f"models compare {RUN} models:/x@champion", 1, "", NOTHING),
        ("models compare latest models:/x@champion", 1, "", NO_SOURCE),
        ("report latest", 1, "", NO_RUN),
        (f"report {RUN}", 1, "", NOTHING),
        ("report models:/x@champion", 1, "", NOTHING),
        ("ui", 1, "", NOTHING),
        ("track sync", 1, "", None),
        ("evaluate source=models:/x@champion", 1, "", NOTHING),
        ("benchmark source=models:/x@champion", 1, "", NOTHING),
        ("serve source=models:/x@champion", 1, "", NOTHING),
        ("webcam source=models:/x@champion", 1, "", NOTHING),
        ("export source=latest", 1, "", NO_SOURCE),
    ],
)
def test_in_an_empty_folder_nothing_is_made(
    tmp_path, monkeypatch, capsys, own_environment, command, status, out, err
):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main([*command.split(), "-q"]) == status
    said = capsys.readouterr()
    assert list(folder.iterdir()) == []
    assert said.out == out
    if err is not None:
        assert said.err == err.format(folder=folder)
    else:
        assert said.err.startswith("outputs: ")
