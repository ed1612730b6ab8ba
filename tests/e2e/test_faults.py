# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to a node under traffic, fault by fault: what was established goes on or comes back by itself.

The nodes' addresses and uplinks are not configured: they follow the node. Those that cost a daemon of their
own are in other files: killed at any moment in test_life.py and test_daemon.py, a full flow table in
test_network.py."""

import socket
import subprocess
import threading
import time

import pytest

from cluster import FAMILIES, IPV4, IPV6
from conftest import make_cluster
from lab import wait_for
from traffic import Echo, Server, tcp_who
from weft import BUILD_SANITIZED

PORTS = [(f, port, pod) for f in FAMILIES for port, pod in ((f.near, "p1"), (f.far, "p2"))]


def forget_places(cluster):
    """Lets node 1 find out its addresses and uplinks by itself."""
    keys = dict(cluster.sections(1, cluster.modules))
    del keys["node"]["address"], keys["node"]["uplink"]
    cluster.weft1.configure(list(keys.items()))
    cluster.weft1.ctl("reload")


@pytest.fixture(scope="module", params=[True, False], ids=["host-routing", "stack"])
def cluster(request):
    made = make_cluster(BUILD_SANITIZED, host_routing=request.param)
    try:
        forget_places(made)
        yield made
        made.weft1.stop()
    finally:
        made.close()


@pytest.fixture
def echoes(cluster):
    """Established connections over node 1: through node ports, straight to its pod, and out of it."""
    server = Server(cluster.client, "client", tcp=7003, udp=7004)
    made = [Echo(cluster.client, f.n1, port) for f, port, _ in PORTS]
    made += [Echo(cluster.client, f.p1, 8080) for f in FAMILIES]
    made += [Echo(cluster.p1, f.client, 7003) for f in FAMILIES]
    yield made
    for echo in made:
        echo.close()
    server.close()


def all_alive(echoes):
    return all(echo.alive() for echo in echoes)


def answers(cluster, address, port):
    try:
        return tcp_who(cluster.client, address, port, timeout=1)[0]
    except OSError:
        return None


def serves(cluster):
    return all(answers(cluster, f.n1, port) == pod for f, port, pod in PORTS)


def status(cluster):
    return cluster.weft1.ctl_json("status")


# ---- sysctls and routes that somebody else changes ----------------------------------------------


@pytest.mark.parametrize("settings", [
    ["ipv4/ip_forward=1", "ipv4/ip_forward=0"],
    ["ipv4/conf/eth0/forwarding=0"],
    ["ipv6/conf/all/forwarding=1", "ipv6/conf/all/forwarding=0"],
], ids=lambda settings: settings[-1])
def test_forwarding_that_somebody_switched_off_is_switched_on_again(cluster, echoes, settings):
    node, said = cluster.n1, len(cluster.weft1.log())
    for setting in settings:
        key, value = setting.split("=")
        node.sysctl(key, value)
    family = settings[0][:4]
    wait_for("forwarding", lambda: node.sysctl(f"{family}/conf/eth0/forwarding") == "1")
    assert all_alive(echoes)
    wait_for("service", lambda: serves(cluster))
    assert "somebody else had changed: /proc/sys/net/" in cluster.weft1.log()[said:]


def test_reserved_ports_that_somebody_overwrote_are_reserved_again_beside_theirs(cluster):
    node = cluster.n1
    assert "30080" in node.sysctl("ipv4/ip_local_reserved_ports")
    node.sysctl("ipv4/ip_local_reserved_ports", "4444")
    wait_for("the node ports", lambda: "30080-30082" in node.sysctl("ipv4/ip_local_reserved_ports"), 15, step=0.2)
    assert node.sysctl("ipv4/ip_local_reserved_ports").startswith("4444,")
    node.sysctl("ipv4/ip_local_reserved_ports", node.sysctl("ipv4/ip_local_reserved_ports")[5:])


def test_routes_of_weft_that_somebody_deleted_come_back(cluster, echoes):
    """As systemd-networkd does with routes that it did not make."""
    node = cluster.n1

    def routes():
        return [sorted(node.run("ip", version, "route", "show", "proto", "119").stdout.splitlines())
                for version in ("-4", "-6")]

    before = routes()
    assert all(before)
    for version in ("-4", "-6"):
        node.run("ip", version, "route", "flush", "proto", "119")
    wait_for("weft's routes", lambda: routes() == before)
    assert all_alive(echoes)
    assert serves(cluster)
