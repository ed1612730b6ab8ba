# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pods of two nodes in a tunnel between them: each module, each mode, each underlay."""

import errno
import os
import re
import socket
import struct

import pytest

from cluster import FAMILIES, Cluster, overlay_modules
from conftest import start_servers
from lab import has_link_kind
from packets import Sniffer
from traffic import Server, datagram, download, ping, tcp_who, udp_who, upload
from weft import BUILD, BUILD_SANITIZED

# module, mode, underlay, host-routing, build of weftd: every pair of the first four occurs
WAYS = [("vxlan", "bpf", "ipv4", True, BUILD_SANITIZED), ("vxlan", "bpf", "ipv6", False, BUILD),
        ("vxlan", "device", "ipv4", False, BUILD), ("vxlan", "device", "ipv6", True, BUILD_SANITIZED),
        ("geneve", "bpf", "ipv4", False, BUILD_SANITIZED), ("geneve", "bpf", "ipv6", True, BUILD)]
if has_link_kind("geneve"):
    WAYS += [("geneve", "device", "ipv4", True, BUILD), ("geneve", "device", "ipv6", False, BUILD)]
PORTS = {"vxlan": 8472, "geneve": 6081}
OVERHEAD = {"ipv4": 50, "ipv6": 70}


def name_of(way):
    return f"{way[0]}-{way[1]}-over-{way[2]}-{'host-routing' if way[3] else 'stack'}"


def make(kind, mode, underlay="ipv4", host_routing=True, build=BUILD, prepare=None, more=(), **options):
    cluster = Cluster()
    try:
        if prepare:
            prepare(cluster)
        cluster.weft(overlay_modules(kind, host_routing, mode=mode, **options), {"underlay": underlay}, build,
                     more)
        start_servers(cluster)
    except BaseException:
        cluster.close()
        raise
    cluster.kind, cluster.mode, cluster.underlay = kind, mode, underlay
    return cluster


@pytest.fixture(scope="module", params=WAYS, ids=name_of)
def cluster(request):
    made = make(*request.param)
    try:
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


def tunnelled(cluster, frame):
    """The inner frame of one that the tunnel carries; None of any other."""
    six = frame[12:14] == b"\x86\xdd"
    if not six and frame[12:14] != b"\x08\x00":
        return None
    proto, udp = (frame[20], 54) if six else (frame[23], 34)
    if six != (cluster.underlay == "ipv6") or proto != socket.IPPROTO_UDP:
        return None
    port, = struct.unpack("!H", frame[udp + 2:udp + 4])
    return frame[udp + 16:] if port == PORTS[cluster.kind] else None


def only_in_the_tunnel(cluster, frames, *addresses):
    """Frames of any of ADDRESSES are all inside the tunnel, and there are some."""
    packed = [socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in addresses]
    inside = [f for f in frames if any(a in f for a in packed)]
    assert inside
    return all(tunnelled(cluster, frame) for frame in inside)


# ---- who reaches whom -----------------------------------------------------------------------------


def test_pods_of_two_nodes_reach_each_other_in_the_tunnel(cluster, family):
    with Sniffer(cluster.n1) as wire:
        assert tcp_who(cluster.p1, family.p2, 8080)[:2] == ("p2", family.p1)
        assert tcp_who(cluster.p2, family.p1, 8080)[:2] == ("p1", family.p2)
        assert udp_who(cluster.p1, family.p2, 5353)[:2] == ("p2", family.p1)
        assert ping(cluster.p2, family.p1)
        assert only_in_the_tunnel(cluster, wire.frames(), family.p1, family.p2)


def test_a_node_and_the_other_nodes_pod_reach_each_other_in_the_tunnel(cluster, family):
    server = Server(cluster.n2, "n2", tcp=7001, udp=7002)
    try:
        with Sniffer(cluster.n1) as wire:
            assert tcp_who(cluster.n1, family.p2, 8080)[:2] == ("p2", family.n1)
            assert udp_who(cluster.n1, family.p2, 5353)[:2] == ("p2", family.n1)
            assert ping(cluster.n1, family.p2)
            assert tcp_who(cluster.p1, family.n2, 7001)[:2] == ("n2", family.p1)
            assert udp_who(cluster.p1, family.n2, 7002)[:2] == ("n2", family.p1)
            assert ping(cluster.p1, family.n2)
            assert only_in_the_tunnel(cluster, wire.frames(), family.p1, family.p2)
    finally:
        server.close()


def test_a_node_port_leads_to_a_pod_of_the_other_node(cluster, family):
    assert tcp_who(cluster.client, family.n1, family.far)[:2] == ("p2", family.n1)
    assert udp_who(cluster.client, family.n1, family.far_udp)[:2] == ("p2", family.n1)
    assert download(cluster.client, family.n1, family.far, 1 << 20)
    assert upload(cluster.client, family.n1, family.far, 1 << 20)


def turns_back(cluster, family):
    """Can what came out of the tunnel on a virtual NIC go into it again? Docs: weaker than specified."""
    crosses = (":" in family.p2) != (cluster.underlay == "ipv6")
    release = tuple(int(n) for n in os.uname().release.split(".")[:2])
    return cluster.mode == "device" or not crosses or release >= (6, 3)


def test_a_pod_reaches_a_node_port_of_the_other_node(cluster, family):
    assert tcp_who(cluster.p1, family.n2, family.far)[:2] == ("p2", family.p1)
    if turns_back(cluster, family):
        assert tcp_who(cluster.p2, family.n1, family.far)[0] == "p2"


