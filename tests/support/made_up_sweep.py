"""`python made_up_sweep.py OVERRIDE...`: the real driver of sweeps, with trainings that are made up."""

from __future__ import annotations

import sys
from pathlib import Path

from odtrain.config.compose import compose_config
from odtrain.errors import OdtrainError
from odtrain.sweep import driver

PROGRAM = (sys.executable, str(Path(__file__).with_name("made_up_training.py")))

if __name__ == "__main__":
    try:
        driver.sweep(compose_config(sys.argv[1:], "conf"), sys.argv[1:], "conf", PROGRAM)
    except OdtrainError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
