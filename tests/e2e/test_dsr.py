# SPDX-License-Identifier: LGPL-2.1-or-later
"""Direct server return, seen on the wires: who is told, who answers, and what the pod gets. By IP
options, and by packets in packets."""

import errno
import socket
import struct
from contextlib import contextmanager

import pytest

from cluster import Cluster, standard_modules
from conftest import start_servers
from packets import Sniffer, icmp_errors, mac
from test_core import answers, refused
from traffic import (Echo, Server, connect, datagram, download, family_of, numbers, tcp_who, udp_who,
                     upload)

ALONE = 8090  # a port of p2 that one service leads to
IP_MTU, IPV6_MTU = 14, 24
WAYS = {"host-routing": (True, "option"), "stack": (False, "option"), "ipip": (True, "ipip")}


def dsr_modules(host_routing, dispatch="option"):
    modules = standard_modules(host_routing)
    del modules["nodeport-snat"]
    return {"nodeport-dsr": {"dispatch": dispatch}} | modules


def alone(f, backends):
    """A service on a port that no other one has a backend on."""
    return (f"service alone-{f.name}", {
        "port": "8083/tcp", "node-port": f.web + 10,
        "backend": [f.with_port(a, ALONE) for a in backends]})


def sections_more(backend="p2"):
    from cluster import FAMILIES
    return [alone(f, [getattr(f, backend)]) for f in FAMILIES]


@pytest.fixture(scope="module", params=WAYS)
def cluster(request):
    made = Cluster()
    made.modules = dsr_modules(*WAYS[request.param])
    made.wraps = request.param == "ipip"
    try:
        made.weft(made.modules, more=sections_more())
        start_servers(made)
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


# ---- frames -----------------------------------------------------------------------------------------


class Frame:
    """What the tests want to know of an IP packet with TCP or UDP; of one in another, that too."""

    def __init__(self, raw):
        self.source_mac = raw[6:12]
        self.family = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(raw[12:14])
        self.proto = self.sport = self.dport = None
        self.told = False
        if self.family == 4:
            header = (raw[14] & 15) * 4
            self.source, self.told = socket.inet_ntop(socket.AF_INET, raw[26:30]), header > 20
            self.proto, l4 = raw[23], 14 + header
            if struct.unpack("!H", raw[20:22])[0] & 0x1FFF:
                return
        elif self.family == 6:
            self.source = socket.inet_ntop(socket.AF_INET6, raw[22:38])
            self.proto, l4 = raw[20], 54
            if self.proto == socket.IPPROTO_DSTOPTS:
                self.told, self.proto, l4 = True, raw[54], 54 + 8 + raw[55] * 8
        if self.proto in (socket.IPPROTO_IPIP, socket.IPPROTO_IPV6):
            self.__init__(raw[:14] + raw[l4:])
            self.told = True
        elif self.proto in (6, 17) and len(raw) >= l4 + 4:
            self.sport, self.dport = struct.unpack("!HH", raw[l4:l4 + 4])
            self.syn = self.proto == 6 and raw[l4 + 13] & 0x12 == 2


def seen(sniffer, port):
    """Frames with this port at either end."""
    frames = [Frame(raw) for raw in sniffer.frames()]
    return [f for f in frames if f.proto and port in (f.sport, f.dport)]


@contextmanager
def watching(cluster):
    """Sniffers at both nodes' uplinks, at the client and in the remote pod."""
    places = {"n1": cluster.n1, "n2": cluster.n2, "client": cluster.client, "p2": cluster.p2}
    made = {name: Sniffer(ns) for name, ns in places.items()}
    try:
        yield made
    finally:
        for sniffer in made.values():
            sniffer.socket.close()


# ---- who sees what ------------------------------------------------------------------------------------


def test_every_backend_sees_the_clients_address(cluster, family):
    expected = {"p1": {family.client}, "p2": {family.client}}
    for address in (family.n1, family.n2):
        assert answers(tcp_who, cluster.client, address, family.web) == expected
        assert answers(udp_who, cluster.client, address, family.dns) == expected
    assert answers(tcp_who, cluster.client, family.external, 80) == expected


