"""No test sees a tunnel, a profile or a service of the machine that runs it: neither in this process nor in another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.isolated import FOREIGN, TUNNELD
from tunneld.cli.services import Services
from tunneld.daemon import run_folder
from tunneld.profile import profile_folders


def test_this_process_looks_only_below_the_tests_folder(own_machine: Path) -> None:
    """For running tunnels, for profiles, for services, and for a home."""
    looked_at = [*run_folder.directories(), *profile_folders(), Path.home()]
    assert [each for each in looked_at if not each.is_relative_to(own_machine)] == []
    assert not set(FOREIGN) & set(os.environ)
    with Services() as services:
        assert services.names() == set()


def test_another_process_looks_only_below_the_tests_folder(own_machine: Path) -> None:
    """A tunnel or a profile of the machine would be found, or its folder named."""
    status = subprocess.run([*TUNNELD, "status"], capture_output=True, text=True)
    run_folders = f"{own_machine}/tunneld and {own_machine}/run"
    if os.geteuid() == 0:
        run_folders = f"{own_machine}/run"
    assert f"no tunnel is running (looked in {run_folders})" in status.stderr
    check = subprocess.run([*TUNNELD, "profile", "check"], capture_output=True, text=True)
    assert check.stderr == (
        f"tunneld: there are no profiles in {own_machine}/.config/tunneld/profiles nor in {own_machine}/etc\n"
    )
