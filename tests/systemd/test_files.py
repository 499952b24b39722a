"""The units as systemd's own tools judge them; the whole, booted, is in tests/lab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tunneld.systemd import files
from tunneld.systemd.files import unit_files

SYSTEM = ("tunneld@.service", "tunneld.service")
ALL = (*SYSTEM, "user/tunneld@.service")

# On systemd's scale from 0 to 10, where a service of no restrictions has 9.6.
EXPOSURE = 1.5

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the units, whose program exists."""
    program = tmp_path / "tunneld"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ALL:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((unit_files() / name).read_text().replace("/usr/bin/tunneld", str(program)))
    return tmp_path


def analyze(*arguments: str | Path, user: bool = False) -> str:
    """What systemd-analyze prints; it must succeed."""
    command = ["systemd-analyze", "--no-pager", *(["--user"] if user else []), *map(str, arguments)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": "/run", "SYSTEMD_COLORS": "0", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


def settings(unit: str) -> dict[str, str]:
    """Each key of the unit, with its last value."""
    lines = (unit_files() / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("unit", ALL)
def test_systemd_finds_nothing_wrong(installed: Path, unit: str) -> None:
    """`systemd-analyze verify` says nothing at all: no unknown key, no misplaced one."""
    assert analyze("verify", "--man=no", installed / unit, user=unit.startswith("user/")) == ""


@pytest.mark.parametrize("unit", SYSTEM)
def test_the_services_are_hardened(installed: Path, unit: str) -> None:
    """At most 1.5; the analysis itself fails above its threshold, in tenths."""
    judged = analyze("security", "--offline=yes", f"--threshold={EXPOSURE * 10:.0f}", installed / unit)
    exposure = float(re.findall(r"Overall exposure level for .*: ([0-9.]+)", judged)[0])
    assert exposure <= EXPOSURE


@pytest.mark.parametrize("unit", SYSTEM)
def test_every_relaxation_is_explained(installed: Path, unit: str) -> None:
    """What the analysis marks is named in a comment of the unit, with its reason."""
    judged = analyze("security", "--offline=yes", installed / unit)
    marked = {re.split(r"[=/\s]", line.split()[1])[0] for line in judged.splitlines() if line.startswith("✗")}
    marked |= set(re.findall(r"✗ RestrictAddressFamilies=~(AF_[A-Z]+)", judged))
    comments = "\n".join(line for line in (installed / unit).read_text().splitlines() if line.startswith("#"))
    marked -= {"RestrictAddressFamilies"}
    assert marked
    assert {each for each in marked if each not in comments} == set()


def test_one_process_for_all_is_hardened_as_the_instances_are() -> None:
    """The two units differ only in what they run and in where keys come from."""
    instance, together = map(settings, SYSTEM)
    differing = {key for key in {**instance, **together} if instance.get(key) != together.get(key)}
    assert differing == {"Description", "ExecStart", "LoadCredential"}


@pytest.mark.parametrize("unit", ALL)
def test_a_service_is_never_given_up_unless_only_a_person_can_help(unit: str) -> None:
    """No start limit; restarted after everything but a wrong profile; a watchdog; no core dump with keys in it."""
    held = settings(unit)
    assert (held["Type"], held["Restart"], held["StartLimitIntervalSec"]) == ("notify", "always", "0")
    assert held["RestartPreventExitStatus"].split() == ["78", "64"]
    assert int(held["WatchdogSec"]) > 0
    assert held["LimitCORE"] == "0"


def test_the_user_and_the_folders_are_made(tmp_path: Path) -> None:
    """systemd's own tools read both files, and make what the units rely on."""
    for folder, name in (("sysusers.d", "tunneld.sysusers"), ("tmpfiles.d", "tunneld.tmpfiles")):
        (tmp_path / "usr/lib" / folder).mkdir(parents=True)
        shutil.copy(unit_files() / name, tmp_path / "usr/lib" / folder / "tunneld.conf")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True)
    user = (tmp_path / "etc/passwd").read_text()
    assert re.fullmatch(r"tunneld:[^:]*:\d+:\d+:[^:]*:/:/usr/sbin/nologin\n", user)
    if os.geteuid() != 0:
        pytest.skip("folders of other users are made as root")
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create"], check=True)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("etc/tunneld/keys", "run/tunneld")}
    assert modes == {"etc/tunneld/keys": 0o700, "run/tunneld": 0o750}


def test_an_installed_package_has_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the wheel, and found there."""
    pytest.importorskip("hatchling")
    source = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.setattr(files, "_HERE", tmp_path / "site/tunneld/systemd")
    shipped = {path.relative_to(unit_files()) for path in unit_files().rglob("*") if path.is_file()}
    assert shipped == {path.relative_to(source / "units") for path in (source / "units").rglob("*") if path.is_file()}
