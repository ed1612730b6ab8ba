# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other ways of direct server return: told by a tunnel's option, by packets in packets, and divided
with SNAT."""

import fcntl
import os
import socket
import struct
import threading

import pytest

from cluster import FAMILIES, IPV4, Cluster, standard_modules
from conftest import start_servers
from lab import has_link_kind, wait_for
from packets import Sniffer, mac, send_frame
from test_core import answers, refused
from test_dsr import Frame, seen
from traffic import Echo, Server, datagram, download, numbers, tcp_who, udp_who, upload

GENEVE = 6081
CRITICAL = 0x40  # in the second byte of the header


def lab(modules, more=()):
    made = Cluster()
    made.modules = modules
    try:
        made.weft(modules, more=more)
        start_servers(made)
    except BaseException:
        made.close()
        raise
    return made


def finish(made):
    for weft in made.wefts.values():
        weft.stop()
    made.close()


# ---- over Geneve ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["host-routing", "stack"])
def over_geneve(request):
    modules = {"geneve": {}, "nodeport-dsr": {"dispatch": "geneve"}, "clusterip": {},
               "bpf-masq": {"ipv6": "yes"}}
    made = lab(modules | ({"host-routing": {}} if request.param else {}))
    yield made
    finish(made)


def tunnelled(sniffer):
    """(second byte of the header, bytes of options, inner frame) of each packet of the tunnel."""
    result = []
    for raw in sniffer.frames():
        if raw[12:14] == b"\x08\x00" and raw[23] == 17 and struct.unpack("!H", raw[36:38])[0] == GENEVE:
            options = (raw[42] & 0x3F) * 4
            result.append((raw[43], raw[50:50 + options], raw[50 + options:]))
    return result


def test_over_geneve_backends_see_the_client_and_answer_directly(over_geneve, family):
    cluster = over_geneve
    expected = {"p1": {family.client}, "p2": {family.client}}
    with Sniffer(cluster.n1) as n1, Sniffer(cluster.client) as client:
        assert answers(tcp_who, cluster.client, family.n1, family.web, 20) == expected
        assert answers(udp_who, cluster.client, family.n1, family.dns, 20) == expected
        assert tcp_who(cluster.client, family.n1, family.far)[:2] == ("p2", family.client)
        assert not [f for f in seen(n1, family.far) if f.sport == family.far]
        back = [f for f in seen(client, family.far) if f.sport == family.far]
        assert back and {f.source_mac for f in back} == {mac(cluster.n2)}


def test_over_geneve_the_option_is_of_the_known_class_and_only_where_needed(over_geneve, family):
    cluster = over_geneve
    with Sniffer(cluster.n2) as n2, Sniffer(cluster.p2) as pod:
        held = Echo(cluster.client, family.n1, family.far)
        port = held.socket.getsockname()[1]
        assert all(held.alive() for _ in range(4))
        packets = [(flags, o, Frame(inner)) for flags, o, inner in tunnelled(n2)]
        ours = [o for _, o, f in packets if f.sport == port]
        told = [o for o in ours if o]
        assert len(ours) > 4 and len(told) == 1
        size = 24 if ":" in family.n1 else 12
        assert len(told[0]) == size and told[0][:4] == bytes([0x01, 0x4B, 0x81, (size - 4) // 4])
        assert struct.unpack("!HH", told[0][-4:]) == (family.far, 0)
        if not has_link_kind("geneve"):  # a device says of no option that it is critical
            assert all(flags == (CRITICAL if o else 0) for flags, o, _ in packets)
        assert not [f for f in seen(pod, port) if f.told]
        held.close()


def test_over_geneve_the_option_is_found_behind_others(over_geneve):
    """As RFC 8926 wants it: nobody may count on an order of the options."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    c, f = over_geneve, IPV4
    other = struct.pack("!HBBI", 0x0102, 1, 1, 0)
    word = struct.pack("!HBB4sHH", 0x014B, 0x81, 2, socket.inet_aton(f.n1), 4711, 0)
    for number, options in enumerate((word, other + word, word + other, other + word + other)):
        header = struct.pack("!BBHI", len(options) // 4, CRITICAL, 0x6558, 6 << 8)
        inner = (Ether(src="02:57:c0:00:02:0b", dst="02:57:c0:00:02:0c") / IP(src=f.client, dst=f.p2) /
                 UDP(sport=50100 + number, dport=5353) / b"who")
        with Sniffer(c.client) as client:
            send_frame(c.n1, Ether(src=mac(c.n1).hex(":"), dst=mac(c.n2).hex(":")) / IP(src=f.n1, dst=f.n2) /
                       UDP(sport=50000, dport=GENEVE, chksum=0) / (header + options + bytes(inner)))
            wait_for("the service's answer", lambda: [a for a in seen(client, 50100 + number)
                                                      if (a.source, a.sport) == (f.n1, 4711)], 5)


def test_over_geneve_large_and_unhappy_traffic_passes(over_geneve, family):
    cluster = over_geneve
    assert upload(cluster.client, family.n1, family.far, 4 << 20)
    assert download(cluster.client, family.n1, family.far, 4 << 20)
    assert refused(cluster.client, family.n1, family.shut)
    data = numbers(5, 1200)
    assert datagram(cluster.client, family.n1, family.far_udp, data) == data


def test_over_geneve_connections_outlive_reloads(over_geneve, family):
    held = Echo(over_geneve.client, family.n1, family.far)
    for weft in over_geneve.wefts.values():
        weft.ctl("reload")
        assert held.alive()
    held.close()


def test_services_from_pods_pass_the_tunnel(over_geneve, family):
    pod = over_geneve.p1
    for address in (family.n1, family.n2):
        assert tcp_who(pod, address, family.far)[:2] == ("p2", family.p1)
        assert udp_who(pod, address, family.far_udp)[:2] == ("p2", family.p1)
    assert tcp_who(pod, family.n1, family.near)[0] == "p1"
    assert answers(tcp_who, pod, family.external, 80, 20).keys() == {"p1", "p2"}
    assert upload(pod, family.n1, family.far, 4 << 20) and download(pod, family.n1, family.far, 4 << 20)
    assert refused(pod, family.n1, family.shut)
    ways = [Echo(pod, address, port, source=("", 40600))
            for address, port in ((family.n1, family.far), (family.external, 80), (family.p2, 8080))]
    assert all(way.alive() for way in ways)
    for way in ways:
        way.close()


# ---- packets in packets -----------------------------------------------------------------------------------

OWNER = {"ipv4": "192.0.2.50", "ipv6": "2001:db8::50"}
OWNED = 8085  # a service on `balancer`, whose backend is OWNER


def ipip_modules(dispatch="ipip"):
    modules = standard_modules(host_routing=False)
    del modules["nodeport-snat"]
    return {"nodeport-dsr": {"dispatch": dispatch}} | modules


@pytest.fixture(scope="module")
def over_ipip():
    more = [(f"service owned-{f.name}", {"port": f"{OWNED}/tcp", "load-balancer-ip": f.balancer,
                                         "backend": f.with_port(OWNER[f.name], OWNED)}) for f in FAMILIES]
    made = lab(ipip_modules(), more)
    made.more = more
    made.owner = made.lab.namespace("owner")
    made.lab.plug(made.switch, made.owner)
    made.owner.ip(*(f"addr add {OWNER[f.name]}/{64 if ':' in f.n1 else 24} dev eth0" for f in FAMILIES))
    yield made
    finish(made)


def test_through_the_stack_backends_see_the_client_and_answer_directly(over_ipip, family):
    cluster = over_ipip
    expected = {"p1": {family.client}, "p2": {family.client}}
    with Sniffer(cluster.n1) as n1, Sniffer(cluster.client) as client:
        assert answers(tcp_who, cluster.client, family.n1, family.web, 20) == expected
        assert answers(udp_who, cluster.client, family.n1, family.dns, 20) == expected
        assert tcp_who(cluster.client, family.n1, family.far)[:2] == ("p2", family.client)
        assert not [f for f in seen(n1, family.far) if f.sport == family.far]
        back = [f for f in seen(client, family.far) if f.sport == family.far]
        assert back and {f.source_mac for f in back} == {mac(cluster.n2)}


def test_through_the_stack_large_and_unhappy_traffic_passes(over_ipip, family):
    cluster = over_ipip
    assert upload(cluster.client, family.n1, family.far, 4 << 20)
    assert download(cluster.client, family.n1, family.far, 4 << 20)
    assert refused(cluster.client, family.n1, family.shut)
    data = numbers(5, 1200)
    assert datagram(cluster.client, family.n1, family.far_udp, data) == data


def test_scapy_and_tshark_see_the_clients_packet_in_the_nodes(over_ipip, family, tmp_path):
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether
    from scapy.utils import wrpcap

    cluster, layer = over_ipip, IPv6 if ":" in family.n1 else IP
    with Sniffer(cluster.n2) as n2, Sniffer(cluster.n1) as n1:
        udp_who(cluster.client, family.n1, family.far_udp, source=("", 40888))
        frame = next(f for f in n2.frames() if Frame(f).told and Frame(f).sport == 40888)
        sent = next(f for f in n1.frames() if Frame(f).sport == 40888 and not Frame(f).told)
    outer, came = Ether(frame)[layer], Ether(sent)[layer]
    inner = outer.payload
    assert isinstance(inner, layer) and inner[UDP].dport == family.far_udp
    assert (outer.src, outer.dst) == (family.n1, family.p2)
    if layer is IP:
        assert (outer.proto, outer.ttl, outer.flags, outer.ihl) == (4, 64, "DF", 5)
        assert outer.len == inner.len + 20 and inner.ttl == came.ttl - 1
        again = IP(bytes(outer))
        del again.chksum
        assert IP(bytes(again)).chksum == outer.chksum
        inner.ttl, inner.chksum = came.ttl, came.chksum
    else:
        assert (outer.nh, outer.hlim) == (41, 64) and outer.plen == inner.plen + 40
        assert outer.fl != 0 and inner.hlim == came.hlim - 1
        inner.hlim = came.hlim
    assert bytes(inner) == bytes(came)
    wrpcap(str(tmp_path / "w.pcap"), Ether(frame))
    name, address = ("ipv6", "ipv6.dst") if layer is IPv6 else ("ip", "ip.dst")
    said = cluster.n1.run("tshark", "-r", tmp_path / "w.pcap", "-T", "fields", "-e", "frame.protocols", "-e",
                          address, "-e", "udp.dstport").stdout
    assert f":{name}:{name}:udp" in said and f"{family.p2},{family.n1}" in said, said
    assert str(family.far_udp) in said


class Unwrapper:
    """What the kernel's ipip and ip6tnl devices do, where it has none: raw sockets for what comes, and a TUN
    device for what was in it."""

    def __init__(self, ns):
        with ns.inside():
            self.tun = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(self.tun, 0x400454CA, struct.pack("16sH", b"unwrapped", 0x1001))  # TUN, no prefix
            self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP),
                            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPV6)]
        ns.ip("link set unwrapped up")
        for s in self.sockets:
            threading.Thread(target=self.take, args=(s,), daemon=True).start()

    def take(self, s):
        while True:
            packet = s.recv(1 << 16)
            os.write(self.tun, packet[20:] if s.family == socket.AF_INET else packet)


