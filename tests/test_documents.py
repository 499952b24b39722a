"""The documents name what is there: rooms, files, and each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tunneld.systemd import units

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "supervisor" / "tunneld"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
FROM_AN_INDEX = re.compile(r"""(?:pip3?|pipx|uv)\s.*?\b(?:install|add)\s([^\n`|;&]*\s)?['"]?tunneld(?![\w./-])""")
"""A command that installs the project of another from a package index."""

DOCUMENTS = sorted(file for file in ROOT.rglob("*.md") if not any(part.startswith(".") for part in file.parts))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/.]+(?:/|\.py))`", ARCHITECTURE))))
def test_each_room_and_file_of_the_architecture_exists(name: str) -> None:
    """Seen from the package or from the top of the repository."""
    assert (PACKAGE / name).exists() or (ROOT / name).exists()


def test_the_architecture_names_every_room() -> None:
    """A new folder of the package gets its line there."""
    rooms = {file.parent.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE}
    of_one_kind = {room for room in rooms if any(other.startswith(f"{room}/") for other in rooms)}
    assert not {room for room in rooms - of_one_kind if f"`{room}/`" not in ARCHITECTURE}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = document if not path else (document.parent / path)
        assert file.exists(), target
        assert not heading or heading in headings(file), target


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("pip install tunneld", True),
        ("/opt/tunneld/bin/pip install 'tunneld[systemd]'", True),
        ("pip3 install --upgrade tunneld==1", True),
        ("pipx install tunneld", True),
        ("/opt/tunneld/bin/pip install '.[systemd]'", False),
        ("pip install tunneld-*.whl", False),
        ("pip install . && tunneld enable NAME", False),
    ],
)
def test_a_line_that_installs_from_an_index_is_known(text: str, is_wrong: bool) -> None:
    """The project's name behind `install`, however it is quoted; a file's name is none."""
    assert (FROM_AN_INDEX.search(text) is not None) is is_wrong


def test_nobody_is_told_to_install_somebody_elses_program() -> None:
    """The name `tunneld` is taken on the Python Package Index: root would install a stranger's program by it."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    files = [ROOT / name for name in listed.stdout.splitlines() if not name.startswith("tests/")]
    said = [path for path in files if path.is_file() and FROM_AN_INDEX.search(path.read_text(errors="replace"))]
    assert said == []
    assert "pip install '.[systemd]'" in units.NO_EXTRA