def test_the_answer_passes_the_first_node_by(cluster, family):
    with watching(cluster) as at:
        assert tcp_who(cluster.client, family.n1, family.far)[:2] == ("p2", family.client)
        from_service = [f for f in seen(at["client"], family.far) if f.sport == family.far]
        assert from_service and {f.source for f in from_service} == {family.n1}
        assert {f.source_mac for f in from_service} == {mac(cluster.n2)}
        assert not [f for f in seen(at["n1"], family.far) if f.sport == family.far]
        assert [f for f in seen(at["n2"], family.far) if f.sport == family.far]


def test_a_connection_tells_as_often_as_it_must_and_the_pod_sees_nothing_of_it(cluster, family):
    with watching(cluster) as at:
        held = Echo(cluster.client, family.n1, family.far)
        port = held.socket.getsockname()[1]
        assert all(held.alive() for _ in range(5))
        arrived = [f for f in seen(at["n2"], port) if f.dport != port]
        tell = [f for f in arrived if f.told]
        assert len(arrived) > 5
        assert tell == arrived if cluster.wraps else [f.syn for f in tell] == [True]
        assert not [f for f in seen(at["p2"], port) if f.told]
        held.close()


def test_every_datagram_tells_and_the_pod_sees_nothing_of_it(cluster, family):
    with watching(cluster) as at:
        for _ in range(3):
            assert udp_who(cluster.client, family.n1, family.far_udp, source=("", 40777))[2] == 40777
        assert all(f.told for f in seen(at["n2"], 40777) if f.dport != 40777)
        in_pod = seen(at["p2"], 40777)
        assert in_pod and not [f for f in in_pod if f.told]


# ---- large, odd and unhappy traffic ---------------------------------------------------------------------


def test_large_transfers_pass(cluster, family):
    assert upload(cluster.client, family.n1, family.far, 8 << 20)
    assert download(cluster.client, family.n1, family.far, 8 << 20)


def test_large_datagrams_pass_in_fragments(cluster, family):
    data = numbers(5, 20000)
    forget_mtu(cluster.client)
    with pytest.raises(OSError) as raised:  # of the first fragment, which has no room for the word
        datagram(cluster.client, family.n1, family.far_udp, data)
    assert raised.value.errno == errno.EMSGSIZE
    assert datagram(cluster.client, family.n1, family.far_udp, data) == data


def forget_mtu(ns):
    for six in ([], ["-6"]):
        ns.run("ip", *six, "route", "flush", "cache")


