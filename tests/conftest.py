"""What all tests share: a machine of their own, a relay, a journal to read, and a clock."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import isolated
from tests.sshd import Sshd
from tests.tunnel.supervised import running_relay
from tests.virtual import Journal, VirtualTime

# Hypothesis fails an example that takes longer than 200 ms. On a busy machine any of them may.
settings.register_profile("tunneld", deadline=None)
settings.load_profile("tunneld")


@pytest.fixture(autouse=True)
def own_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path | None]:
    """The folder that stands for the whole machine, a home included. The lab makes machines itself."""
    if request.node.get_closest_marker("lab") is not None:
        yield None
        return
    with tempfile.TemporaryDirectory(
        prefix="t", ignore_cleanup_errors=True
    ) as name:  # short: Unix sockets are made below
        folder = Path(name)
        for variable in isolated.FOREIGN:
            monkeypatch.delenv(variable, raising=False)
        for variable, value in isolated.environment(folder).items():
            monkeypatch.setenv(variable, value)
        isolated.move_system_folders(folder, monkeypatch.setattr)
        yield folder


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Sshd]:
    """A relay that runs a plain OpenSSH server."""
    async with running_relay(tmp_path / "relay") as server:
        yield server


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()
