# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine of these tests: a systemd manager of their own (with-systemd), with weft installed on it.

Its own network namespace is node n1 of the lab, whose weftd is the installed weftd.service. Node n2's
is a plain process, as in the other end-to-end tests.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "e2e")]

from cluster import Cluster, standard_modules  # noqa: E402
from lab import run  # noqa: E402
from machine import WEFTD, Service, manager_is_ours, reset, systemctl  # noqa: E402
from traffic import Server  # noqa: E402
from weft import BUILD, Weft  # noqa: E402


def pytest_sessionstart(session):
    if os.geteuid() != 0 or not manager_is_ours():
        pytest.exit("these tests install weft and end services: run them by tests/run systemd", 2)


@pytest.fixture(scope="session", autouse=True)
def installed():
    """weft as an administrator installs it."""
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet")
    run("ldconfig")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create", "weft.conf")
    run("journalctl", "--update-catalog")
    systemctl("daemon-reload")


@pytest.fixture(scope="session")
def cluster(installed):
    with Cluster(home="n1") as made:
        made.wefts[1] = Service(made)
        made.wefts[2] = Weft(made.lab, made.n2, "n2")
        made.wefts[2].configure(made.sections(2, standard_modules()))
        made.wefts[2].start()
        for name in ("p1", "p2", "client"):
            made.lab.on_close(Server(made.lab[name], name).close)
        yield made


@pytest.fixture
def weftd(cluster):
    """The unit, running with the lab's standard configuration and nothing left of the test before."""
    service = cluster.weft1
    reset(service)
    service.configure(cluster.sections(1, standard_modules()))
    systemctl("start", "weftd.socket", WEFTD)
    yield service
    reset(service)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    made = getattr(item, "funcargs", {}).get("cluster")
    if report.when == "call" and report.failed and made:
        report.sections.append(("weftd", made.account()))