def test_a_datagram_that_leaves_no_room_is_answered_with_the_room_there_is(cluster, family):
    six = ":" in family.n1
    overhead, word = (48, 24) if six else (28, 8)
    if cluster.wraps:
        word = 40 if six else 20
    with cluster.client.inside():
        s = socket.socket(family_of(family.n1), socket.SOCK_DGRAM)
    with s:
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        s.setsockopt(level, 23 if six else 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        forget_mtu(cluster.client)
        s.connect((family.n1, family.far_udp))
        s.settimeout(5)
        before = cluster.weft1.drops("TOO_BIG")
        s.send(bytes(1500 - overhead))
        with pytest.raises(OSError) as raised:
            s.recv(2000)
        assert raised.value.errno == errno.EMSGSIZE
        assert s.getsockopt(level, IPV6_MTU if six else IP_MTU) == 1500 - word
        assert cluster.weft1.drops("TOO_BIG") == before + 1
        s.send(bytes(1500 - overhead - word))
        assert len(s.recv(2000)) == 1500 - overhead - word


def test_a_closed_port_refuses_in_the_services_name(cluster, family):
    with Sniffer(cluster.client) as sniffer:
        assert refused(cluster.client, family.n1, family.shut)
        assert icmp_errors(f for f in sniffer.frames() if f[:6] == mac(cluster.client)) == {family.n1}
    with pytest.raises(ConnectionRefusedError):  # nobody listens on ALONE yet
        connect(cluster.client, family.n1, family.web + 10)


def test_one_client_port_reaches_a_backend_by_every_way_at_once(cluster, family):
    ways = [(family.n1, family.far), (family.external, 80), (family.balancer, 80), (family.n2, family.far)]
    held = []
    try:
        for address, port in ways:
            held.append(Echo(cluster.client, address, port, source=("", 40555)))
        assert all(one.alive() for one in held) and all(one.alive() for one in held)
    finally:
        for one in held:
            one.close()


# ---- change -------------------------------------------------------------------------------------------


def test_connections_outlive_reloads_and_daemons(cluster, family):
    held = Echo(cluster.client, family.n1, family.far)
    for weft in cluster.wefts.values():
        weft.ctl("reload")
        assert held.alive()
        weft.kill()
        assert held.alive()
        assert tcp_who(cluster.client, family.n1, family.far)[:2] == ("p2", family.client)
        weft.start()
        assert held.alive()
    held.close()


def test_a_connection_follows_its_address_to_another_node(cluster, family):
    """The service's address moves to the backend's own node and back, as when a router changes its mind."""
    server = Server(cluster.p2, "p2", tcp=ALONE, udp=ALONE)
    address, length = family.balancer, 128 if ":" in family.balancer else 32
    for weft in cluster.wefts.values():
        weft.configure(cluster.sections(int(weft.name[1]), cluster.modules, more=sections_more() + [
            (f"service moves-{family.name}", {"port": "8085/tcp", "load-balancer-ip": address,
                                              "backend": family.with_port(family.p2, ALONE)})]))
        weft.ctl("reload")
    try:
        held = Echo(cluster.client, address, 8085)
        for node in (family.n2, family.n1, family.n2, family.n1):
            cluster.client.ip(f"route replace {address}/{length} via {node}")
            assert held.alive() and held.alive(), node
        held.close()
    finally:
        cluster.client.ip(f"route replace {address}/{length} via {family.n1}")
        for weft in cluster.wefts.values():
            weft.configure(cluster.sections(int(weft.name[1]), cluster.modules, more=sections_more()))
            weft.ctl("reload")
        server.close()


def test_a_removed_backend_resets_its_connections(cluster, family):
    server = Server(cluster.p2, "p2", tcp=ALONE, udp=ALONE)
    held = Echo(cluster.client, family.n1, family.web + 10)
    stays = Echo(cluster.client, family.n1, family.far)
    cluster.weft1.configure(cluster.sections(1, cluster.modules, more=sections_more("p1")))
    cluster.weft1.ctl("reload")
    try:
        with pytest.raises(ConnectionResetError):
            held.alive()
        assert stays.alive()
    finally:
        stays.close()
        cluster.weft1.configure(cluster.sections(1, cluster.modules, more=sections_more()))
        cluster.weft1.ctl("reload")
        server.close()


# ---- what does not go together ---------------------------------------------------------------------------


def test_two_ways_of_forwarding_are_refused_with_the_remedy(cluster):
    node = cluster.weft2
    before = node.generation()
    node.drop_in("90-both", [("module nodeport-snat", {})])
    try:
        said = node.ctl("reload", check=False)
        assert said.returncode != 0
        for word in ("nodeport-dsr", "nodeport-snat", "take one away", "[module hybrid]"):
            assert word in said.stderr
    finally:
        node.drop_in("90-both", None)
    assert node.generation() == before


def test_a_service_that_asks_for_snat_is_refused_with_the_remedy(cluster):
    node = cluster.weft2
    node.drop_in("90-snat", [("service by-snat", {"port": "8099/tcp", "external-ip": "198.51.100.99",
                                                  "forwarding": "snat"})])
    try:
        said = node.ctl("reload", check=False)
        assert said.returncode != 0
        for word in ("90-snat.conf", "[service by-snat]", "forwarding = snat", "[module nodeport-dsr]",
                     "[module hybrid]"):
            assert word in said.stderr
    finally:
        node.drop_in("90-snat", None)
    node.ctl("reload")
