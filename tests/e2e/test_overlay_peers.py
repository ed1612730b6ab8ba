# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tunnels beside what weft did not make, and peers that come and go."""

import re
import socket

import pytest

from cluster import IPV4, IPV6, Cluster, overlay_modules
from lab import wait_for
from packets import Sniffer, send_frame, mac
from traffic import Echo, Server, datagram, download, ping, tcp_who, udp_who, upload
from test_overlay import make, tunnelled
from weft import Weft

VNI = 77
UNDERLAYS = {"ipv4": (IPV4.n1, IPV4.n2), "ipv6": (IPV6.n1, IPV6.n2)}


def pack(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


# ---- a plain VXLAN device of the kernel on the other side -----------------------------------------


@pytest.fixture(scope="module", params=[("bpf", "ipv4"), ("bpf", "ipv6"), ("device", "ipv4"), ("device", "ipv6")],
                ids=lambda p: f"{p[0]}-over-{p[1]}")
def beside_plain(request):
    """weft on n1; on n2 a device that knows one VNI and one other end."""
    mode, underlay = request.param
    ours, theirs = UNDERLAYS[underlay]
    with Cluster() as cluster:
        weft = Weft(cluster.lab, cluster.n1, "n1")
        weft.configure(cluster.sections(1, overlay_modules("vxlan", mode=mode), {"underlay": underlay}))
        weft.drop_in("50-identity", [("endpoint p1", {"identity": VNI})])
        cluster.wefts[1] = weft.start()
        cluster.n2.ip(f"link add vx address 02:aa:bb:cc:dd:ee type vxlan id {VNI} local {theirs} dstport 8472 "
                      "nolearning udp6zerocsumrx", "link set vx up")
        cluster.n2.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx", "dst", ours)
        for f in (IPV4, IPV6):
            cluster.n2.ip(f"addr add {f.p2} dev vx" + (" nodad" if ":" in f.p2 else ""), f"route add {f.p1} dev vx src {f.p2}",
                          f"neigh add {f.p1} lladdr 02:00:00:00:00:01 dev vx nud permanent")
        pod, plain = Server(cluster.p1, "p1"), Server(cluster.n2, "plain")
        cluster.lab.on_close(pod.close)
        cluster.lab.on_close(plain.close)
        yield cluster


def test_a_plain_device_and_weft_speak_in_both_directions(beside_plain, family):
    c = beside_plain
    assert tcp_who(c.n2, family.p1, 8080)[:2] == ("p1", family.p2)
    assert udp_who(c.n2, family.p1, 5353)[:2] == ("p1", family.p2)
    assert tcp_who(c.p1, family.p2, 8080)[:2] == ("plain", family.p1)
    assert udp_who(c.p1, family.p2, 5353)[:2] == ("plain", family.p1)
    assert upload(c.p1, family.p2, 8080, 8 << 20)
    assert upload(c.n2, family.p1, 8080, 8 << 20)


# ---- who may speak --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two():
    cluster = make("vxlan", "bpf")
    try:
        yield cluster
    finally:
        cluster.close()


def vxlan_from(cluster, source, vni):
    """A frame that the switch delivers to n1: an echo request for p1 in VXLAN."""
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.layers.vxlan import VXLAN

    return bytes(Ether(src=mac(cluster.n2).hex(":"), dst=mac(cluster.n1).hex(":")) /
                 IP(src=source, dst=IPV4.n1) / UDP(sport=50000, dport=8472, chksum=0) /
                 VXLAN(flags=8, vni=vni) / Ether(src="02:57:c0:00:02:0c", dst="02:57:c0:00:02:0b") /
                 IP(src=IPV4.p2, dst=IPV4.p1) / ICMP(type=8, id=7, seq=1))


@pytest.mark.parametrize("source,vni,reason", [
    (IPV4.n2, 1, "TUNNEL_IDENTITY"), ("192.0.2.99", 5, "SPOOFED")], ids=["hosts-identity", "no-peer"])
def test_what_may_not_come_through_the_tunnel_is_dropped_with_its_reason(two, source, vni, reason):
    before = two.weft1.drops(reason)
    send_frame(two.n2, vxlan_from(two, source, vni))
    wait_for("the drop", lambda: two.weft1.drops(reason) == before + 1, 5)


def test_a_thousand_peers_are_added_in_a_second_and_disturb_nobody(two):
    echo = Echo(two.p1, IPV4.p2, 8080)
    many = [(f"peer m{i}", {"address": f"198.18.{i >> 8}.{i & 255}", "pod-cidr": f"10.{100 + (i >> 8)}.{i & 255}.0/24"})
            for i in range(1000)]
    two.weft1.drop_in("60-peers", many)
    two.weft1.ctl("reload")
    assert len(two.weft1.ctl_json("status")["peers"]) == 1001
    assert echo.alive()
    two.weft1.drop_in("60-peers", None)
    two.weft1.ctl("reload")
    assert echo.alive()
    # of a reload, most is loading programs; what weftd says of the rest is what counts
    took = [float(ms) for ms in re.findall(r"applied ([0-9.]+)", two.weft1.log())]
    assert len(took) >= 2 and max(took) < 1000, took
    assert "10.100." not in two.n1.run("ip", "route").stdout
    echo.close()


def test_the_flows_of_a_removed_peer_end_with_its_reason(two):
    echo = Echo(two.p1, IPV4.p2, 8080)
    assert echo.alive()
    text = two.weft1.file.read_text()
    two.weft1.file.write_text(re.sub(r"\[peer n2\].*?\n\n", "", text, flags=re.S))
    try:
        two.weft1.ctl("reload")
        with pytest.raises(OSError):
            for _ in range(3):
                echo.alive()
        assert two.weft1.drops("PEER_GONE") > 0
    finally:
        two.weft1.file.write_text(text)
        two.weft1.ctl("reload")
    wait_for("the peer to be back", lambda: tcp_who(two.p1, IPV4.p2, 8080)[0] == "p2", 10)


# ---- exchange and repair --------------------------------------------------------------------------


def set_tunnel(cluster, kind, **options):
    for weft in cluster.wefts.values():
        weft.drop_in("20-tunnel", [(f"module {kind}", options)])


def has_device(ns, kind):
    return ns.run("ip", "link", "show", "type", kind, check=False).stdout != ""


def test_vxlan_and_geneve_are_exchanged_under_traffic(family):
    """Two drop-ins swapped and a reload on both nodes: connections live on, nothing of the old is left."""
    cluster = Cluster()
    try:
        modules = {"nodeport-snat": {}, "bpf-masq": {"ipv6": "yes"}, "host-routing": {}}
        for number in (1, 2):
            weft = Weft(cluster.lab, getattr(cluster, f"n{number}"), f"n{number}")
            weft.configure(cluster.sections(number, modules))
            weft.drop_in("20-tunnel", [("module vxlan", {"mode": "device"})])
            cluster.wefts[number] = weft.start()
        servers = [Server(cluster.p1, "p1"), Server(cluster.p2, "p2")]
        echoes = [Echo(cluster.p1, family.p2, 8080), Echo(cluster.client, family.n1, family.far),
                  Echo(cluster.n1, family.p2, 8080)]
        for kind, options in (("geneve", {"mode": "bpf"}), ("vxlan", {"mode": "device"}), ("vxlan", {"mode": "bpf"})):
            set_tunnel(cluster, kind, **options)
            for weft in cluster.wefts.values():
                weft.ctl("reload")
            assert all(echo.alive() for echo in echoes)
            assert upload(cluster.p1, family.p2, 8080, 1 << 20)
            for weft in cluster.wefts.values():
                device = options["mode"] == "device"
                assert has_device(weft.ns, "vxlan") == device
                route = weft.ns.run("ip", "-6" if ":" in family.p1 else "-4", "route", "show").stdout
                assert ("dev weftvxlan8472" in route) == device
        for server in servers:
            server.close()
    finally:
        cluster.close()


def test_the_tunnels_device_is_made_again_when_somebody_removes_it():
    cluster = make("vxlan", "device")
    try:
        echo = Echo(cluster.p1, IPV4.p2, 8080)
        cluster.n1.ip("link del weftvxlan8472")
        wait_for("the device to be back", lambda: has_device(cluster.n1, "vxlan"), 10)
        assert echo.alive()
        wait_for("the node's own way", lambda: ping(cluster.n1, IPV4.p2), 10)
        assert tcp_who(cluster.p1, IPV4.p2, 8080)[0] == "p2"
    finally:
        cluster.close()


@pytest.mark.parametrize("mode", ["device", "bpf"])
def test_a_device_of_somebody_else_on_the_port_is_named_and_left_alone(mode):
    """mode = strict refuses; mode = probe goes without the tunnel until the port is free and it is told to reload."""
    with Cluster() as cluster:
        cluster.n1.ip("link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.11")
        weft = Weft(cluster.lab, cluster.n1, "n1")
        weft.configure(cluster.sections(1, overlay_modules("vxlan", mode=mode), {"mode": "strict"}))
        with pytest.raises(AssertionError, match="flannel.1"):
            weft.start()
        weft.configure(cluster.sections(1, overlay_modules("vxlan", mode=mode)))
        cluster.wefts[1] = weft.start()

        def tunnel():
            return next(m for m in weft.ctl_json("status")["modules"] if m["name"] == "vxlan")

        assert tunnel()["state"] == "off" and "flannel.1" in tunnel()["reason"]
        weft.ctl("reload")
        assert "flannel.1" in tunnel()["reason"]
        assert "flannel.1" in cluster.n1.run("ip", "link", "show").stdout
        cluster.n1.ip("link del flannel.1")
        weft.ctl("reload")
        assert tunnel()["state"] == "on"


# ---- a tunnel beside native routing ---------------------------------------------------------------


def test_each_peer_is_reached_as_its_section_says_where_both_ways_are_loaded():
    far = ("peer far", {"address": "198.18.0.1", "pod-cidr": "10.99.0.0/24", "routing": "tunnel"})
    modules = {**overlay_modules("vxlan", mode="bpf"), "native-routing": {"direct-node-routes": "yes"}}

    def say(weft, other, routing):
        weft.drop_in("50-routing", [(f"peer {other}", {"routing": routing}), far])

    with Cluster() as cluster:
        cluster.kind, cluster.underlay = "vxlan", "ipv4"
        for number in (1, 2):
            weft = cluster.wefts[number] = Weft(cluster.lab, getattr(cluster, f"n{number}"), f"n{number}")
            weft.configure(cluster.sections(number, modules))
            if number == 1:
                with pytest.raises(AssertionError, match="routing = tunnel"):
                    weft.start()
            say(weft, f"n{3 - number}", "tunnel")
            weft.start()
            cluster.lab.on_close(Server(cluster.lab[f"p{number}"], f"p{number}").close)
        for routing, in_tunnel in (("tunnel", True), ("native", False), ("tunnel", True), ("auto", False)):
            for number, weft in cluster.wefts.items():
                say(weft, f"n{3 - number}", routing)
                weft.ctl("reload")
            for f in (IPV4, IPV6):
                with Sniffer(cluster.n1) as wire:
                    assert tcp_who(cluster.p1, f.p2, 8080)[:2] == ("p2", f.p1)
                    assert tcp_who(cluster.n2, f.p1, 8080)[0] == "p1"
                    inside = [tunnelled(cluster, frame) is not None for frame in wire.frames() if pack(f.p1) in frame]
                assert inside and all(said == in_tunnel for said in inside), (routing, f.name)
        assert "10.99.0.0/24 via 169.254.87.87" in cluster.n1.run("ip", "route").stdout


# ---- Geneve, as others read it --------------------------------------------------------------------


def test_geneve_is_what_scapy_and_tshark_take_it_for(tmp_path):
    from scapy.contrib.geneve import GENEVE
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.utils import wrpcap

    cluster = make("geneve", "bpf")
    try:
        cluster.weft1.drop_in("50-identity", [("endpoint p1", {"identity": 4711})])
        cluster.weft1.ctl("reload")
        with Sniffer(cluster.n1) as wire:
            assert ping(cluster.p1, IPV4.p2)
            frame = next(f for f in wire.frames() if tunnelled(cluster, f))
        packet = Ether(frame)
        assert (packet[UDP].dport, packet[UDP].chksum) == (6081, 0)
        assert packet[UDP].sport >= 49152
        inner = GENEVE(bytes(packet[UDP].payload))
        assert (inner.version, inner.optionlen, inner.proto, inner.vni) == (0, 0, 0x6558, 4711)
        assert (inner[IP].src, inner[IP].dst) == (IPV4.p1, IPV4.p2)
        assert bytes(GENEVE(vni=4711, proto=0x6558))[:8] == bytes(packet[UDP].payload)[:8]
        wrpcap(str(tmp_path / "g.pcap"), packet)
        said = cluster.n1.run("tshark", "-r", tmp_path / "g.pcap", "-T", "fields", "-e", "geneve.vni", "-e",
                              "geneve.proto_type", "-e", "ip.dst").stdout
        assert "0x6558" in said and IPV4.p2 in said and ("0x001267" in said or "4711" in said), said
    finally:
        cluster.close()
