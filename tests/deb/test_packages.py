# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages, from installation to purge, in this order."""

import os
import subprocess
from pathlib import Path

import pytest

from cluster import IPV4, Cluster, standard_modules
from lab import run
from load import Load
from machine import CONTROL, PINS, WEFTD, Service, is_active, manager_is_ours, show, systemctl
from traffic import Server, tcp_who
from weft import BUILD, Weft

DEBS = BUILD / "deb"
METRICS = "weftd-metrics.socket"
ENDPOINT = "weft-endpoint@spare.service"
# What dpkg, the linker and the journal keep for themselves; what the lab makes.
OTHERS = ("/var/lib/dpkg", "/var/log", "/var/cache", "/etc/ld.so.cache", "/run/systemd", "/run/log", "/run/netns",
          "/run/user", "/var/lib/systemd/linger", "/run/dbus", "/etc/group-", "/etc/gshadow-", "/run/udev")
LOOKED_AT = ("/etc", "/lib", "/opt", "/run", "/srv", "/usr", "/var", "/sys/fs/bpf")


def files():
    found = set()
    for top in LOOKED_AT:
        for directory, directories, names in os.walk(top):
            directories[:] = [d for d in directories if not os.path.join(directory, d).startswith(OTHERS)]
            found |= {path for name in names + directories
                      if not (path := os.path.join(directory, name)).startswith(OTHERS)}
    return {path for path in found if "__pycache__" not in path}


def groups():
    return [line.split(":")[0] for line in Path("/etc/group").read_text().splitlines()]


def dpkg(*argv):
    return run("dpkg", *argv, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def installed():
    (deb,) = DEBS.glob("weft_*.deb")
    return dpkg("-i", deb)


def version():
    return run("dpkg-query", "-W", "-f", "${Version}", "weft").stdout


@pytest.fixture(scope="module")
def before():
    assert manager_is_ours()
    return files(), groups()


@pytest.fixture(scope="module")
def cluster(before):
    dpkg("-i", DEBS / "previous.deb")
    with Cluster(home="n1") as made:
        made.wefts[1] = Service(made)
        spare = ("endpoint spare", {"netns": "/run/netns/spare", "address": "10.244.1.99"})
        made.wefts[1].configure(made.sections(1, standard_modules(), more=[spare]))
        made.wefts[2] = Weft(made.lab, made.n2, "n2")
        made.wefts[2].configure(made.sections(2, standard_modules()))
        made.wefts[2].start()
        for name in ("p1", "p2", "client"):
            made.lab.on_close(Server(made.lab[name], name).close)
        yield made


def serves(cluster):
    try:
        return tcp_who(cluster.client, IPV4.n1, IPV4.far, timeout=0.5)[0] == "p2"
    except OSError:
        return False


def test_nothing_in_the_packages_names_the_place_of_the_build(cluster):
    """Who builds the same tree elsewhere gets the same packages."""
    (dev,) = DEBS.glob("weft-dev_*.deb")
    here = str(DEBS / "source").encode()
    for deb in (DEBS / "previous.deb", dev):
        content = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True).stdout
        assert b"usr/" in content and here not in content, deb


def test_installation_makes_groups_and_units_and_starts_nothing(cluster):
    assert version().endswith("~previous")
    assert {"weft", "weft-ro"} <= set(groups())
    assert show(WEFTD, "LoadState", "ActiveState", "UnitFileState") == ("loaded", "inactive", "disabled")
    assert not is_active("weftd.socket")
    assert not serves(cluster)
    said = run("systemd-analyze", "verify", "weftd.service", "weftd.socket", "weft-endpoint@web.service")
    assert said.stdout + said.stderr == ""
    assert Path("/usr/share/zsh/vendor-completions/_weftctl").exists()  # zsh of Debian has no site-functions there


def test_the_service_starts_and_packets_flow(cluster):
    systemctl("enable", "--now", METRICS, WEFTD)
    systemctl("start", ENDPOINT)
    assert serves(cluster)
    assert {m["state"] for m in cluster.weft1.ctl_json("modules")["modules"]} == {"on"}
    assert CONTROL.group() == "weft"
    explained = run("journalctl", "-x", "-u", WEFTD).stdout
    assert "Generation 1 carries this node's traffic." in explained


def test_an_upgrade_under_load_restarts_the_daemon_and_loses_nothing(cluster):
    pid = cluster.weft1.pid
    socket = show("weftd.socket", "InvocationID")
    with Load(cluster) as load:
        said = installed()
        assert not version().endswith("~previous")
        assert cluster.weft1.pid not in (0, pid)
        load.check()
    assert said.stderr == ""
    assert serves(cluster)
    assert show(WEFTD, "UnitFileState") == "enabled"
    assert [is_active(unit) for unit in (WEFTD, METRICS, ENDPOINT)] == [True, True, True]
    assert show("weftd.socket", "InvocationID") == socket  # who connects meanwhile waits


def test_an_upgrade_whose_weftd_refuses_the_configuration_leaves_the_old_one_running(cluster):
    pid = cluster.weft1.pid
    bad = Path("/etc/weft/conf.d/90-bad.conf")
    bad.write_text("[node]\nnaem = n1\n")
    said = installed().stderr
    assert f'{bad}:2: [node] naem = n1: unknown key, did you mean "name"?' in said
    assert "systemctl restart weftd" in said
    assert cluster.weft1.pid == pid and is_active(WEFTD) and serves(cluster)
    bad.unlink()
    systemctl("restart", WEFTD)
    assert serves(cluster)


def test_removal_ends_the_datapath_and_purge_leaves_nothing(cluster, before):
    (Path("/etc/weft/conf.d") / "10-mine.conf").write_text("[service mine]\nport = 80/tcp\n")
    dpkg("--remove", "weft")
    assert not serves(cluster)
    assert not PINS.exists() and not CONTROL.exists()
    assert "weft" not in cluster.n1.run("ip", "-o", "link").stdout
    assert show(WEFTD, "ActiveState") == "inactive"
    assert cluster.weft1.file.exists()
    dpkg("--purge", "weft")
    assert files() - before[0] == set()
    assert groups() == before[1]
