"""Write tests/stable_names.json anew: python -m support.stable_names, in tests/"""

import json
import re
from pathlib import Path

import odtrain
from odtrain.cli.commands import COMMANDS, load
from odtrain.config.schema import keys
from odtrain.config.shipped import conf, groups
from odtrain.export_formats import FORMATS
from odtrain.findings import KINDS

TESTS = Path(__file__).resolve().parents[1]


def names() -> dict[str, object]:
    page = (TESTS.parent / "docs/metrics.md").read_text(encoding="utf-8")
    return {
        "choices": groups([conf()]),
        "commands": {
            name: {
                word: sorted(each.name for each in action.all_flags)
                for word, action in load(name).actions.items()
            }
            for name in COMMANDS
        },
        "findings": sorted(KINDS),
        "formats": {name: each.file for name, each in FORMATS.items()},
        "metrics": sorted(set(re.findall(r"`([a-z]+/[^`]+)`", page))),
        "python": sorted(odtrain.__all__),
        "settings": sorted(keys()),
    }


if __name__ == "__main__":
    text = json.dumps(names(), indent=1, ensure_ascii=False, sort_keys=True)
    (TESTS / "stable_names.json").write_text(text + "\n", encoding="utf-8")