def own(cluster, f):
    """Makes OWNER a backend without weft: it has the service's address, and takes packets out of packets."""
    kind, mode = ("ip6tnl", "mode ip6ip6") if ":" in f.n1 else ("ipip", "")
    made = cluster.owner.run("ip", "link", "add", f"in-{f.name}", "type", kind, *mode.split(), "local",
                             OWNER[f.name], check=False).returncode == 0
    if made:
        cluster.owner.ip(f"link set in-{f.name} up")
    elif not hasattr(cluster, "unwrapper"):
        cluster.owner.run("ethtool", "-K", "eth0", "gro", "off")
        cluster.client.run("ethtool", "-K", "eth0", "tx", "off")  # sums that are whole inside, too
        cluster.unwrapper = Unwrapper(cluster.owner)
    for key in ("all", "default", f"in-{f.name}" if made else "unwrapped"):
        cluster.owner.sysctl(f"ipv4/conf/{key}/rp_filter", 0)
    cluster.owner.ip(f"addr add {f.balancer}/{128 if ':' in f.n1 else 32} dev lo")


def test_a_backend_without_weft_that_has_the_address_takes_the_packets_out_itself(over_ipip, family):
    own(over_ipip, family)
    if not hasattr(over_ipip, "server"):
        over_ipip.server = Server(over_ipip.owner, "owner", tcp=OWNED, udp=OWNED)
        over_ipip.lab.on_close(over_ipip.server.close)
    assert tcp_who(over_ipip.client, family.balancer, OWNED)[:2] == ("owner", family.client)
    assert upload(over_ipip.client, family.balancer, OWNED, 1 << 20)
    assert download(over_ipip.client, family.balancer, OWNED, 1 << 20)


