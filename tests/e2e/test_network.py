# SPDX-License-Identifier: LGPL-2.1-or-later
"""Networks that are not as one would wish: firewalls, small MTUs, full tables."""

import socket

import pytest

from cluster import FAMILIES, IPV4
from conftest import make_cluster
from lab import wait_for
from many import Many, serve_many
from packets import mac, syn_flood
from traffic import (Echo, Server, connect, datagram, download, numbers, tcp_who, udp_who, upload)

FIREWALL = """
table inet firewall {
        counter dropped {}
        chain forward {
                type filter hook forward priority filter; policy accept;
                ct state invalid counter name dropped drop
                ct state established,related accept
                ct state new accept
        }
        chain input {
                type filter hook input priority filter; policy accept;
                ct state invalid counter name dropped drop
        }
        chain output {
                type filter hook output priority filter; policy accept;
                ct state invalid counter name dropped drop
        }
}
"""


@pytest.fixture
def made(request):
    """A function that makes the test's cluster, which ends with the test."""
    clusters = []

    def make(*arguments, **keywords):
        clusters.append(make_cluster(*arguments, **keywords))
        request.node.funcargs["cluster"] = clusters[-1]
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


# ---- a stateful firewall on the nodes ----------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """Legacy delivery: packets of local endpoints pass the node's own stack and its firewall."""
    made = make_cluster(host_routing=False)
    try:
        for node in (made.n1, made.n2):
            node.run("nft", "-f", "-", input=FIREWALL)
        yield made
    finally:
        made.close()


def dropped(cluster):
    """Packets that the nodes' firewalls found invalid."""
    return sum(int(node.run("nft", "list", "counter", "inet", "firewall", "dropped").stdout
                   .split("packets ")[1].split()[0]) for node in (cluster.n1, cluster.n2))


def test_a_firewall_that_drops_invalid_packets_sees_none(cluster, family):
    server = Server(cluster.client, "client", tcp=7003, udp=7004)
    data = numbers(5, 20000)
    try:
        for _ in range(10):
            assert tcp_who(cluster.client, family.n1, family.web)[0] in ("p1", "p2")
            assert udp_who(cluster.client, family.n1, family.dns)[0] in ("p1", "p2")
        assert upload(cluster.client, family.n1, family.near, 8 << 20)
        assert download(cluster.client, family.n1, family.far, 8 << 20)
        assert datagram(cluster.client, family.n1, family.far_udp, data) == data
        assert tcp_who(cluster.client, family.p1, 8080)[:2] == ("p1", family.client)
        assert tcp_who(cluster.p1, family.p2, 8080)[:2] == ("p2", family.p1)
        assert tcp_who(cluster.p1, family.client, 7003)[:2] == ("client", family.n1)
        assert upload(cluster.p1, family.client, 7003, 8 << 20)
    finally:
        server.close()
    assert dropped(cluster) == 0


def test_the_firewall_sees_the_same_addresses_in_both_directions(cluster, family):
    """Were one half of a connection translated out of the firewall's sight, its conntrack would know
    it only as unanswered."""
    node = cluster.n1
    node.run("nft", "add table inet watch; add chain inet watch forward "
             "{ type filter hook forward priority 10; }; "
             "add rule inet watch forward ct direction reply ct state established counter")
    echo = Echo(cluster.client, family.n1, family.near)
    try:
        assert all(echo.alive() for _ in range(5))
        listing = node.run("nft", "list chain inet watch forward").stdout
        assert int(listing.split("packets ")[1].split()[0]) >= 5
    finally:
        echo.close()
        node.run("nft", "delete table inet watch")


def test_established_connections_outlive_the_firewalls_rule_against_new_ones(cluster, family):
    """The node's conntrack knows the connection as established: rules for new ones miss it."""
    echo = Echo(cluster.client, family.n1, family.near)
    assert echo.alive()
    cluster.n1.run("nft", "add table inet wall; add chain inet wall forward "
                   "{ type filter hook forward priority 5; }; "
                   "add rule inet wall forward ct state new drop")
    try:
        assert echo.alive()
        with pytest.raises(TimeoutError):
            connect(cluster.client, family.n1, family.near, timeout=0.5)
    finally:
        cluster.n1.run("nft", "delete table inet wall")
        echo.close()


# ---- a path MTU smaller than the link ------------------------------------------------------------------


def add_far_client(cluster):
    """A second client behind a router whose links take 1500 bytes and whose ways only 1300."""
    lab = cluster.lab
    router, far = lab.namespace("router"), lab.namespace("far")
    lab.plug(cluster.switch, router)
    lab.cable(router, "inner", far, "eth0")
    router.sysctl("ipv4/ip_forward", 1)
    router.sysctl("ipv6/conf/all/forwarding", 1)
    router.ip("addr add 192.0.2.50/24 dev eth0", "addr add 2001:db8::50/64 dev eth0",
              "addr add 192.0.3.1/24 dev inner", "addr add 2001:db8:3::1/64 dev inner",
              "route replace 192.0.3.0/24 dev inner mtu lock 1300",
              "route replace 192.0.2.0/24 dev eth0 mtu lock 1300",
              "route replace 2001:db8:3::/64 dev inner mtu lock 1300",
              "route replace 2001:db8::/64 dev eth0 mtu lock 1300",
              *(f"route add {a} via {n} mtu lock 1300" for a, n in (
                  ("10.244.1.0/24", "192.0.2.11"), ("10.244.2.0/24", "192.0.2.12"),
                  ("fd00:244:1::/64", "2001:db8::11"), ("fd00:244:2::/64", "2001:db8::12"))))
    far.ip("addr add 192.0.3.100/24 dev eth0", "addr add 2001:db8:3::100/64 dev eth0",
           "route add default via 192.0.3.1", "route add default via 2001:db8:3::1")
    for node in (cluster.n1, cluster.n2):
        node.ip("route add 192.0.3.0/24 via 192.0.2.50", "route add 2001:db8:3::/64 via 2001:db8::50")
    return far


