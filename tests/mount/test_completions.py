# SPDX-License-Identifier: MIT
"""
What bash, zsh and fish offer for a command line of attachfs: each shell is run, with the completion
that is installed, and asked what it would complete the last word to.
"""

import shutil
from pathlib import Path

import pytest

from harness import PERSCOM, SLOW, binary, clean_environment, run

COMPLETIONS = Path(__file__).resolve().parents[2] / "scripts/completions"

BASH = """
source "$1"; shift
compopt() { :; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_attachfs
printf '%s\\n' "${COMPREPLY[@]}"
"""

# A zsh on a terminal of its own, that tells what its completion adds when a tab is typed, and ends.
ZSH = """
zmodload zsh/zpty
zpty there zsh -f -i
zpty -w there "source $1/rc"
while zpty -r there line; do [[ $line == *READY* ]] && break; done
zpty -w -n there "$2"$'\\t'
while zpty -r there line; do
	print -r -- $line
	[[ $line == *OVER* ]] && break
done
"""
ZSH_RC = """
PROMPT=
fpath=({base} $fpath)
autoload -U compinit
compinit -u -d {base}/dump
bindkey '^I' complete-word
told_first() {{ print }}
told_last() {{ print OVER; exit }}
compprefuncs=(told_first)
comppostfuncs=(told_last)
compadd() {{
	local -a hits
	[[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]] && {{ builtin compadd "$@"; return }}
	builtin compadd -A hits "$@"
	(( $#hits )) && print -rl -- "HIT "${{^hits}}
	builtin compadd "$@"
}}
print READY
"""


pytestmark = pytest.mark.skipif(SLOW > 1, reason="in the ordinary build only")


@pytest.fixture
def system():
    return PERSCOM


@pytest.fixture
def sections(base):
    path = base / "home/.config/attachfs/config"
    path.parent.mkdir(parents=True)
    path.write_text("[work]\nsource = perscom:http://127.0.0.1:1/\n[wide world]\nslots = 3\n")


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request, base, sections):
    """What the shell offers for the last word."""
    shell = request.param
    if not shutil.which(shell):
        pytest.fail(f"apt-get install {shell}")
    path = f"{Path(binary('attachfs')).parent}:/usr/bin:/bin"
    env = clean_environment(base, PATH=path, TERM="xterm")
    here = base / "here"
    here.mkdir()
    (here / "a file").touch()
    (here / "directory").mkdir()

    def ask(*argv):
        told = run(*argv, env=env, cwd=here)
        assert not told.stderr, told.stderr
        return told.stdout.replace("\r", "").splitlines()

    def by_bash(*words):
        return ask("bash", "-c", BASH, "bash", COMPLETIONS / "attachfs.bash", "attachfs", *words)

    def by_zsh(*words):
        shutil.copy(COMPLETIONS / "attachfs.zsh", base / "_attachfs")
        (base / "rc").write_text(ZSH_RC.format(base=base))
        told = ask("zsh", "-f", "-c", ZSH, "zsh", base, " ".join(["attachfs", *words]))
        assert "OVER" in told, told
        return [line[4:] for line in told if line.startswith("HIT ")]

    def by_fish(*words):
        script = 'source $argv[1]; complete -C "$argv[2]"'
        line = " ".join(["attachfs", *words])
        told = ask("fish", "--no-config", "-c", script, COMPLETIONS / "attachfs.fish", line)
        return [line.split("\t")[0] for line in told]

    def offered(*words):
        found = {"bash": by_bash, "zsh": by_zsh, "fish": by_fish}[shell](*words)
        # as bash quotes them, and without what stands there already
        words = {w.replace("\\ ", " ").rpartition(",")[2].rstrip("/") for w in found}
        return words - {""}

    return offered


def test_shells_complete_commands_sections_flags_options_and_mounts(complete, drive):
    m = drive()
    assert complete("s") == {"status", "sync", "servicemax:"}
    assert complete("w") == {"work", "wide world"}
    assert complete("sync", "--") == {"--path", "--timeout", "--help"}
    assert complete("check", "-o", "slots=3,cache_s") == {"cache_size="}
    assert str(m.path) in complete("umount", "/")
    assert complete("config", "") == {"show"}
    assert {"work", "perscom:"} <= complete("config", "show", "")
    assert complete("check", "w") == {"work", "wide world"}
    assert complete("conflicts", "keep", "") == {"mine", "theirs", "both"}
    assert {"verify", "drop", "a file"} <= complete("cache", "")
    assert complete("pin", "a") == {"a file"}
    assert complete("work", "d") == {"directory"}
    assert not complete("sync", "--timeout", "")
