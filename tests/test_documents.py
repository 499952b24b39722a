"""The documents name what is there: rooms, files, and each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "supervisor" / "tunneld"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nobody_is_told_to_install_a_stranger(document: Path) -> None:
    """`tunneld` on PyPI is another project's name."""
    assert not re.search(r"(pip|pipx|uv tool) install ['\"]?tunneld", document.read_text())
