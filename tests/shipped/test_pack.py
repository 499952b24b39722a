"""Programs for machines where nothing of ours is: what they consist of."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import zlib
from base64 import b64decode
from collections.abc import Iterator

import pytest

from tunneld.core.pair.pair import SECRET_SIZE
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.shipped import pack, start_mosh_server

PROGRAMS = ["shipped.ingress_agent", "shipped.mosh_agent", "shipped.jump_agent", "shipped.end_predecessor"]
EVERYTHING = sorted({each for name in PROGRAMS for each in pack.shipped(name)})
PACKAGES = {"core", "core.pair", "core.stream", "shipped"}
WANTED = {"locale": {"LANG": "C.UTF-8"}, "command": ["echo", "it's", '"$HOME"', "`x`", "\\", "!", "ü", "\udc80"]}


@pytest.mark.parametrize("name", EVERYTHING)
def test_words_for_people_are_left_out(name: str) -> None:
    """And nothing else: the same program, on the same lines, without docstrings and lines of comment."""
    source = pack._source(name)
    shipped = pack._without_prose(source)
    assert ast.dump(silent(shipped)) == ast.dump(silent(source))
    assert statements(shipped) <= statements(source)
    assert '"""' not in shipped
    assert len(shipped) < len(source)


def test_only_strings_and_comments_of_their_own_lines_are_prose() -> None:
    """A string that is used stays, and so does a number sign within it. A body of prose alone does nothing."""
    source = (
        '"""Prose."""\nx = 1  # kept\n# Prose\ny = """\n# data\n"""\ndef f():\n    """Prose\n    too."""\n    # Prose\n'
    )
    stripped = '\nx = 1  # kept\n\ny = """\n# data\n"""\ndef f():\n    0\n\n\n'
    assert pack._without_prose(source) == stripped
    assert pack._without_prose("class Abstract:\n    def f(self): ...\n") == "class Abstract:\n    def f(self): ...\n"


def silent(source: str) -> ast.Module:
    """The program without the expressions that do nothing."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not is_idle(each)]  # type: ignore[attr-defined]
    return tree


def is_idle(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def statements(source: str) -> set[tuple[int, str]]:
    """The line and the kind of each statement."""
    return {(node.lineno, type(node).__name__) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_module_comes_after_those_that_it_needs(name: str) -> None:
    """As the import system would find them."""
    order = pack.shipped(name)
    script = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        name.startswith('tunneld.') and name[8:] not in {PACKAGES} and print(name[8:])\n"
        "sys.meta_path.insert(0, Finder)\n"
        f"import tunneld.{name}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(order)
    assert len(set(order)) == len(order)
    for place, each in enumerate(order):
        needed = set(re.findall(r"^from tunneld\.(\S+) import", pack._source(each), re.M)) - PACKAGES
        assert needed <= set(order[:place])


def test_a_command_is_one_word_to_any_shell() -> None:
    """Nothing in it that a shell reads within double quotes, and nothing that a terminal's history would."""
    for command in (pack.mosh_agent_command(WANTED), pack.command(b"x"), pack.whole_command(b"\xff" * 999)):
        begin, python, text = shlex.split(command)[:3]
        assert (begin, python, text[:3]) == ("exec", "python3", "-IS")
        assert not re.search(r"[$!\\`]|[^ -~]", command)
        assert command.count('"') == 2


def test_nothing_secret_is_on_the_command_line() -> None:
    """The secret goes over standard input; the command is the same for all secrets."""
    secret = os.urandom(SECRET_SIZE)
    assert pack.mosh_agent_program(secret)[:SECRET_SIZE] == secret
    assert secret not in b"".join(texts(pack.mosh_agent_command(WANTED)))
    assert pack.mosh_agent_program(secret)[SECRET_SIZE:] == pack.mosh_agent_program(bytes(SECRET_SIZE))[SECRET_SIZE:]


def texts(command: str) -> Iterator[bytes]:
    """What is packed into a command: its program, and what follows that."""
    found = re.search(r"a2b_base64\('([^']*)'", command)
    assert found
    unpacking = zlib.decompressobj()
    yield unpacking.decompress(b64decode(found[1]))
    yield unpacking.unused_data


def test_a_start_fits_two_flights() -> None:
    """TCP sends ten segments at once; then, as those were many enough, twice as many. SSH takes a little of either."""
    segment = 1448
    assert 6 * segment < len(pack.mosh_agent_command(WANTED)) < 9.5 * segment
    assert len(pack.mosh_agent_program(bytes(SECRET_SIZE))) < 19 * segment


def test_a_takeover_fits_the_first_flight() -> None:
    """It is sent at the start of each session, and the ports are not free before it has run."""
    program = pack.end_predecessor_program("tunneld-claim ", "a" * 32, "b" * 16, True, [("127.0.0.1", 2222)])
    assert len(pack.whole_command(program)) < 4 * 1448


def test_the_first_stage_speaks_as_the_second_would() -> None:
    """What it puts together by hand is what the core makes."""
    assert StreamCarrier("any", 0, dedicated=True).outgoing(0) == start_mosh_server.GREETING
    assert (start_mosh_server.SERVING, start_mosh_server.SECRET_LENGTH) == (frame.SERVING, SECRET_SIZE)


def test_the_second_stage_finds_its_imports_done() -> None:
    """Both lists are constants, since a person waits for the command: they are complete, and nothing is early twice."""
    stages = pack.shipped("shipped.mosh_agent")
    assert [each for each in stages if each in pack._EARLY_MODULES] == list(pack._EARLY_MODULES)
    assert all(set(pack.shipped(each)) <= set(pack._EARLY_MODULES) for each in pack._EARLY_MODULES)
    late = set(stages) - {*pack._EARLY_MODULES, pack._FIRST_MODULE}
    needed = {name for each in late for name in re.findall(r"^(?:import|from) (\w+)", pack._source(each), re.M)}
    early = "".join(map(pack._source, [*pack._EARLY_MODULES, pack._FIRST_MODULE]))
    done = {*pack._LATE_IMPORTS.split(", "), *re.findall(r"^(?:import|from) (\w+)", early, re.M), "tunneld"}
    assert needed <= done