@pytest.mark.parametrize("host_routing", [True, False], ids=["host-routing", "stack"])
def test_transfers_pass_a_way_narrower_than_the_link(made, host_routing):
    cluster = made(host_routing=host_routing)
    far = add_far_client(cluster)
    for family in FAMILIES:
        for address, port in ((family.n1, family.near), (family.n1, family.far), (family.p1, 8080)):
            assert download(far, address, port, 8 << 20), (address, port)
            assert upload(far, address, port, 8 << 20), (address, port)


def test_pods_behind_a_narrow_link_are_told(made):
    """The node's uplink takes less than the pods' devices: weft itself has to say what fits."""
    cluster = made()
    server = Server(cluster.client, "client", tcp=7003, udp=7004)
    try:
        cluster.n1.ip("link set eth0 mtu 1300")
        cluster.switch.ip("link set to-n1 mtu 1300")
        for family in FAMILIES:
            assert upload(cluster.p1, family.client, 7003, 8 << 20)
            assert upload(cluster.p1, family.p2, 8080, 8 << 20)
            assert download(cluster.p2, family.p1, 8080, 8 << 20)
    finally:
        server.close()


# ---- many connections --------------------------------------------------------------------------------


def share_all_ports(cluster):
    """The node's own connections and the translated ones draw from the same ports."""
    cluster.n1.sysctl("ipv4/ip_local_port_range", "1024 65535")


@pytest.mark.parametrize("prepare, wide, clients",
                         [(share_all_ports, True, 20000), (None, True, 20000), (None, False, 4000)],
                         ids=["all-shared", "some-shared", "default"])
def test_the_nodes_own_connections_stand_beside_translated_ones(made, prepare, wide, clients):
    cluster = made(prepare=prepare, nodeport_snat={"snat-ports": "1024-65535"} if wide else {})
    serve_many(cluster.p2, 7000)
    cluster.weft1.drop_in("many", [("service many", {
        "port": "7000/tcp", "node-port": 30700, "backend": f"{IPV4.p2}:7000"})])
    cluster.weft1.ctl("reload")
    half = clients // 2
    held = [Many(cluster.n1, IPV4.p2, 7000, 10000), Many(cluster.client, IPV4.n1, 30700, half),
            Many(cluster.n1, IPV4.p2, 7000, 10000), Many(cluster.client, IPV4.n1, 30700, half)]
    assert [one.opened() for one in held] == [10000, half, 10000, half]
    for _ in range(2):
        assert [one.alive() for one in held] == [10000, half, 10000, half]
    if wide:
        assert cluster.weft1.events("PORT_BUSY") > 1000, "nobody wanted a port that another had"
    for one in held:
        one.close()


def test_a_connection_of_the_node_from_a_shared_port_is_told_as_its_own(made):
    cluster = made(nodeport_snat={"snat-ports": "1024-65535"})
    echo = Echo(cluster.n1, IPV4.p2, 8080)
    port = echo.socket.getsockname()[1]
    sides = {f["side"] for f in cluster.weft1.ctl_json("flows")["flows"] if f["source_port"] == port}
    assert sides == {"host_out"}
    assert echo.alive()
    echo.close()


def test_a_flood_of_new_connections_leaves_the_established_ones_alone(made):
    cluster = made(core={"flow-table-size": 4096})
    echoes = [Echo(cluster.client, IPV4.n1, IPV4.far) for _ in range(200)]
    echoes += [Echo(cluster.client, IPV4.n1, IPV4.near) for _ in range(200)]
    assert all(echo.alive() for echo in echoes)
    for _ in range(2):
        syn_flood(cluster.client, mac(cluster.n1), IPV4.n1, IPV4.far, 41000)
        assert all(echo.alive() for echo in echoes)
    assert cluster.weft1.drops("FLOW_TABLE_FULL") + cluster.weft1.events("EVICTED") > 1000
    wait_for("a new connection to be let in", lambda: succeeds(cluster), 90, step=0.5)
    assert all(echo.alive() for echo in echoes)
    for echo in echoes:
        echo.close()


def succeeds(cluster):
    try:
        return tcp_who(cluster.client, IPV4.n1, IPV4.far, timeout=2)
    except OSError:
        return False


def test_what_a_pod_lets_be_cut_up_passes_a_narrow_link_in_fragments(made):
    """Datagrams without DF, larger than the uplink takes: masqueraded, and to another pod."""
    cluster = made()
    cluster.n1.ip("link set eth0 mtu 1300")
    cluster.switch.ip("link set to-n1 mtu 1300")
    wait_for("weftd to know the link's MTU", lambda: cluster.weft1.ctl_json("status")["uplinks"][0]["mtu"] == 1300)
    cluster.p1.run("ip", "route", "replace", "default", "via", "10.244.1.1", "mtu", "1500")
    data = numbers(8, 1400)
    for receiver, address, seen in ((cluster.client, IPV4.client, IPV4.n1), (cluster.p2, IPV4.p2, IPV4.p1)):
        with receiver.inside():
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with cluster.p1.inside():
            sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with listening, sending:
            listening.bind((address, 7777))
            listening.settimeout(5)
            sending.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
            for _ in range(3):
                sending.sendto(data, (address, 7777))
                got, peer = listening.recvfrom(65536)
                assert got == data and peer[0] == seen
    assert cluster.weft1.drops("TOO_BIG") == 0
