# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a node does for everybody, in each way of attaching and of delivering."""

import os
import time
from contextlib import contextmanager

import pytest

from conftest import make_cluster
from packets import Sniffer, has_tcx, icmp_errors, mac, send_frame
from lab import has_link_kind, wait_for
from traffic import (Echo, Server, connect, datagram, download, has_socket, numbers, ping, tcp_who,
                     udp_who, upload)
from weft import BUILD, BUILD_SANITIZED

# attach, host-routing, build of weftd, endpoints' devices: every pair of values of the first three occurs
WAYS = [("clsact", False, BUILD_SANITIZED, "veth"), ("clsact", True, BUILD, "veth")]
if has_tcx():
    WAYS += [("tcx", True, BUILD_SANITIZED, "veth"), ("tcx", False, BUILD, "veth")]
if has_link_kind("netkit"):
    WAYS += [("tcx", True, BUILD, "netkit"), ("clsact", False, BUILD, "netkit")]


@pytest.fixture(scope="module", params=WAYS,
                ids=lambda w: f"{w[0]}-{'host-routing' if w[1] else 'stack'}" + "-netkit" * (w[3] == "netkit"))
def cluster(request):
    attach, host_routing, build, pair = request.param
    made = make_cluster(build, {"debug-attach": attach}, host_routing, lambda cluster: setattr(cluster, "pair", pair))
    try:
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


def answers(ask, client, address, port, count=40):
    """Who answers COUNT requests: {pod: set of client addresses that it saw}."""
    seen = {}
    for _ in range(count):
        pod, source, _ = ask(client, address, port)
        seen.setdefault(pod, set()).add(source)
    return seen


