"""A sweep that starts from a version of its model keeps that version's test pictures, as a training does."""

from __future__ import annotations

import pytest

from odtrain.config.compose import compose_config
from odtrain.config.schema import Config, DataConfig
from odtrain.sweep import driver


class Reached(Exception):
    """The data are about to be prepared."""


def test_the_trainings_have_the_split_of_the_version(monkeypatch):
    fixed: list[str] = []

    def split_of(config: Config) -> dict[str, str]:
        assert config.train.checkpoint == "models:/lift@champion"
        return {"data.test_list": "outputs/lists/1/test_list.txt"}

    def space(config: Config, overrides: list[str], config_dir: str | None) -> tuple[list, ...]:
        fixed.extend(overrides)
        return [], [], []

    def prepared(data: DataConfig) -> None:
        assert data.test_list == "outputs/lists/1/test_list.txt"
        raise Reached

    monkeypatch.setattr(driver, "kept_split", split_of)
    monkeypatch.setattr(driver, "checked_space", space)
    monkeypatch.setattr(driver, "prepare", prepared)
    overrides = ["train.checkpoint=models:/lift@champion"]
    with pytest.raises(Reached):
        driver.sweep(compose_config(overrides), overrides)
    assert fixed == [*overrides, "data.test_list=outputs/lists/1/test_list.txt"]
