"""`python -m odtrain` whose bars are drawn where no terminal is, so that a test sees each step at once."""

from __future__ import annotations

import runpy

from odtrain.system import progress

if __name__ == "__main__":
    progress.is_drawn = lambda: True
    runpy.run_module("odtrain", run_name="__main__", alter_sys=True)
