"""What may be typed next. `odtrain completion SHELL` prints the script that asks `odtrain --complete`.

argcomplete completes what argparse knows; `key=value` and `group=choice`, of which most command lines are
made, it does not. So the answers are our own, from the same declarations that the commands are read by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from odtrain.cli.commands import COMMANDS as ALL
from odtrain.cli.commands import load
from odtrain.cli.parse import HELP, Typed, taken_apart
from odtrain.command import Action, Command, Invocation
from odtrain.config.shipped import conf_folders, groups
from odtrain.errors import ConfigError

BASH = r"""# eval "$(odtrain completion bash)" in ~/.bashrc
_odtrain() {
    local words word breaks before
    read -ra words <<< "${COMP_LINE:0:COMP_POINT}."
    word=${words[${#words[@]}-1]%.}
    unset "words[${#words[@]}-1]"
    COMPREPLY=()
    while read -r line; do
        [[ -n $line ]] && COMPREPLY+=("$line")
    done < <("${words[0]}" --complete "${words[@]:1}" "$word" 2>/dev/null)
    breaks=${COMP_WORDBREAKS//[^=:]/}
    before=${word%"${word##*[$breaks]}"}
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    [[ ${COMPREPLY[0]} == *[=.,] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _odtrain odtrain
"""
ZSH = r"""# eval "$(odtrain completion zsh)" in ~/.zshrc, behind compinit
_odtrain() {
    local -a lines
    lines=("${(@f)$("${words[1]}" --complete "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    lines=(${lines:#})
    if (( $#lines )); then
        compadd -S '' -- ${(M)lines:#*[=.,]}
        compadd -- ${lines:#*[=.,]}
    else
        compset -P '*='
        _files
    fi
}
compdef _odtrain odtrain
"""
FISH = r"""# odtrain completion fish > ~/.config/fish/completions/odtrain.fish
function __odtrain_complete
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    set -l lines ($before[1] --complete $before[2..-1] "$word" 2>/dev/null | string match -v '')
    if test (count $lines) -gt 0
        printf '%s\n' $lines
        return
    end
    set -l parts (string match -r '^(.*=)?(.*)$' -- "$word")
    for file in (__fish_complete_path "$parts[3]")
        printf '%s%s\n' "$parts[2]" "$file"
    end
end
complete -c odtrain -f -a '(__odtrain_complete)'
"""


def candidates(words: Sequence[str]) -> list[str]:
    """What the last word may become.

    Args:
        words: behind `odtrain`, as far as typed; the last one is not yet whole.
    """
    *before, word = words or [""]
    if not before:
        offers: Sequence[str] = [*ALL, "--help", "--version"]
    elif before[0] not in ALL:
        offers = []
    else:
        offers = list(_offers(load(before[0]), before[1:], word))
    return [offer for offer in dict.fromkeys(offers) if offer.startswith(word)]


def _offers(command: Command, before: Sequence[str], word: str) -> Iterator[str]:
    last = command.flags.get(before[-1]) if before else None
    if last and not last.may_be_bare:
        return  # its value: files
    try:
        typed = taken_apart(before, command.flags)
    except ConfigError:  # --key, and its value is the word
        return
    named = command.named.get(typed.words[0]) if typed.words else None
    actions = [named] if named else _unnamed(command)
    settings = [name for action in actions for name in action.settings]
    if "=" in word:
        yield from _values(word, typed)
    elif word.startswith("-"):
        yield from (flag.name for each in actions for flag in each.all_flags if not flag.is_word)
        yield HELP[1]
    else:
        yield from () if named else command.named
        yield from _keys(settings, word, typed)


def _unnamed(command: Command) -> list[Action]:
    """The action that is done if no more is typed, or any where there must be one."""
    if command.default is not None:
        return [command.actions[command.default]]
    return list(command.actions.values())


def _keys(settings: Sequence[str], word: str, typed: Typed) -> Iterator[str]:
    """Groups, and keys up to the next dot behind the word."""
    from odtrain.config.schema import keys

    for group in groups(conf_folders(typed.config_dir)):
        if group.partition("/")[0] in settings or (settings and group == "experiment"):
            yield f"{group}="
    for key in keys():
        if key.startswith(word) and any(f"{key}.".startswith(f"{name}.") for name in settings):
            section, dot, _ = key[len(word) :].partition(".")
            yield f"{word}{section}{dot or '='}"


def _values(word: str, typed: Typed) -> Iterator[str]:
    """`key=value` for each that the key may have; nothing where it may be any."""
    from odtrain.config.schema import keys, rules

    key, _, value = word.partition("=")
    given = groups(conf_folders(typed.config_dir)).get(key)
    if given is None and key in keys():
        given = [choice or "null" for choice in rules(key).get("choices", ())]
        if bool in (keys()[key], *get_args(keys()[key])):
            given = ["true", "false"]
        several = rules(key).get("each_of", ())
        if several:  # behind the last comma of a list
            opened = value[: value.rfind(",") + 1] or "["
            given = [
                f"{opened}{choice}"
                for choice in several
                if choice not in opened.strip("[,").split(",")
            ]
    yield from (f"{key}={choice}" for choice in given or ())


def _prints(script: str, shell: str) -> Action:
    def run(invocation: Invocation) -> int:
        print(script, end="")
        return 0

    return Action(run, f"for {shell}: {script.splitlines()[0].removeprefix('# ')}")


SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
COMMANDS = {
    "completion": Command(
        {shell: _prints(script, shell) for shell, script in SCRIPTS.items()}, default=None
    )
}