def test_connections_go_on_when_the_dispatch_changes(over_ipip, family):
    held = Echo(over_ipip.client, family.n1, family.far)
    for dispatch in ("option", "ipip"):
        for number, weft in over_ipip.wefts.items():
            weft.configure(over_ipip.sections(number, ipip_modules(dispatch), more=over_ipip.more))
            weft.ctl("reload")
        assert held.alive() and held.alive()
    held.close()


@pytest.mark.parametrize("modules, words", [
    ({"vxlan": {}, "nodeport-dsr": {"dispatch": "ipip"}}, ["[module vxlan]", "[module native-routing]"]),
    ({"geneve": {}, "nodeport-dsr": {"dispatch": "ipip"}},
     ["dispatch = ipip", "[module geneve]", "dispatch = geneve", "[module native-routing]"]),
    ({"vxlan": {}, "nodeport-dsr": {}}, ["nodeport-dsr", "[module vxlan]", "[module geneve]", "[module nodeport-snat]"]),
    ({"geneve": {}, "nodeport-dsr": {}}, ["dispatch = option", "[module geneve]", "dispatch = geneve"]),
    ({"native-routing": {}, "nodeport-dsr": {"dispatch": "geneve"}},
     ["dispatch = geneve", "[module geneve]", "dispatch = option"]),
])
def test_what_does_not_go_together_says_why_and_what_would(over_geneve, tmp_path, modules, words):
    from weft import BUILD, ini
    path = tmp_path / "etc/weft/weft.conf"
    path.parent.mkdir(parents=True)
    path.write_text(ini([(f"module {name}", keys) for name, keys in modules.items()]))
    said = over_geneve.n1.run(BUILD / "core/ctl/weftctl", "--root", tmp_path, "check", "--module-dir",
                              BUILD / "modules", check=False)
    assert said.returncode != 0
    for word in words + ["weft.conf"]:
        assert word in said.stderr, said.stderr


