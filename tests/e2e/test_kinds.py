# SPDX-License-Identifier: LGPL-2.1-or-later
"""What services must get right whichever way a packet goes: by SNAT or DSR through a tunnel, and as pods see
them; fragments, ICMP errors, hairpins, one client port by every way, and what is held through reloads."""

import socket
import struct

import pytest

from cluster import FAMILIES, Cluster
from conftest import start_servers
from packets import Sniffer, icmp_errors, mac, send_frame
from lab import wait_for
from test_clusterip import CLUSTER_IP, LOOPBACK, all_services
from test_core import answers, neighbour, refused
from traffic import Echo, datagram, download, tcp_who, udp_who, upload

UDP, TCP, SHUT = 1, 2, 3  # ports of the services of one way, from its base on
KINDS = {  # modules, and for each way the base of its ports
    "vxlan": ({"vxlan": {}, "nodeport-snat": {}, "host-routing": {}}, {"snat": 8100}),
    "geneve": ({"geneve": {}, "hybrid": {}, "nodeport-dsr": {"dispatch": "geneve"}},
               {"snat": 8100, "dsr": 8110}),
}
TUNNELS = {"vxlan": (8472, 0x08000000), "geneve": (6081, 0x00006558)}  # port, first word of the header
MARKER = b"a fragment whose first nobody saw"


def services(ways):
    result = all_services()
    for f in FAMILIES:
        for way, base in ways.items():
            for port, proto, number in ((UDP, "udp", 5353), (TCP, "tcp", 8080), (SHUT, "udp", 9)):
                result.append((f"service {way}-{base + port}-{f.name}", {
                    "port": f"{base + port}/{proto}", "external-ip": f.external, "forwarding": way,
                    "backend": f.with_port(f.p2, number)}))
    return result


@pytest.fixture(scope="module", params=KINDS)
def cluster(request):
    modules, ways = KINDS[request.param]
    made = Cluster()
    made.kind, made.ways = request.param, ways
    try:
        made.weft(modules | {"clusterip": {}, "bpf-masq": {"ipv6": "yes"}}, more=services(ways))
        start_servers(made)
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


def seen_source(f, way):
    """The client's address as the backend on the other node sees it."""
    return f.client if way == "dsr" else f.n1


# ---- who reaches whom ---------------------------------------------------------------------------------


def test_each_way_shows_the_backend_whom_it_should(cluster, family):
    for way, base in cluster.ways.items():
        assert tcp_who(cluster.client, family.external, base + TCP)[:2] == ("p2", seen_source(family, way)), way
        assert udp_who(cluster.client, family.external, base + UDP)[:2] == ("p2", seen_source(family, way)), way


def test_pods_reach_backends_of_either_node_and_themselves(cluster, family):
    address, loopback = CLUSTER_IP[family.name], LOOPBACK[family.name]
    for pod, expected in ((cluster.p1, {"p1": {loopback}, "p2": {family.p1}}),
                          (cluster.p2, {"p1": {family.p2}, "p2": {loopback}})):
        assert answers(tcp_who, pod, address, 80, 20) == expected
        assert answers(udp_who, pod, address, 53, 20) == expected
    for port in (81, 82):  # the other node's pod, and itself
        assert upload(cluster.p1, address, port, 1 << 20) and download(cluster.p1, address, port, 1 << 20)


def test_one_client_port_reaches_a_backend_by_every_way_at_once(cluster, family):
    """Also directly: what DSR tells comes out of the tunnel, and is told apart by that."""
    ways = [(family.external, base + TCP) for base in cluster.ways.values()]
    ways += [(family.n1, family.far), (family.n2, family.far), (family.p2, 8080)]
    held = [Echo(cluster.client, address, port, source=("", 40700)) for address, port in ways]
    assert all(one.alive() for one in held) and all(one.alive() for one in held)
    for one in held:
        one.close()


def test_what_comes_out_of_the_tunnel_to_a_node_port_goes_as_from_outside(cluster, family):
    """By SNAT, as hybrid says of UDP: by DSR the pod would see itself."""
    cluster.weft2.drop_in("second", [("service second", {
        "port": "90/udp", "node-port": 30400, "backend": family.with_port(family.p1, 5353)})])
    cluster.weft2.ctl("reload")
    try:
        assert udp_who(cluster.p1, family.n2, 30400)[:2] == ("p1", family.n2)
    finally:
        cluster.weft2.drop_in("second", None)
        cluster.weft2.ctl("reload")


# ---- fragments ----------------------------------------------------------------------------------------


def test_fragments_follow_their_first(cluster, family):
    data = bytes(range(256)) * 24
    places = [(cluster.client, family.external, base + UDP) for base in cluster.ways.values()]
    places += [(cluster.p1, CLUSTER_IP[family.name], port) for port in (81, 82)]
    for ns, address, port in places:
        try:
            datagram(ns, address, port, data)
        except OSError:
            pass  # the client learns the way's MTU
        assert datagram(ns, address, port, data) == data, port


