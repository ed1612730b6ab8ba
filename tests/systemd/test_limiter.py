# SPDX-License-Identifier: LGPL-2.1-or-later
"""A module of somebody else's: built against the installed weft, installed with its drop-in, exchanged."""

import shutil
from pathlib import Path

import pytest

from cluster import IPV4, IPV6
from lab import PATIENCE, run
from load import Load
from machine import MODULES
from traffic import tcp_who
from weft import TOP

EXAMPLE = TOP / "examples/limiter"
OWN = Path("/usr/lib/weft/conf.d/30-limiter.conf")
HEAVY = "192.0.2.101"  # another address of the client


@pytest.fixture
def package(tmp_path, cluster, weftd):
    """The module's own directory, unpacked and configured."""
    cluster.client.ip(f"addr add {HEAVY}/24 dev eth0")
    source = tmp_path / "limiter"
    shutil.copytree(EXAMPLE, source)
    run("meson", "setup", "build", cwd=source)
    yield source
    cluster.client.ip(f"addr del {HEAVY}/24 dev eth0")
    OWN.unlink(missing_ok=True)
    (MODULES / "limiter.so").unlink(missing_ok=True)


def install(source):
    run("meson", "install", "-C", "build", cwd=source)


def admitted(cluster):
    try:
        return bool(tcp_who(cluster.client, IPV4.n1, IPV4.web, timeout=0.5 * PATIENCE, source=(HEAVY, 0)))
    except OSError:
        return False


def limiter(weftd):
    """What weftd says of the module; None: it does not run."""
    rows = [m for m in weftd.ctl_json("modules")["modules"] if m["name"] == "limiter"]
    return rows[0] if rows else None


def refused(weftd):
    return sum(row["packets"] for row in weftd.ctl_json("status")["drops"]
               if (row["what"], row["module"]) == ("TOO_MANY_CONNECTIONS", "limiter"))


def test_a_module_comes_with_its_drop_in_and_is_exchanged_for_its_second_version(cluster, weftd, package):
    install(package)
    assert limiter(weftd) is None
    weftd.reload()
    assert limiter(weftd)["version"] == "1"

    # the administrator's file of that name takes the place of the package's
    weftd.drop_in("30-limiter", [("module limiter", {"limit": 5, "window": "1h", "except": [IPV4.client, IPV6.client]})])
    weftd.reload()
    with Load(cluster) as load:
        assert [admitted(cluster) for _ in range(7)] == [True] * 5 + [False] * 2
        run("patch", "-p1", "-i", EXAMPLE / "second-version.patch", cwd=package)
        install(package)
        weftd.reload()
        assert limiter(weftd)["version"] == "2"
        load.check()
        assert not admitted(cluster)  # who was at the limit is still
        load.expect("n1", "TOO_MANY_CONNECTIONS", refused(weftd))
    counted = {c["name"]: c["value"] for c in limiter(weftd)["counters"]}
    assert counted["admitted"] == 5 and counted["refused"] == refused(weftd) > 0 and counted["excepted"] > 0

    weftd.drop_in("30-limiter", None)
    (weftd.root / "etc/weft/conf.d/30-limiter.conf").symlink_to("/dev/null")
    weftd.reload()
    assert limiter(weftd) is None
    assert admitted(cluster)