# ---- hybrid -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["option", "ipip"])
def divided(request):
    modules = standard_modules() | {"nodeport-dsr": {"dispatch": request.param}}
    del modules["nodeport-snat"]
    more = [(f"service by-{way}-{f.name}", {
        "port": f"{port}/tcp", "external-ip": f.external, "forwarding": way,
        "backend": f.with_port(f.p2, 8080)}) for f in FAMILIES for way, port in (("snat", 8091), ("dsr", 8092))]
    more += [(f"service udp-by-dsr-{f.name}", {
        "port": "8093/udp", "external-ip": f.external, "forwarding": "dsr",
        "backend": f.with_port(f.p2, 5353)}) for f in FAMILIES]
    more += [(f"service both-{f.name}-{proto}", {
        "port": f"8094/{proto}", "external-ip": f.external,
        "backend": f.with_port(f.p2, port)}) for f in FAMILIES for proto, port in (("tcp", 8080), ("udp", 5353))]
    made = lab(modules | {"hybrid": {}}, more)
    yield made
    finish(made)


def test_hybrid_brings_both_in(divided):
    on = {m["name"] for m in divided.weft1.ctl_json("modules")["modules"] if m["state"] == "on"}
    assert {"hybrid", "nodeport-snat", "nodeport-dsr"} <= on


def test_one_address_and_port_is_dsr_for_tcp_and_snat_for_udp(divided, family):
    assert tcp_who(divided.client, family.external, 8094)[:2] == ("p2", family.client)
    assert udp_who(divided.client, family.external, 8094)[:2] == ("p2", family.n1)


def test_a_services_own_forwarding_goes_first(divided, family):
    assert tcp_who(divided.client, family.external, 8091)[:2] == ("p2", family.n1)
    assert tcp_who(divided.client, family.external, 8092)[:2] == ("p2", family.client)
    assert udp_who(divided.client, family.external, 8093)[:2] == ("p2", family.client)


def test_flows_outlive_a_change_of_forwarding(divided, family):
    held = Echo(divided.client, family.external, 8094)
    divided.weft1.drop_in("50-hybrid", [("module hybrid", {"tcp": "snat"})])
    divided.weft1.ctl("reload")
    try:
        assert held.alive()
        assert tcp_who(divided.client, family.external, 8094)[:2] == ("p2", family.n1)
        assert held.alive()
    finally:
        divided.weft1.drop_in("50-hybrid", None)
        divided.weft1.ctl("reload")
    assert held.alive()
    held.close()