def refused(ns, address, port):
    """Whether the answer to a datagram is an ICMP error of ADDRESS; pods limit how many they send."""
    def once():
        try:
            datagram(ns, address, port, b"x", timeout=0.5, tries=1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        raise AssertionError("somebody answered")

    return wait_for("a refusal", once, 10)


# ---- pods -----------------------------------------------------------------------------------------


def test_pods_of_two_nodes_reach_each_other_with_their_own_addresses(cluster, family):
    assert tcp_who(cluster.p1, family.p2, 8080)[:2] == ("p2", family.p1)
    assert tcp_who(cluster.p2, family.p1, 8080)[:2] == ("p1", family.p2)
    assert udp_who(cluster.p1, family.p2, 5353)[:2] == ("p2", family.p1)
    assert udp_who(cluster.p2, family.p1, 5353)[:2] == ("p1", family.p2)


def test_pods_ping_each_other_and_their_node(cluster, family):
    assert ping(cluster.p1, family.p2)
    assert ping(cluster.p2, family.p1)
    assert ping(cluster.p1, family.n1)


def test_a_node_reaches_its_pod_and_the_other_nodes_pod(cluster, family):
    assert tcp_who(cluster.n1, family.p1, 8080)[0] == "p1"
    assert tcp_who(cluster.n1, family.p2, 8080)[:2] == ("p2", family.n1)


def test_a_pod_reaches_a_server_of_its_node(cluster, family):
    server = Server(cluster.n1, "n1", tcp=7001, udp=7002)
    try:
        assert tcp_who(cluster.p1, family.n1, 7001)[:2] == ("n1", family.p1)
        assert udp_who(cluster.p1, family.n1, 7002)[:2] == ("n1", family.p1)
    finally:
        server.close()


# ---- services -------------------------------------------------------------------------------------


def test_a_node_port_reaches_both_backends_and_keeps_the_clients_address_where_it_can(cluster, family):
    expected = {"p1": {family.client}, "p2": {family.n1}}
    assert answers(tcp_who, cluster.client, family.n1, family.web) == expected
    assert answers(udp_who, cluster.client, family.n1, family.dns) == expected


def test_the_other_nodes_port_does_the_same_from_its_side(cluster, family):
    expected = {"p1": {family.n2}, "p2": {family.client}}
    assert answers(tcp_who, cluster.client, family.n2, family.web) == expected
    assert answers(udp_who, cluster.client, family.n2, family.dns) == expected


@pytest.mark.parametrize("kind", ["external", "balancer"])
def test_external_addresses_reach_both_backends(cluster, family, kind):
    assert set(answers(tcp_who, cluster.client, getattr(family, kind), 80)) == {"p1", "p2"}


def test_a_service_address_answers_ping(cluster, family):
    assert ping(cluster.client, family.external)
    assert ping(cluster.client, family.balancer)


def test_the_nodes_own_address_still_answers_ping(cluster, family):
    assert ping(cluster.client, family.n1)


def test_an_unknown_port_of_a_service_address_is_dropped_and_counted(cluster, family):
    before = cluster.weft1.drops("SERVICE_UNKNOWN_PORT")
    with pytest.raises(TimeoutError):
        connect(cluster.client, family.external, 81, timeout=0.5)
    assert cluster.weft1.drops("SERVICE_UNKNOWN_PORT") > before


def test_a_service_without_backends_refuses(cluster, family):
    with pytest.raises(ConnectionRefusedError):
        connect(cluster.client, family.n1, family.none)
    assert refused(cluster.client, family.n1, family.none_udp)


def test_the_same_client_port_reaches_a_backend_over_two_addresses(cluster, family):
    first = Echo(cluster.client, family.n1, family.far, source=("", 40123))
    second = Echo(cluster.client, family.n2, family.far, source=("", 40123))
    assert first.alive() and second.alive() and first.alive()
    first.close()
    second.close()


def test_the_same_client_port_reaches_a_pod_by_its_service_and_directly(cluster, family):
    by_service = Echo(cluster.client, family.n1, family.near, source=("", 40124))
    directly = Echo(cluster.client, family.p1, 8080, source=("", 40124))
    assert by_service.alive() and directly.alive() and by_service.alive()
    directly.close()
    by_service.close()


def test_a_client_port_is_free_for_the_pod_itself_after_a_connection_through_the_service(cluster, family):
    """To the pod both connections are one tuple; the first is over."""
    for address, port in [(family.n1, family.near), (family.p1, 8080)] * 3:
        assert tcp_who(cluster.client, address, port, source=("", 40200)) == ("p1", family.client, 40200)
        wait_for("the connection to be over", lambda: not has_socket(cluster.client, 40200))


# ---- large, odd and unhappy traffic -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["near", "far"])
def test_eight_megabytes_pass_both_ways_with_offloads_on(cluster, family, where):
    port = getattr(family, where)
    assert upload(cluster.client, family.n1, port, 8 << 20)
    with Sniffer(cluster.client) as sniffer:
        assert download(cluster.client, family.n1, port, 8 << 20)
        incoming = [f for f in sniffer.frames() if f[:6] == mac(cluster.client)]
    assert max(map(len, incoming)) > 3000, "nothing came in as one large segment"


def test_eight_megabytes_pass_between_pods(cluster, family):
    assert upload(cluster.p1, family.p2, 8080, 8 << 20)
    assert download(cluster.p1, family.p2, 8080, 8 << 20)


def test_datagrams_of_20_kilobytes_come_back(cluster, family):
    data = numbers(5, 20000)
    assert datagram(cluster.client, family.n1, family.far_udp, data) == data
    assert datagram(cluster.client, family.p1, 5353, data) == data
    assert datagram(cluster.p1, family.p2, 5353, data) == data


def test_a_closed_port_of_a_backend_refuses_in_the_services_name(cluster, family):
    with Sniffer(cluster.client) as sniffer:
        assert refused(cluster.client, family.n1, family.shut)
        assert icmp_errors(f for f in sniffer.frames() if f[:6] == mac(cluster.client)) == {family.n1}


def test_a_closed_port_of_a_backend_resets(cluster, family):
    with pytest.raises(ConnectionRefusedError):
        connect(cluster.client, family.p1, 9)


# ---- the outside ------------------------------------------------------------------------------------


def test_an_outside_client_reaches_a_pod_and_the_answer_bears_the_pods_address(cluster, family):
    for pod, node in (("p1", cluster.p1), ("p2", cluster.p2)):
        assert tcp_who(cluster.client, getattr(family, pod), 8080)[:2] == (pod, family.client)
        assert udp_who(cluster.client, getattr(family, pod), 5353)[:2] == (pod, family.client)
        assert ping(cluster.client, getattr(family, pod))


def test_what_a_pod_opens_to_the_outside_bears_the_nodes_address(cluster, family):
    server = Server(cluster.client, "client", tcp=7003, udp=7004)
    try:
        assert tcp_who(cluster.p1, family.client, 7003)[:2] == ("client", family.n1)
        assert tcp_who(cluster.p2, family.client, 7003)[:2] == ("client", family.n2)
        assert udp_who(cluster.p1, family.client, 7004)[:2] == ("client", family.n1)
    finally:
        server.close()
    assert ping(cluster.p1, family.client)
    assert refused(cluster.p1, family.client, 7005)


def test_large_masqueraded_transfers_arrive(cluster, family):
    server = Server(cluster.client, "client", tcp=7006, udp=7007)
    data = numbers(6, 20000)
    try:
        assert upload(cluster.p1, family.client, 7006, 8 << 20)
        assert download(cluster.p1, family.client, 7006, 8 << 20)
        assert datagram(cluster.p1, family.client, 7007, data) == data
    finally:
        server.close()


def spoofed(family, source, target, source_mac, target_mac):
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    network = IP if family.name == "ipv4" else IPv6
    return (Ether(src=source_mac, dst=target_mac) / network(src=source, dst=target) /
            UDP(sport=4000, dport=4000) / b"forged by the test")


def test_a_pod_cannot_send_with_an_address_that_is_not_its_own(cluster, family):
    gateway = neighbour(cluster.p1, family)
    frame = spoofed(family, family.p2, family.client, mac(cluster.p1), gateway)
    assert_dropped_as_spoofed(cluster, cluster.p1, frame, cluster.client)


@pytest.mark.parametrize("source", ["p1", "external"])
def test_the_outside_cannot_send_with_an_address_of_ours(cluster, family, source):
    frame = spoofed(family, getattr(family, source), family.p1, mac(cluster.client), mac(cluster.n1))
    assert_dropped_as_spoofed(cluster, cluster.client, frame, cluster.p1)


def neighbour(pod, family):
    """MAC address of the pod's gateway, which weft has written into its neighbour table."""
    version = "-4" if family.name == "ipv4" else "-6"
    listing = pod.run("ip", version, "neigh", "show", "dev", "eth0", "nud", "permanent").stdout
    return bytes.fromhex(listing.split("lladdr ")[1].split()[0].replace(":", ""))


def assert_dropped_as_spoofed(cluster, sender, frame, listener):
    before = cluster.weft1.drops("SPOOFED")
    with Sniffer(listener) as sniffer:
        send_frame(sender, frame)
        wait_for("the drop to be counted", lambda: cluster.weft1.drops("SPOOFED") > before, 5)
        assert not any(b"forged by the test" in frame for frame in sniffer.frames())


# ---- the clock ------------------------------------------------------------------------------------

def long_lived(weft, ports):
    """What is known of connections from these ports of the client that is not to end soon."""
    return {(f["source"], f["source_port"], f["destination"], f["destination_port"])
            for f in weft.ctl_json("flows")["flows"]
            if f["source_port"] in ports and f["expires_seconds"] > 600}


@contextmanager
def stepped(seconds):
    """The machine's clock is off by so much; afterwards it is right again."""
    offset = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + offset)


if os.environ.get("WEFT_GUEST"):  # the clock of another machine is not ours to step
    @pytest.mark.parametrize("step", [86400 * 365, -86400 * 730], ids=["forward", "back"])
    def test_a_clock_that_is_stepped_ends_no_connection_and_holds_nothing_up(cluster, family, step):
        weft = cluster.weft1
        echoes = [Echo(cluster.client, family.n1, port) for port in (family.near, family.far)]
        ports = {echo.socket.getsockname()[1] for echo in echoes}
        assert all(echo.alive() for echo in echoes)
        lasting = long_lived(weft, ports)
        assert len(lasting) >= len(echoes)
        with stepped(step):
            assert all(echo.alive() for echo in echoes)
            assert tcp_who(cluster.client, family.n1, family.near)[0] == "p1"
            assert lasting <= long_lived(weft, ports)
            weft.ctl("reload")
            assert all(echo.alive() for echo in echoes)
        assert all(echo.alive() for echo in echoes)
        for echo in echoes:
            echo.close()
