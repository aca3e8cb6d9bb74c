"""What comes from a user's word, as MLflow takes it."""

from __future__ import annotations

import hashlib

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils import validation
from support.stores import check_words_arrive
from support.words import words

from odtrain.tracking.names import artifact_path, file_name, image_key, key_name


def digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("eval/AP/raccoon", "eval/AP/raccoon", id="plain"),
        pytest.param("eval/AP/층 1", "eval/AP/층 1", id="letters of any script"),
        pytest.param("eval/AP/*", "eval/AP/_2a-", id="star"),
        pytest.param("eval/AP/_2a", "eval/AP/_2a", id="what a star was spelled as"),
        pytest.param("eval/AP/..", "eval/AP/_-", id="dots"),
        pytest.param("eval/AP//a", "eval/AP/_/a-", id="empty part"),
        pytest.param(f"eval/AP/{'l' * 300}", f"eval/AP/{'l' * 229}-", id="long"),
    ],
)
def test_what_mlflow_refuses_in_a_key_is_spelled_with_a_digest(name, expected):
    assert key_name(name) == (expected + digest(name) if expected.endswith("-") else expected)


def taken(key: str) -> bool:
    try:
        validation._validate_metric(key, 1.0, 0, 0)
    except MlflowException:
        return False
    return True


@pytest.mark.parametrize("prefix", ["", "eval/AP/"])
def test_every_word_becomes_a_key_of_its_own_and_what_mlflow_takes_stays(prefix):
    names = [prefix + word for word in words()]
    keys = [key_name(name) for name in names]
    assert len(set(keys)) == len(names)
    assert [key for key in keys if not taken(key)] == []
    changed = [name for name, key in zip(names, keys, strict=True) if key != name and taken(name)]
    assert changed == [f"{prefix}ab\n"]  # a line's end is seen nowhere


@pytest.mark.parametrize("spelled", [image_key, file_name, artifact_path])
def test_names_of_files_and_pictures_are_never_shared(spelled):
    assert len({spelled(word) for word in words()}) == len(words())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("eval/drawn/001_a.jpg", "eval/drawn/001_a.jpg"),
        ("eval/drawn/001_100%.jpg", "eval/drawn/001_100%.jpg"),
        ("eval/drawn/001_a#1.jpg", f"eval/drawn/001_a_1-{digest('001_a#1.jpg')}.jpg"),
        ("eval/drawn/%41.jpg", f"eval/drawn/_41-{digest('%41.jpg')}.jpg"),
    ],
)
def test_what_a_server_would_cut_off_an_artifact_is_replaced(path, expected):
    assert artifact_path(path) == expected


def test_every_word_arrives_in_sqlite(store, tmp_path):
    check_words_arrive(store, tmp_path)
