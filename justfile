# The commands that are repeated while working here; `just` lists them. In the environment of CONTRIBUTING.md.

# list these
default:
    @just --list

# the tests of a room or file, quick ones alone: just test tests/dataset
test +places="tests":
    python -m pytest -m "not slow and not long" {{places}}

# one test in one process, with a debugger where it fails
debug place:
    python -m pytest -n 0 --pdb -m "" {{place}}

# what a commit is checked by
lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# put formatting and imports right
format:
    ruff check --fix .
    ruff format .

# draw docs/pictures/rooms.svg anew, after a room was added
rooms:
    python docs/draw_rooms.py

# the documentation at http://127.0.0.1:8000, made anew at each change: pip install -e '.[docs]' first
docs:
    mkdocs serve --watch odtrain --watch conf

# what takes minutes, before a release
long:
    python -m pytest -m long

# everything that must hold, in a fresh environment
ci:
    .ci/run
