# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the end-to-end tests."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cluster import FAMILIES, Cluster, standard_modules  # noqa: E402
from lab import clean  # noqa: E402
from traffic import Server  # noqa: E402
from weft import BUILD  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "timing: has a bound of time, which holds on a machine that does nothing else")


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("the end-to-end tests make network namespaces: run them as root", 2)
    clean()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    made = getattr(item, "funcargs", {}).get("cluster")
    if report.when == "call" and report.failed and made:
        report.sections.append(("weftd", made.account()))


@pytest.fixture(params=FAMILIES, ids=lambda f: f.name)
def family(request):
    return request.param


def start_servers(cluster):
    """A server in each pod, ended with the lab."""
    cluster.servers = {name: Server(cluster.lab[name], name) for name in ("p1", "p2")}
    for server in cluster.servers.values():
        cluster.lab.on_close(server.close)


def make_cluster(build=BUILD, core=None, host_routing=True, prepare=None, **options):
    """A running cluster. prepare: called with it before weftd starts; options: of modules."""
    cluster = Cluster()
    try:
        if prepare:
            prepare(cluster)
        cluster.weft(standard_modules(host_routing, **options), core, build)
        start_servers(cluster)
    except BaseException:
        cluster.close()
        raise
    return cluster
