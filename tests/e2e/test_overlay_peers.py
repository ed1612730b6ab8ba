# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may speak through a tunnel, peers that come and go, and the exchange of one tunnel for another."""

import ipaddress
import json
import re
import socket
import struct
import time

import pytest

from cluster import FAMILIES, IPV4, IPV6, Cluster, overlay_modules
from lab import PATIENCE, has_link_kind, run, wait_for
from load import Stream, dropped
from packets import Sniffer, send_frame, mac
from traffic import Echo, Server, ping, tcp_who, udp_who
from test_life import host_state
from test_overlay import make, tunnelled
from weft import Weft


def pack(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


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


# ---- peers that come and go -----------------------------------------------------------------------

CROWD = 1000
SO_RCVBUFFORCE = 33


def crowd(first):
    """Sections of peers that nobody is, their pods in 10.FIRST.0.0/16 and what follows."""
    return [(f"peer m{first}-{i}", {"address": f"198.18.{i >> 8}.{i & 255}",
                                    "pod-cidr": f"10.{first + (i >> 8)}.{i & 255}.0/24"}) for i in range(CROWD)]


def words_of(sections):
    return [word for name, keys in sections for word in (name.split()[1], *(f"{k}={v}" for k, v in keys.items()))]


def third_node(cluster):
    """One more node with a pod; its peer is n1. It is n1's at run time."""
    lab, addresses = cluster.lab, [re.sub("11$", "13", f.n1) for f in FAMILIES]
    cluster.n3, cluster.p3 = lab.namespace("n3"), lab.namespace("p3")
    lab.plug(cluster.switch, cluster.n3)
    cluster.n3.ip(f"addr add {addresses[0]}/24 dev eth0", f"addr add {addresses[1]}/64 dev eth0",
                  *(f"route add default via {f.client}" for f in FAMILIES))
    sections = dict(cluster.sections(2, cluster.modules))
    del sections["endpoint p2"]
    sections["node"].update({"name": "n3", "address": addresses, "pod-cidr": ["10.244.3.0/24", "fd00:244:3::/64"]})
    sections["endpoint p3"] = {"netns": cluster.p3.path, "address": ["10.244.3.10", "fd00:244:3::10"]}
    cluster.weft3 = Weft(lab, cluster.n3, "n3")
    cluster.weft3.configure(list(sections.items()))
    cluster.weft3.start()
    lab.on_close(Server(cluster.p3, "p3").close)
    cluster.peer3 = ["n3", *(f"address={a}" for a in addresses), "pod-cidr=10.244.3.0/24", "pod-cidr=fd00:244:3::/64"]
    cluster.weft1.ctl("peer", "add", *cluster.peer3)


@pytest.fixture(scope="module", params=[("vxlan", "bpf"), ("vxlan", "device"), ("geneve", "bpf")], ids="-".join)
def three(request):
    untouched = []
    cluster = make(*request.param, prepare=lambda made: untouched.append(host_state(made.n1)))
    try:
        cluster.untouched = untouched[0]
        for pod in ("p1", "p2"):  # a server that has to wait for its turn loses nothing
            cluster.servers[pod].udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        third_node(cluster)
        yield cluster
    finally:
        cluster.close()


class Undisturbed:
    """Traffic of n1 with n2 of which nothing may be lost."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.before = self.dropped()
        self.echoes = [Echo(ns, f.p2, 8080) for f in FAMILIES for ns in (cluster.p1, cluster.n1)]
        self.echoes += [Echo(cluster.p2, f.p1, 8080) for f in FAMILIES]
        self.stream = Stream(cluster.p1, IPV4.p2, 5353)

    def dropped(self):
        """But for what is dropped because a peer is gone."""
        return {what: n for what, n in dropped(self.cluster, *self.cluster.wefts.values()).items() if "PEER_GONE" not in what}

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        lost = self.stream.stop()
        if not failed:
            assert all([echo.alive() for echo in self.echoes])
            assert lost == 0 and self.stream.sent > 10
            assert self.dropped() == self.before
        for echo in self.echoes:
            echo.close()


def known_to_the_kernel(cluster, *texts):
    said = [cluster.n1.run("ip", version, *words).stdout for version in ("-4", "-6")
            for words in (("route", "show", "table", "all"), ("neigh", "show", "nud", "permanent"))]
    return [line for text in said for line in text.splitlines() if any(word in line for word in texts)]


def known(cluster, *texts):
    """Where n1 knows any of these addresses of peers: routes, neighbours, tables."""
    found = known_to_the_kernel(cluster, *texts)
    for table in ("peers", "nodes"):
        path = cluster.weft1.bpffs / "maps" / table
        keys = [bytes(int(b, 16) for b in row["key"])
                for row in json.loads(run("bpftool", "-j", "map", "dump", "pinned", path).stdout)]
        for text in texts:
            packed = ipaddress.ip_address(text).packed if ":" in text else bytes(int(b) for b in text.split(".") if b)
            found += [(table, text) for key in keys if packed in key]
    return found


def timed(what, f):
    start = time.monotonic()
    f()
    took = time.monotonic() - start
    print(f"{what}: {took:.2f} s")
    return took


@pytest.mark.timing
def test_a_thousand_peers_are_added_in_a_second_and_disturb_nobody(three):
    weft, own = three.weft1, len(three.weft1.ctl_json("peer", "list")["peers"])
    with Undisturbed(three):
        more = crowd(100)
        assert timed("by the socket", lambda: weft.ctl("peer", "add", *words_of(more))) < PATIENCE
        assert len(weft.ctl_json("peer", "list")["peers"]) == own + CROWD
        assert len(known(three, "10.103.231.")) == 2  # the last one's route, and its line in the table
        weft.ctl("peer", "del", *(name.split()[1] for name, _ in more))
        weft.drop_in("60-peers", crowd(110))
        assert timed("by files and a reload", lambda: weft.ctl("reload")) < PATIENCE
        assert len(weft.ctl_json("peer", "list")["peers"]) == own + CROWD
        assert len(known(three, "10.113.231.")) == 2
        weft.drop_in("60-peers", None)
        weft.ctl("reload")
        assert len(weft.ctl_json("peer", "list")["peers"]) == own
    assert not known(three, "10.103.", "10.113.", "198.18.")


def test_the_flows_of_a_removed_peer_end_with_its_reason_and_no_others(three, family):
    weft, p3 = three.weft1, "fd00:244:3::10" if ":" in family.p1 else "10.244.3.10"
    with Undisturbed(three):
        wait_for("p3", lambda: tcp_who(three.p1, p3, 8080)[0] == "p3")
        echo, before = Echo(three.p1, p3, 8080), weft.drops("PEER_GONE")
        assert echo.alive() and udp_who(three.p1, p3, 5353)[0] == "p3"
        weft.ctl("peer", "del", "n3")
        with pytest.raises(OSError):
            for _ in range(3):
                echo.alive()
        assert weft.drops("PEER_GONE") > before
        assert re.search("peer n3 removed at run time by uid 0", weft.log())
        assert not known(three, "10.244.3.", "192.0.2.13", "fd00:244:3::", "2001:db8::13")
        weft.ctl("peer", "add", *three.peer3)
        assert tcp_who(three.p1, p3, 8080)[0] == "p3"


def test_peers_that_changed_while_the_daemon_was_dead_are_as_the_files_say_after_its_start(three):
    weft = three.weft1
    weft.drop_in("60-peers", crowd(100)[:20] + crowd(110)[20:40])
    weft.ctl("reload")
    assert known(three, "10.100.7.") and known(three, "10.110.27.")
    with Undisturbed(three) as traffic:
        far = Echo(three.p1, "10.244.3.10", 8080)
        weft.kill()
        assert all([echo.alive() for echo in [far, *traffic.echoes]])
        weft.drop_in("60-peers", crowd(110)[20:40] + crowd(120)[40:60])
        (weft.root / "var/lib/weft/objects/peer/n3.conf").unlink()
        weft.start()
        assert not known(three, "10.100.", "10.244.3.", "192.0.2.13", "fd00:244:3::")
        assert len(known(three, "10.110.27.")) == len(known(three, "10.120.47.")) == 2
        with pytest.raises(OSError):
            for _ in range(3):
                far.alive()
    weft.drop_in("60-peers", None)
    weft.ctl("reload")


def test_nothing_of_the_tunnel_and_its_peers_is_left_after_cleanup(three):
    three.weft1.stop()
    three.weft1.ctl("cleanup")
    assert host_state(three.n1) == three.untouched
    assert not known_to_the_kernel(three, "10.244.2.", "fd00:244:2::", "169.254.87.87")


def test_a_route_of_somebody_else_stays_in_use_whatever_its_metric_until_it_is_gone(two, family):
    six = ":" in family.p1
    node, flag, pods = two.n1, "-6" if six else "-4", "fd00:244:9::/64" if six else "10.244.9.0/24"
    node.run("ip", flag, "route", "add", pods, "via", family.client, "metric", 2000)
    two.weft1.ctl("peer", "add", "n9", "address=192.0.2.19", f"pod-cidr={pods}")
    try:
        assert f"route to {pods}: a route of somebody else's is there already" in two.weft1.log()
        routes = node.run("ip", flag, "route", "show", pods).stdout.splitlines()
        assert len(routes) == 1 and "metric 2000" in routes[0]
        node.run("ip", flag, "route", "del", pods)
        wait_for("weft's own", lambda: "proto 119" in node.run("ip", flag, "route", "show", pods).stdout)
    finally:
        two.weft1.ctl("peer", "del", "n9")
    assert node.run("ip", flag, "route", "show", pods).stdout == ""


# ---- repair --------------------------------------------------------------------------


def has_device(ns, kind):
    return ns.run("ip", "link", "show", "type", kind, check=False).stdout != ""


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


# ---- Geneve, as others write it -------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bpf"] + ["device"] * has_link_kind("geneve"))
def in_geneve(request):
    cluster = make("geneve", request.param)
    try:
        cluster.mode = request.param
        yield cluster
    finally:
        cluster.close()


def geneve_from(cluster, number, options=b"", version=0, flags=0, proto=0x6558):
    """A frame that the switch delivers to n1: echo request NUMBER for p1 in Geneve (RFC 8926 §3.4)."""
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.l2 import Ether

    header = struct.pack("!BBHI", version << 6 | len(options) // 4, flags, proto, 6 << 8 | 0xFF)
    inner = (Ether(src="02:57:c0:00:02:0c", dst="02:57:c0:00:02:0b") /
             IP(src=IPV4.p2, dst=IPV4.p1) / ICMP(type=8, id=number, seq=1))
    return (Ether(src=mac(cluster.n2).hex(":"), dst=mac(cluster.n1).hex(":")) / IP(src=IPV4.n2, dst=IPV4.n1) /
            UDP(sport=50000, dport=6081, chksum=0) / (header + options + bytes(inner)))


def option(type, length=4, kind=0x0102, says=None):  # noqa: A002, the word is the standard's
    return struct.pack("!HBB", kind, type, (length if says is None else says) // 4) + bytes(length)


CRITICAL, CONTROL = 0x40, 0x80
FILLER = option(1, 60) + option(2, 60)  # more than is looked at


@pytest.mark.parametrize("passes, told", [
    (True, {}), (True, {"options": option(1)}), (True, {"options": option(1, 0) + option(2, 56)}),
    (True, {"options": option(1) + option(2), "flags": CRITICAL}), (True, {"options": FILLER}),
    (True, {"flags": 0x3F}),
    (False, {"options": option(0x81), "flags": CRITICAL}), (False, {"options": option(0x81)}),
    (False, {"options": option(1) + option(0x80, 8)}), (False, {"options": FILLER, "flags": CRITICAL}),
    (False, {"options": option(0x81, 8, 0x014B), "flags": CRITICAL}),
    (False, {"options": option(1, 4, says=8)}), (False, {"options": option(1, 56, says=60)}),
    (False, {"flags": CONTROL}), (False, {"version": 1}), (False, {"proto": 0x0800}),
], ids=["no-option", "an-option", "two-options", "none-is-critical-after-all", "many-options", "reserved-bits",
        "critical", "critical-by-its-type-alone", "critical-behind-another", "critical-among-many",
        "dsrs-where-nobody-wants-it", "longer-than-all", "longer-than-all-of-many",
        "control-packet", "next-version", "no-frame-inside"])
def test_geneve_with_what_weft_does_not_know_passes_unless_it_is_critical(in_geneve, request, passes, told):
    of_the_kernel = in_geneve.mode == "device" and request.node.callspec.id.split("-", 1)[1] in (
        "many-options", "control-packet")
    before = in_geneve.weft1.drops("TUNNEL_INVALID")
    with Sniffer(in_geneve.p1) as pod:
        send_frame(in_geneve.n2, geneve_from(in_geneve, 1, **told))
        send_frame(in_geneve.n2, geneve_from(in_geneve, 2))
        numbers = []
        wait_for("the second one", lambda: numbers.extend(
            struct.unpack("!H", f[38:40])[0] for f in pod.frames() if f[23] == 1 and f[34] == 8) or 2 in numbers, 5)
    if of_the_kernel:  # which keeps to itself what would tell: see docs/architecture.md
        passes = not passes
    assert numbers == ([1, 2] if passes else [2])
    if in_geneve.mode == "bpf":
        assert in_geneve.weft1.drops("TUNNEL_INVALID") == before + (not passes)


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
