# SPDX-License-Identifier: LGPL-2.1-or-later
"""Services as pods see them, by each of their addresses, past the host's stack or not."""

import pytest

from conftest import start_servers
from cluster import FAMILIES, Cluster, standard_modules
from test_core import answers, refused
from traffic import Echo, Server, connect, datagram, download, numbers, ping, tcp_who, udp_who, upload

CLUSTER_IP = {"ipv4": "10.96.0.10", "ipv6": "fd00:96::10"}
LOOPBACK = {"ipv4": "169.254.42.1", "ipv6": "fd77:6566:74::1"}
API = 7101  # a server of the node itself
ALONE = 8090  # a port of one pod, which no other service leads to


def services(f, alone="p2"):
    """What pods reach at CLUSTER_IP."""
    def service(name, port, backends):
        keys = {"port": port, "cluster-ip": CLUSTER_IP[f.name]}
        if backends:
            keys["backend"] = [f.with_port(getattr(f, who), number) for who, number in backends]
        return (f"service inside-{name}-{f.name}", keys)

    return [
        service("web", "80/tcp", [("p1", 8080), ("p2", 8080)]),
        service("dns", "53/udp", [("p1", 5353), ("p2", 5353)]),
        service("far", "81/tcp", [("p2", 8080)]),
        service("far-udp", "81/udp", [("p2", 5353)]),
        service("itself", "82/tcp", [("p1", 8080)]),
        service("itself-udp", "82/udp", [("p1", 5353)]),
        service("shut", "83/udp", [("p2", 9)]),
        service("none", "84/tcp", []),
        service("alone", "85/tcp", [(alone, ALONE)]),
        service("api", "443/tcp", [("n1", API)]),
    ]


def all_services(**more):
    return [section for f in FAMILIES for section in services(f, **more)]


@pytest.fixture(scope="module", params=[True, False], ids=["host-routing", "stack"])
def cluster(request):
    made = Cluster()
    modules = standard_modules(request.param) | {"clusterip": {}}
    try:
        made.weft(modules, more=all_services())
        made.modules = modules
        start_servers(made)
        for f in FAMILIES:
            made.client.ip(f"route add {CLUSTER_IP[f.name]} via {f.n1}")
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


def test_a_cluster_ip_leads_to_both_backends_which_see_the_pods_address(cluster, family):
    expected = {"p1": {LOOPBACK[family.name]}, "p2": {family.p1}}
    assert answers(tcp_who, cluster.p1, CLUSTER_IP[family.name], 80) == expected
    assert answers(udp_who, cluster.p1, CLUSTER_IP[family.name], 53) == expected


def test_addresses_for_the_outside_are_reached_from_inside(cluster, family):
    expected = {"p1": {LOOPBACK[family.name]}, "p2": {family.p1}}
    for address, port in ((family.external, 80), (family.balancer, 80), (family.n1, family.web),
                          (family.n2, family.web)):
        assert answers(tcp_who, cluster.p1, address, port, 20) == expected, address


def test_a_service_address_answers_a_pods_ping_and_no_unknown_port(cluster, family):
    assert ping(cluster.p1, CLUSTER_IP[family.name])
    with pytest.raises(TimeoutError):
        connect(cluster.p1, CLUSTER_IP[family.name], 9999, timeout=0.5)
    assert cluster.weft1.drops("SERVICE_UNKNOWN_PORT") > 0


def test_the_outside_reaches_no_cluster_ip(cluster, family):
    before = cluster.weft1.drops("SERVICE_INSIDE")
    assert not ping(cluster.client, CLUSTER_IP[family.name], wait=1)
    with pytest.raises(TimeoutError):
        connect(cluster.client, CLUSTER_IP[family.name], 80, timeout=0.5)
    assert cluster.weft1.drops("SERVICE_INSIDE") >= before + 2


def test_a_pod_is_refused_where_there_is_no_backend_or_nobody_listens(cluster, family):
    with pytest.raises(ConnectionRefusedError):
        connect(cluster.p1, CLUSTER_IP[family.name], 84)
    assert refused(cluster.p1, CLUSTER_IP[family.name], 83)


def test_a_server_of_the_node_is_a_backend_like_any_other(cluster, family):
    server = Server(cluster.n1, "n1", tcp=API, udp=API)
    try:
        assert tcp_who(cluster.p1, CLUSTER_IP[family.name], 443)[:2] == ("n1", family.p1)
        assert tcp_who(cluster.p2, CLUSTER_IP[family.name], 443)[:2] == ("n1", family.p2)
        assert download(cluster.p1, CLUSTER_IP[family.name], 443, 1 << 20)
    finally:
        server.close()


@pytest.mark.parametrize("port", [81, 82], ids=["far", "itself"])
def test_large_transfers_pass(cluster, family, port):
    address = CLUSTER_IP[family.name]
    assert upload(cluster.p1, address, port, 4 << 20)
    assert download(cluster.p1, address, port, 4 << 20)
    data = numbers(5, 20000)
    assert datagram(cluster.p1, address, port, data) == data


def test_one_port_of_a_pod_reaches_a_backend_by_every_way_at_once(cluster, family):
    ways = [Echo(cluster.p1, address, port, source=("", 40300))
            for address, port in ((CLUSTER_IP[family.name], 81), (family.n1, family.far),
                                  (family.p2, 8080))]
    assert all(way.alive() for way in ways) and all(way.alive() for way in ways)
    for way in ways:
        way.close()


def test_connections_outlive_reloads_and_the_daemon(cluster, family):
    held = [Echo(cluster.p1, CLUSTER_IP[family.name], port) for port in (81, 82)]
    cluster.weft1.ctl("reload")
    assert all(one.alive() for one in held)
    cluster.weft1.kill()
    assert all(one.alive() for one in held)
    assert tcp_who(cluster.p1, CLUSTER_IP[family.name], 81)[0] == "p2"
    cluster.weft1.start()
    assert all(one.alive() for one in held)
    for one in held:
        one.close()


def test_a_removed_backend_resets_its_connections_and_only_those(cluster, family):
    address = CLUSTER_IP[family.name]
    server = Server(cluster.p2, "p2-alone", tcp=ALONE, udp=ALONE)
    gone, stays = Echo(cluster.p1, address, 85), Echo(cluster.p1, address, 82)
    cluster.weft1.configure(cluster.sections(1, cluster.modules, more=all_services(alone="p1")))
    cluster.weft1.ctl("reload")
    try:
        with pytest.raises(ConnectionResetError):
            gone.alive()
        assert stays.alive()
        with pytest.raises(ConnectionRefusedError):  # by p1, where nobody listens
            connect(cluster.p1, address, 85)
    finally:
        cluster.weft1.configure(cluster.sections(1, cluster.modules, more=all_services()))
        cluster.weft1.ctl("reload")
        stays.close()
        server.close()
