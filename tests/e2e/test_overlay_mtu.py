# SPDX-License-Identifier: LGPL-2.1-or-later
"""What fits into a tunnel: the sizes that endpoints are told, and what the network between makes smaller."""

import re

import pytest

from cluster import IPV4, IPV6
from lab import wait_for
from traffic import Echo, download, upload
from test_overlay import OVERHEAD, fits, make
from weft import BUILD, BUILD_SANITIZED

NARROW = 1400  # what the router between the nodes passes on to n2
WAYS = [("vxlan", "bpf", "ipv4", True, BUILD_SANITIZED), ("geneve", "bpf", "ipv6", False, BUILD),
        ("vxlan", "device", "ipv6", True, BUILD)]


def route_between(cluster):
    """The client routes between the nodes, and the way to n2 is narrower than the nodes' links."""
    client = cluster.client
    for family in ("ipv4", "ipv6"):
        client.sysctl(f"{family}/conf/all/forwarding", 1)
    for name in ("all", "eth0"):
        client.sysctl(f"ipv4/conf/{name}/send_redirects", 0)
    for f in (IPV4, IPV6):
        length = 128 if ":" in f.n1 else 32
        client.ip(f"route add {f.n2}/{length} dev eth0 mtu lock {NARROW}")
        cluster.n1.ip(f"route add {f.n2}/{length} via {f.client}")
        cluster.n2.ip(f"route add {f.n1}/{length} via {f.client}")


@pytest.fixture(scope="module", params=WAYS, ids=lambda w: "-".join(w[:3]))
def cluster(request):
    kind, mode, underlay, host_routing, build = request.param
    made = make(kind, mode, underlay, host_routing, build, prepare=route_between)
    made.left = 1500 - OVERHEAD[underlay]
    made.narrow = NARROW - OVERHEAD[underlay]
    try:
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


def flag(address):
    return "-6" if ":" in address else "-4"


def learnt(ns, address):
    """The MTU that NS remembers of the way to ADDRESS; 0: none."""
    found = re.search(r"\bmtu (\d+)", ns.run("ip", flag(address), "route", "get", address).stdout)
    return int(found[1]) if found else 0


def forget(*namespaces):
    for ns in namespaces:
        for way in ("-4", "-6"):
            ns.run("ip", way, "route", "flush", "cache")


def default_mtu(pod, address):
    found = re.search(r"\bmtu (\d+)", pod.run("ip", flag(address), "route", "show", "default").stdout)
    return int(found[1]) if found else 0


# ---- the network between --------------------------------------------------------------------------


def test_a_pod_learns_what_the_network_between_the_nodes_carries(cluster, family):
    forget(cluster.p1)
    assert not fits(cluster.p1, family.p2, cluster.left)
    assert learnt(cluster.p1, family.p2) == cluster.narrow
    assert fits(cluster.p1, family.p2, cluster.narrow)
    assert not fits(cluster.p1, family.p2, cluster.narrow + 1)


def test_streams_go_on_where_the_network_between_carries_less(cluster, family):
    forget(cluster.p1, cluster.p2, cluster.n1, cluster.client)
    assert upload(cluster.p1, family.p2, 8080, 2 << 20)
    assert learnt(cluster.p1, family.p2) == cluster.narrow
    assert download(cluster.p2, family.p1, 8080, 2 << 20)
    assert upload(cluster.n1, family.p2, 8080, 2 << 20)


def test_a_client_outside_learns_it_by_the_services_address(cluster, family):
    forget(cluster.client)
    assert upload(cluster.client, family.n1, family.far, 2 << 20)
    assert learnt(cluster.client, family.n1) == cluster.narrow
    forget(cluster.client)
