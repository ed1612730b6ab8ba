# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `meson install` leaves, under its prefix and in a DESTDIR; the Debian packages take all of it."""

import json
from fnmatch import fnmatch
from pathlib import Path

from lab import run
from machine import systemctl
from weft import BUILD, TOP

PREFIX = Path("/usr/local")


def planned():
    """Paths that an installation is to make."""
    return {Path(path) for path in json.loads(run("meson", "introspect", "--installed", BUILD).stdout).values()}


def test_everything_is_below_the_prefix_and_there():
    assert {path for path in planned() if PREFIX not in path.parents} == set()
    assert {path for path in planned() if not path.exists()} == set()


def test_a_destdir_gets_the_same_files_and_no_name_of_the_build(tmp_path):
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", tmp_path)
    got = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path("/") / path.relative_to(tmp_path) for path in got} == planned()
    for path in got:
        if path.suffix in (".service", ".socket", ".conf", ".pc", ".md", ".sample", ".h", ".def"):
            text = path.read_text()
            assert str(tmp_path) not in text and str(BUILD) not in text and str(TOP) + "/" not in text, path


def test_the_units_are_where_the_manager_looks_and_call_what_is_installed():
    for unit in ("weftd.service", "weftd.socket", "weftd-metrics.socket", "weft-endpoint@web.service"):
        assert systemctl("show", "-P", "LoadState", unit).stdout.strip() == "loaded"
    for verb in (("weftd", "--version"), ("weftctl", "--version"), (PREFIX / "libexec/weft/weft-endpoint", "--help")):
        assert run(*verb).stdout


def test_each_file_belongs_to_one_debian_package():
    patterns = [(package, pattern.strip() + end) for package in ("weft", "weft-dev")
                for pattern in (TOP / f"debian/{package}.install").read_text().splitlines() for end in ("", "/*")]
    for path in planned():
        name = str(path.relative_to(PREFIX))
        name = name if name.startswith("lib/systemd/system/") else f"usr/{name}"
        assert len({package for package, pattern in patterns if fnmatch(name, pattern)}) == 1, name
