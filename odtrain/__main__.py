"""`python -m odtrain` is the `odtrain` command."""

from odtrain.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