def later_fragment(f, source, target):
    """The last part of a datagram, as an IP packet."""
    if f.name == "ipv4":
        from scapy.layers.inet import IP
        return IP(src=source, dst=target, proto=17, id=4711, frag=200) / MARKER
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
    return IPv6(src=source, dst=target) / IPv6ExtHdrFragment(nh=17, id=4711, offset=200) / MARKER


def in_tunnel(cluster, inner):
    """A frame of the first node's tunnel to the second."""
    from scapy.layers.inet import IP, UDP as ScapyUDP
    from scapy.layers.l2 import Ether

    port, word = TUNNELS[cluster.kind]
    v4 = FAMILIES[0]
    return Ether(src=mac(cluster.n1), dst=mac(cluster.n2)) / IP(src=v4.n1, dst=v4.n2) / ScapyUDP(
        sport=50000, dport=port, chksum=0) / (struct.pack("!II", word, 6 << 8) + bytes(inner))


def test_a_fragment_before_its_first_is_dropped_and_counted(cluster, family):
    from scapy.layers.l2 import Ether

    def arrives(weft, ns, frame):
        before = weft.drops("FRAGMENT_BEFORE_FIRST")
        send_frame(ns, frame)
        wait_for("the drop", lambda: weft.drops("FRAGMENT_BEFORE_FIRST") == before + 1)

    client, n1 = mac(cluster.client), mac(cluster.n1)
    with Sniffer(cluster.p2) as p2, Sniffer(cluster.p1) as p1:
        arrives(cluster.weft1, cluster.client,
                Ether(src=client, dst=n1) / later_fragment(family, family.client, family.external))
        arrives(cluster.weft1, cluster.p1, Ether(src=mac(cluster.p1), dst=neighbour(cluster.p1, family)) /
                later_fragment(family, family.p1, CLUSTER_IP[family.name]))
        inner = Ether(src=n1, dst=mac(cluster.n2)) / later_fragment(family, family.p1, family.p2)
        arrives(cluster.weft2, cluster.n1, in_tunnel(cluster, inner))
        assert not [f for f in p2.frames() if MARKER in f]
        assert len([f for f in p1.frames() if MARKER in f]) == 1, "its own"


# ---- ICMP errors --------------------------------------------------------------------------------------


def test_a_closed_port_refuses_in_the_services_name(cluster, family):
    for base in cluster.ways.values():
        with Sniffer(cluster.client) as sniffer:
            assert refused(cluster.client, family.external, base + SHUT)
            assert icmp_errors(sniffer.frames()) == {family.external}
    with Sniffer(cluster.p1) as sniffer:
        assert refused(cluster.p1, CLUSTER_IP[family.name], 83)
        assert icmp_errors(sniffer.frames()) == {CLUSTER_IP[family.name]}


def too_big(f, source_port, target_port, mtu):
    """What a router on the way says of the service's answer to the client."""
    from scapy.layers.inet import ICMP, IP, UDP as ScapyUDP
    from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

    if f.name == "ipv4":
        return IP(src=f.client, dst=f.external) / ICMP(type=3, code=4, nexthopmtu=mtu) / IP(
            src=f.external, dst=f.client, len=1400) / ScapyUDP(sport=source_port, dport=target_port, len=1380)
    return IPv6(src=f.client, dst=f.external) / ICMPv6PacketTooBig(mtu=mtu) / IPv6(
        src=f.external, dst=f.client, plen=1380) / ScapyUDP(sport=source_port, dport=target_port, len=1380)


def test_an_error_about_an_answer_reaches_the_backend_in_its_terms(cluster, family):
    from scapy.layers.l2 import Ether

    for number, (way, base) in enumerate(cluster.ways.items()):
        port, flag, peer = 40710 + number, "-6" if ":" in family.p2 else "-4", seen_source(family, way)
        assert udp_who(cluster.client, family.external, base + UDP, source=("", port))[0] == "p2"
        send_frame(cluster.client, Ether(src=mac(cluster.client), dst=mac(cluster.n1)) /
                   too_big(family, base + UDP, port, 1300 + number))
        wait_for(f"the MTU by {way}", lambda: f"mtu {1300 + number}" in
                 cluster.p2.run("ip", flag, "route", "get", peer).stdout, 5)
        assert cluster.p2.run("ip", flag, "route", "flush", "cache")


# ---- change -------------------------------------------------------------------------------------------


def test_connections_outlive_reloads_and_daemons(cluster):
    places = [(cluster.client, f.external, base + TCP) for f in FAMILIES for base in cluster.ways.values()]
    places += [(cluster.p1, CLUSTER_IP[f.name], port) for f in FAMILIES for port in (81, 82)]
    held = [Echo(*place) for place in places]
    for weft in cluster.wefts.values():
        weft.ctl("reload")
        assert all(one.alive() for one in held)
        weft.kill()
        assert all(one.alive() for one in held)
        weft.start()
        assert all(one.alive() for one in held)
    for one in held:
        one.close()
