# SPDX-License-Identifier: LGPL-2.1-or-later
"""What fits into a tunnel: the sizes that endpoints are told, and what the network between makes smaller."""

import re

import pytest

from cluster import IPV4, IPV6, Cluster
from conftest import start_servers
from lab import run, wait_for
from traffic import Echo, download, tcp_who, upload
from test_overlay import OVERHEAD, fits, make
from weft import BUILD, BUILD_SANITIZED

NARROW = 1400  # what the router between the nodes passes on to n2
WAYS = [("vxlan", "bpf", "ipv4", True, BUILD_SANITIZED), ("vxlan", "device", "ipv6", True, BUILD),
        ("geneve", "bpf", "ipv6", False, BUILD)]


def name_of(way):
    return "-".join(way[:3])


# What the daemon does is the same for either tunnel.
ONE_OF_EACH_MODE = pytest.mark.parametrize("cluster", WAYS[:2], indirect=True, ids=name_of)


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


@pytest.fixture(scope="module", params=WAYS, ids=name_of)
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


# ---- what endpoints are told ----------------------------------------------------------------------


def is_told(mtu, *pods):
    """Waits until the pods' default routes say MTU."""
    for pod in pods:
        for f in (IPV4, IPV6):
            wait_for(f"mtu {mtu} on the default route of {pod.name}", lambda: default_mtu(pod, f.p2) == mtu)


def widths(cluster, mtu, between):
    """Gives every link of the network MTU, and the way between the nodes `between`."""
    cluster.switch.ip(*(f"link set to-{name} mtu {mtu}" for name in ("client", "n1", "n2")))
    for ns in (cluster.client, cluster.n1, cluster.n2):
        ns.ip(f"link set eth0 mtu {mtu}")
    for f in (IPV4, IPV6):
        cluster.client.ip(f"route replace {f.n2}/{128 if ':' in f.n2 else 32} dev eth0 mtu lock {between}")
    forget(cluster.p1, cluster.p2, cluster.n1, cluster.client)


def test_jumbo_frames_are_used_as_soon_as_the_uplinks_take_them(cluster):
    over = 1500 - cluster.left
    echo = Echo(cluster.p1, IPV4.p2, 8080)
    widths(cluster, 9000, 9000)
    try:
        is_told(9000 - over, cluster.p1, cluster.p2)
        for f in (IPV4, IPV6):
            assert fits(cluster.p1, f.p2, 9000 - over)
            assert not fits(cluster.p1, f.p2, 9000 - over + 1)
            assert upload(cluster.p1, f.p2, 8080, 2 << 20)
        assert echo.alive()
    finally:
        widths(cluster, 1500, NARROW)
        is_told(cluster.left, cluster.p1, cluster.p2)
    assert echo.alive()
    echo.close()


@ONE_OF_EACH_MODE
def test_an_explicit_mtu_wins(cluster):
    kind = cluster.kind
    cluster.weft1.drop_in("50-mtu", [(f"module {kind}", {"mtu": 1290})])
    try:
        cluster.weft1.ctl("reload")
        is_told(1290, cluster.p1)
        for f in (IPV4, IPV6):
            assert fits(cluster.p1, f.p2, 1290)
            assert not fits(cluster.p1, f.p2, 1291)
            assert "mtu 1290" in cluster.n1.run("ip", flag(f.p2), "route", "get", f.p2).stdout
    finally:
        cluster.weft1.drop_in("50-mtu", None)
        cluster.weft1.ctl("reload")
    is_told(cluster.left, cluster.p1)


@ONE_OF_EACH_MODE
def test_a_refused_reload_leaves_the_sizes_as_they_are(cluster):
    def sizes():
        return [ns.run("ip", *what).stdout for ns in (cluster.n1, cluster.p1)
                for what in (("-o", "link"), ("-4", "route"), ("-6", "route"))]

    weft, before = cluster.weft1, sizes()
    weft.drop_in("50-mtu", [(f"module {cluster.kind}", {"mtu": 1290})])
    run("mount", "-o", "remount,ro", weft.bpffs)
    try:
        result = weft.ctl("reload", check=False)
        assert result.returncode != 0 and "Read-only file system" in result.stderr
    finally:
        run("mount", "-o", "remount,rw", weft.bpffs)
        weft.drop_in("50-mtu", None)
    assert sizes() == before
    assert fits(cluster.p1, IPV4.p2, cluster.narrow)


# ---- the daemon -----------------------------------------------------------------------------------


@ONE_OF_EACH_MODE
def test_connections_through_the_tunnel_outlive_the_daemon(cluster):
    weft = cluster.weft1
    echoes = [Echo(ns, address, port) for f in (IPV4, IPV6)
              for ns, address, port in ((cluster.p1, f.p2, 8080), (cluster.p2, f.p1, 8080), (cluster.n1, f.p2, 8080),
                                        (cluster.client, f.n1, f.far))]
    for end in (weft.stop, weft.kill):
        end()
        assert all(echo.alive() for echo in echoes), "without a daemon"
        weft.start()
        assert all(echo.alive() for echo in echoes), "with the next one"
    weft.ctl("reload")
    assert all(echo.alive() for echo in echoes)
    for echo in echoes:
        echo.close()


def test_a_node_whose_peers_are_apart_chooses_a_tunnel_by_itself():
    with Cluster() as cluster:
        route_between(cluster)
        cluster.weft({})
        start_servers(cluster)
        for weft in cluster.wefts.values():
            runs = {m["name"]: m["reason"] for m in weft.ctl_json("status")["modules"] if m["state"] == "on"}
            assert runs["vxlan"] == "chosen for routing" and "native-routing" not in runs
        assert tcp_who(cluster.p1, IPV4.p2, 8080)[:2] == ("p2", IPV4.p1)
        assert tcp_who(cluster.p2, IPV6.p1, 8080)[:2] == ("p1", IPV6.p2)