def test_the_world_outside_is_reached_without_the_tunnel(cluster, family):
    server = Server(cluster.client, "client", tcp=7003, udp=7004)
    try:
        with Sniffer(cluster.n1) as wire:
            assert tcp_who(cluster.p1, family.client, 7003)[:2] == ("client", family.n1)
            assert not [f for f in wire.frames() if tunnelled(cluster, f)]
    finally:
        server.close()


# ---- sizes ----------------------------------------------------------------------------------------


def test_eight_megabytes_arrive_as_they_were_with_every_offload_on(cluster, family):
    assert upload(cluster.p1, family.p2, 8080, 8 << 20)
    assert download(cluster.p1, family.p2, 8080, 8 << 20)


def test_datagrams_in_fragments_arrive(cluster, family):
    data = bytes(range(256)) * 24
    assert datagram(cluster.p1, family.p2, 5353, data) == data
    assert datagram(cluster.n1, family.p2, 5353, data) == data
    try:
        datagram(cluster.client, family.n1, family.far_udp, data)
    except OSError as error:  # the client learns the way's MTU
        assert error.errno == errno.EMSGSIZE
    assert datagram(cluster.client, family.n1, family.far_udp, data) == data


def fits(ns, address, size):
    """Whether an unfragmented echo of an IP packet of SIZE bytes is answered."""
    headers = 48 if ":" in address else 28
    return ns.run("ping", "-n", "-c1", "-W2", "-Mdo", f"-s{size - headers}", address,
                  check=False).returncode == 0


def test_the_largest_packet_is_what_the_tunnel_leaves(cluster, family):
    mtu = 1500 - OVERHEAD[cluster.underlay]
    route = cluster.p1.run("ip", "-6" if ":" in family.p2 else "-4", "route", "show", "default").stdout
    assert f"mtu {mtu}" in route
    assert fits(cluster.p1, family.p2, mtu)
    assert fits(cluster.n1, family.p2, mtu)
    assert not fits(cluster.p1, family.p2, mtu + 1)


def test_who_sends_too_much_is_told_what_fits(cluster, family):
    """A pod that has the device's MTU for its route learns the tunnel's from an ICMP error of weft's."""
    mtu, six = 1500 - OVERHEAD[cluster.underlay], ":" in family.p2
    flag = "-6" if six else "-4"
    gateway = "fd00:244:1::1" if six else "10.244.1.1"
    cluster.p1.run("ip", flag, "route", "add", family.p2, "via", gateway, "dev", "eth0", "mtu", "1500")
    try:
        said = cluster.p1.run("ping", "-n", "-c1", "-W2", "-Mdo", "-s1440", family.p2,
                              check=False).stdout
        assert re.search(rf"mtu ?= ?{mtu}\b", said), said
        learnt = cluster.p1.run("ip", flag, "route", "get", family.p2).stdout
        assert f"mtu {mtu}" in learnt, learnt
        assert upload(cluster.p1, family.p2, 8080, 1 << 20)
    finally:
        cluster.p1.run("ip", flag, "route", "flush", "cache")
        cluster.p1.run("ip", flag, "route", "del", family.p2)


def test_a_refusal_by_the_other_nodes_pod_comes_back(cluster, family):
    with pytest.raises(ConnectionRefusedError):
        datagram(cluster.p1, family.p2, 9, b"x")
    with pytest.raises(ConnectionRefusedError):
        datagram(cluster.n1, family.p2, 9, b"x")


def test_a_packet_that_has_too_few_hops_for_the_other_node_is_told_by_it(cluster, family):
    said = cluster.p1.run("ping", "-n", "-c", 1, "-W", 5, "-t", 2, family.p2, check=False).stdout
    assert re.search(rf"From {family.n2}.*exceeded", said), said


# ---- what the host has of it ----------------------------------------------------------------------


def test_the_host_routes_the_peers_pods_into_the_tunnel(cluster, family):
    mtu = 1500 - OVERHEAD[cluster.underlay]
    cidr = "fd00:244:2::/64" if ":" in family.p2 else "10.244.2.0/24"
    route = cluster.n1.run("ip", "-6" if ":" in cidr else "-4", "route", "show", cidr).stdout
    device = "eth0" if cluster.n1.run("ip", "link", "show", "type", cluster.kind,
                                      check=False).stdout == "" else f"weft{cluster.kind}"
    assert f"dev {device}" in route and f"mtu {mtu}" in route and f"src {family.n1}" in route


def test_nothing_is_dropped_but_what_was_too_big(cluster):
    for weft in cluster.wefts.values():
        reasons = {row["what"] for row in weft.ctl_json("status")["drops"]}
        assert reasons <= {"TOO_BIG", "FRAGMENT_BEFORE_FIRST", "TTL_EXPIRED"}  # the rest of what was too big


def test_the_outer_packets_are_no_flows(cluster):
    for row in cluster.weft1.ctl_json("flows")["flows"]:
        assert row.get("destination_port") != PORTS[cluster.kind]


# ---- without a module that tracks -----------------------------------------------------------------


def test_where_no_flow_is_stored_refusals_and_fragments_come_back_all_the_same():
    with Cluster() as cluster:
        cluster.weft({"vxlan": {}})
        for f in FAMILIES:
            with pytest.raises(ConnectionRefusedError):
                datagram(cluster.p2, f.p1, 9, b"x")
            for ns in (cluster.p2, cluster.client):
                assert ns.run("ping", "-n", "-c", 1, "-W", 5, "-s", 3000, f.p1, check=False).returncode == 0
