"""`odtrain`, ending with the process that began it.

python -m odtrain.cluster.followed COMMAND ...
"""

from __future__ import annotations

import os
import runpy
import sys

from odtrain.system.following import follow

BEGUN_BY = "ODTRAIN_BEGUN_BY"
"""The variable that holds the number of that process."""

if __name__ == "__main__":
    follow(int(os.environ.pop(BEGUN_BY)))
    sys.argv[0] = "odtrain"
    runpy.run_module("odtrain", run_name="__main__", alter_sys=False)
