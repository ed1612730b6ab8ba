# SPDX-License-Identifier: LGPL-2.1-or-later
"""A packet is decided whole at its first hook, whatever is done to it: once for each node, and by no stage."""

import os
import socket
import struct
from contextlib import contextmanager

import pytest

from cluster import Cluster, overlay_modules, standard_modules
from conftest import start_servers
from foreign import bpf
from traffic import Server, family_of

ENABLE_STATS, RUN_TIME = 32, 0
PACKETS = 40  # 20 there and 20 back
SPARE = 8  # what a next hop costs that is asked for again

WAYS = {"native": standard_modules(), "vxlan": overlay_modules("vxlan", mode="bpf"),
        "geneve": overlay_modules("geneve", mode="bpf")}


@pytest.fixture(scope="module", params=WAYS)
def cluster(request):
    made = Cluster()
    os.environ["WEFTD_DEBUG_LOOKUPS"] = "1"
    try:
        made.weft({**WAYS[request.param], "clusterip": {}})
        start_servers(made)
        server = Server(made.client, "client", tcp=7003, udp=7004)
        made.lab.on_close(server.close)
        yield made
    finally:
        del os.environ["WEFTD_DEBUG_LOOKUPS"]
        made.close()


@contextmanager
def run_counts():
    """The kernel counts the runs of all programs meanwhile."""
    fd = bpf(ENABLE_STATS, struct.pack("<I", RUN_TIME))
    try:
        yield
    finally:
        os.close(fd)


def counted(weft):
    """Lookups, and runs of entry programs by hook and of the modules' stages together."""
    runs = {"stages": 0}
    for row in weft.ctl_json("chain")["stages"]:
        if row["module"] == "engine":
            runs[row["hook"]] = row["runs"]
        else:
            runs["stages"] += row["runs"]
    return {**runs, "lookups": weft.events("LOOKUP")}


def exchange(s, n):
    for _ in range(n):
        s.send(b"who")
        s.recv(100)


def costs(cluster, ns, address, port):
    """What PACKETS of a flow cost each node; the first of the flow are not counted."""
    with ns.inside():
        s = socket.socket(family_of(address), socket.SOCK_DGRAM)
    with s, run_counts():
        s.settimeout(20)
        s.connect((address, port))
        exchange(s, 3)
        before = [counted(weft) for weft in cluster.wefts.values()]
        exchange(s, PACKETS // 2)
        after = [counted(weft) for weft in cluster.wefts.values()]
    return [{key: b[key] - a[key] for key in a} for a, b in zip(before, after)]


def once(cost):
    return cost["stages"] == 0 and PACKETS <= cost["lookups"] <= PACKETS + SPARE


def at(cost, hook):
    """PACKETS / 2 of them, one way, and what the links say besides."""
    return PACKETS // 2 <= cost[hook] <= PACKETS // 2 + SPARE


def test_between_endpoints_of_two_nodes(cluster, family):
    for cost in costs(cluster, cluster.p1, family.p2, 5353):
        assert once(cost) and at(cost, "from-endpoint") and at(cost, "from-uplink"), cost


def test_masqueraded(cluster, family):
    here, there = costs(cluster, cluster.p1, family.client, 7004)
    assert once(here) and at(here, "from-endpoint") and at(here, "from-uplink"), here
    assert there["lookups"] == there["stages"] == 0, there


def test_for_a_backend_of_another_node(cluster, family):
    here, there = costs(cluster, cluster.client, family.n1, family.far_udp)
    assert once(here) and here["from-endpoint"] <= SPARE, here
    assert once(there) and at(there, "from-endpoint"), there


def test_for_a_backend_of_this_node(cluster, family):
    here, there = costs(cluster, cluster.client, family.n2, family.far_udp)
    assert here["lookups"] == here["stages"] == 0, here
    assert once(there) and at(there, "from-endpoint") and at(there, "from-uplink"), there


def test_for_a_service_that_an_endpoint_asks(cluster, family):
    for cost in costs(cluster, cluster.p1, family.n1, family.far_udp):
        assert once(cost) and at(cost, "from-endpoint") and at(cost, "from-uplink"), cost
