# SPDX-License-Identifier: LGPL-2.1-or-later
"""bpf-masq alone, without any module for services: who is masqueraded, and under which address."""

import time

import pytest

from cluster import FAMILIES, IPV4, IPV6, NATIVE_CIDRS, Cluster
from conftest import start_servers
from lab import wait_for
from many import Many, serve_many
from traffic import (Echo, Server, connect, datagram, download, numbers, ping, tcp_who, udp_who, upload)

MODULES = {"native-routing": {"cidr": NATIVE_CIDRS, "direct-node-routes": "yes"}, "bpf-masq": {"ipv6": "yes"}}

# More addresses of the client, in its network and outside of it: what a pod may speak to.
RFC1918 = ["10.9.9.9", "172.16.9.9", "192.168.9.9", "100.64.9.9", "192.0.0.9", "192.88.99.9", "198.18.9.9",
           "198.51.100.9", "203.0.113.9", "240.0.0.9"]
ELSEWHERE = {"ipv4": "9.9.9.9", "ipv6": "2001:db8:9::9"}
LINK_LOCAL = "169.254.9.9"


@pytest.fixture(scope="module", params=[True, False], ids=["host-routing", "stack"])
def cluster(request):
    made = Cluster()
    try:
        made.client.ip(*(f"addr add {a} dev lo" for a in [*RFC1918, *ELSEWHERE.values(), LINK_LOCAL]))
        # 240.0.0.0/4 and link-local are no destinations of default routes everywhere
        made.n1.ip(f"route add 240.0.0.9 via {IPV4.client}", f"route add {LINK_LOCAL} via {IPV4.client}")
        made.client.ip("route add 198.51.100.200 via 192.0.2.11", "route add 2001:db8:200::1 via 2001:db8::11")
        made.weft({**MODULES, **({"host-routing": {}} if request.param else {})})
        start_servers(made)
        server = Server(made.client, "client", tcp=7003, udp=7004)
        made.lab.on_close(server.close)
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


@pytest.fixture
def options(cluster):
    """Sets options of bpf-masq on node 1 by a reload; the test's end takes them back."""
    def set_options(**keys):
        cluster.weft1.drop_in("60-masq", [("module bpf-masq", {k.replace("_", "-"): v for k, v in keys.items()})])
        cluster.weft1.ctl("reload")

    yield set_options
    if (cluster.weft1.root / "etc/weft/conf.d/60-masq.conf").exists():
        cluster.weft1.drop_in("60-masq", None)
        cluster.weft1.ctl("reload")


def seen(cluster, address):
    """The address under which p1 appears to a server there."""
    return tcp_who(cluster.p1, address, 7003)[1]


def said(cluster, module="bpf-masq"):
    """What the module's status line says."""
    (row,) = (m for m in cluster.weft1.ctl_json("modules")["modules"] if m["name"] == module)
    return row["status"]


def test_the_status_says_what_the_module_does_with_its_options(cluster, options):
    """Two link-local prefixes, the pods' of two nodes and the peer's addresses, in both families."""
    assert said(cluster) == "source ports 61000-65535; IPv4 and IPv6; 8 prefixes left alone"
    assert said(cluster, "native-routing") == "2 native prefixes; 2 routes"
    options(snat_ports="62000-62999", ipv6="no", non_masquerade_cidr=["rfc1918", "9.9.9.0/24"], address="198.51.100.200")
    assert said(cluster) == f"source ports 62000-62999; IPv4, under an address of its own; " \
                            f"{8 + 11 + 1} prefixes left alone"
    assert said(cluster) in " ".join(cluster.weft1.ctl("modules").stdout.split())


# ---- which connections -----------------------------------------------------------------------------


def test_every_protocol_is_masqueraded_without_a_module_for_services(cluster, family):
    data = numbers(6, 20000)
    assert seen(cluster, family.client) == family.n1
    assert udp_who(cluster.p1, family.client, 7004)[1] == family.n1
    assert ping(cluster.p1, family.client)
    assert tcp_who(cluster.p2, family.client, 7003)[1] == family.n2
    assert upload(cluster.p1, family.client, 7003, 2 << 20) and download(cluster.p1, family.client, 7003, 2 << 20)
    assert datagram(cluster.p1, family.client, 7004, data) == data, "in fragments, both ways"


def test_errors_from_outside_reach_the_pod(cluster, family):
    with pytest.raises(ConnectionRefusedError):
        for _ in range(20):  # who answers limits how often it does
            try:
                datagram(cluster.p1, family.client, 7099, b"x", timeout=0.3, tries=1)
            except TimeoutError:
                continue
    with pytest.raises(ConnectionRefusedError):
        connect(cluster.p1, family.client, 7099)


def test_answers_pods_and_peers_see_the_pods_own_address(cluster, family):
    assert tcp_who(cluster.client, family.p1, 8080)[:2] == ("p1", family.client)
    assert tcp_who(cluster.p1, family.p2, 8080)[:2] == ("p2", family.p1)
    server = Server(cluster.n2, "n2", tcp=7005, udp=7006)
    try:
        assert tcp_who(cluster.p1, family.n2, 7005)[:2] == ("n2", family.p1), "a peer's node"
    finally:
        server.close()


def test_the_named_list_and_prefixes_of_ones_own_keep_the_pods_address_and_old_flows_what_they_have(
        cluster, options):
    cluster.client.ip(f"route replace {IPV4.p1} via {IPV4.n1}")
    for address in RFC1918:
        assert seen(cluster, address) == IPV4.n1, "the list is empty by default"
    old = Echo(cluster.p1, RFC1918[0], 7003)
    options(non_masquerade_cidr=["rfc1918", "2001:db8:9::/48"])
    for address in [*RFC1918, IPV4.client]:
        assert seen(cluster, address) == IPV4.p1, address
    assert seen(cluster, ELSEWHERE["ipv4"]) == IPV4.n1
    assert seen(cluster, ELSEWHERE["ipv6"]) == IPV6.p1 and seen(cluster, IPV6.client) == IPV6.n1
    assert old.alive(), "as it was set up"
    new = Echo(cluster.p1, RFC1918[0], 7003)
    options(non_masquerade_cidr="9.9.9.0/24")
    assert seen(cluster, RFC1918[0]) == IPV4.n1 and seen(cluster, ELSEWHERE["ipv4"]) == IPV4.p1
    assert old.alive() and new.alive()
    old.close()
    new.close()


def test_link_local_destinations_keep_the_pods_address_unless_they_are_not_to(cluster, options):
    assert seen(cluster, LINK_LOCAL) == IPV4.p1
    options(masquerade_link_local="yes")
    assert seen(cluster, LINK_LOCAL) == IPV4.n1


def test_ipv6_is_left_alone_unless_asked_for(cluster, options):
    options(ipv6="no")
    assert seen(cluster, IPV6.client) == IPV6.p1
    assert seen(cluster, IPV4.client) == IPV4.n1


# ---- under which address ---------------------------------------------------------------------------


def test_an_address_of_ones_own_choice_wins(cluster, options, family):
    chosen = {"ipv4": "198.51.100.200", "ipv6": "2001:db8:200::1"}
    options(address=list(chosen.values()))
    assert seen(cluster, family.client) == chosen[family.name]
    assert udp_who(cluster.p1, family.client, 7004)[1] == chosen[family.name]
    assert ping(cluster.p1, family.client)


@pytest.fixture(scope="module")
def two_uplinks(cluster):
    """A second uplink of n1, with two networks and two addresses, behind which lies 198.18.77.0/24."""
    other = cluster.lab.namespace("other")
    cluster.lab.cable(cluster.n1, "eth1", other, "eth0")
    cluster.n1.ip("addr add 198.18.1.1/24 dev eth1", "addr add 198.18.2.1/24 dev eth1",
                  "addr add 2001:db8:1::1/64 dev eth1 nodad", "addr add 2001:db8:2::1/64 dev eth1 nodad",
                  "route add 198.18.77.0/24 via 198.18.2.2", "route add 2001:db8:77::/64 via 2001:db8:2::2",
                  "route add 198.18.78.0/24 via 198.18.1.2 src 198.18.2.1",
                  "route add 2001:db8:78::/64 via 2001:db8:1::2 src 2001:db8:2::1")
    other.ip(*(f"addr add {a} dev eth0" for a in ("198.18.1.2/24", "198.18.2.2/24", "2001:db8:1::2/64",
                                                  "2001:db8:2::2/64")),
             *(f"addr add {a} dev lo" for a in ("198.18.77.7", "198.18.78.7", "2001:db8:77::7", "2001:db8:78::7")),
             "route add default via 198.18.1.1", "route add default via 2001:db8:1::1")
    server = Server(other, "other", tcp=7003, udp=7004)
    cluster.lab.on_close(server.close)
    cluster.weft1.drop_in("50-uplinks", [("node", {"uplink": ["", "eth0", "eth1"]})])
    cluster.weft1.ctl("reload")
    return {"ipv4": ("198.18.1.1", "198.18.2.1", "198.18.77.7", "198.18.78.7"),
            "ipv6": ("2001:db8:1::1", "2001:db8:2::1", "2001:db8:77::7", "2001:db8:78::7")}


def test_each_uplink_has_its_own_address(cluster, two_uplinks, family):
    first, _, far, _ = two_uplinks[family.name]
    assert seen(cluster, far) == first
    assert seen(cluster, family.client) == family.n1


def test_the_address_that_the_route_prefers_is_taken_where_that_is_asked_for(cluster, two_uplinks, options, family):
    _, second, _, preferred = two_uplinks[family.name]
    if any(f["name"] == "fib-lookup-src" and not f["present"] for f in cluster.weft1.ctl_json("probe")["facts"]):
        pytest.skip("the routing lookup of this kernel's programs does not tell the source")
    options(route_source="yes")
    assert seen(cluster, preferred) == second
    assert seen(cluster, family.client) == family.n1


def test_the_nodes_address_is_followed_and_flows_end_with_theirs(cluster, family):
    node, weft = cluster.n1, cluster.weft1
    length = 64 if family.name == "ipv6" else 24
    other = family.n1.replace("11", "21")
    weft.drop_in("55-address", [("node", {"address": ["", *(f.n2.replace("12", "11") for f in FAMILIES
                                                              if f is not family)]})])
    weft.ctl("reload")
    kept = Echo(cluster.p1, family.client, 7003)
    assert kept.alive() and seen(cluster, family.client) == family.n1
    try:
        node.ip(f"addr add {other}/{length} dev eth0")
        for _ in range(10):
            assert kept.alive() and seen(cluster, family.client) == family.n1, "the first one stays"
            time.sleep(0.05)  # weftd hears of it meanwhile
        node.ip(f"addr del {family.n1}/{length} dev eth0", f"addr replace {other}/{length} dev eth0")
        wait_for("new flows to bear the new address", lambda: answered(cluster, family.client) == other, 10)
        wait_for("the old flow to end", lambda: is_over(kept), 20, step=0.5)
        wait_for("the log to say so", lambda: f"address {family.n1} is gone" in weft.log(), 5)
    finally:
        kept.close()
        node.run("ip", "addr", "replace", f"{family.n1}/{length}", "dev", "eth0")
        node.run("ip", "addr", "del", f"{other}/{length}", "dev", "eth0", check=False)
        node.run("ip", "addr", "replace", f"{family.n1}/{length}", "dev", "eth0")  # went as its secondary
        node.run("ip", "route", "replace", "default", "via", family.client)
        weft.drop_in("55-address", None)
        weft.ctl("reload")
    wait_for("the node to be as before", lambda: answered(cluster, family.client) == family.n1, 10)


def answered(cluster, address):
    try:
        return tcp_who(cluster.p1, address, 7003, timeout=1)[1]
    except OSError:
        return None


def is_over(echo):
    """Whether the connection was reset, and does not only hang."""
    echo.socket.settimeout(0.5)
    try:
        return not echo.alive()
    except TimeoutError:
        return False
    except OSError:
        return True


# ---- ports -----------------------------------------------------------------------------------------


def test_ports_used_up_towards_one_destination_are_reported_and_recover(cluster, options):
    weft = cluster.weft1
    options(snat_ports="61000-61003")
    held = [Echo(cluster.p1, IPV4.client, 7003) for _ in range(4)]
    before = weft.drops("PORTS_EXHAUSTED")
    with pytest.raises(TimeoutError):
        connect(cluster.p1, IPV4.client, 7003, timeout=0.5)
    assert weft.drops("PORTS_EXHAUSTED") > before
    assert seen(cluster, ELSEWHERE["ipv4"]) == IPV4.n1, "another destination has all ports"
    assert all(echo.alive() for echo in held)
    wait_for("the log to tell", lambda: "PORTS_EXHAUSTED: no source port is free" in weft.log(), 30, step=0.2)
    assert "snat-ports" in weft.log()
    held.pop().close()
    wait_for("the port of a flow that ended", lambda: answered(cluster, IPV4.client) == IPV4.n1, 10)
    held.append(Echo(cluster.p1, IPV4.client, 7003))
    options(snat_ports="61000-61004")
    assert seen(cluster, IPV4.client) == IPV4.n1, "a wider range lets newcomers in"
    for echo in held:
        assert echo.alive()
        echo.close()


def test_the_nodes_own_connections_stand_beside_masqueraded_ones(cluster, options):
    options(snat_ports="1024-65535")
    serve_many(cluster.client, 7000)
    held = [Many(cluster.n1, IPV4.client, 7000, 2000), Many(cluster.p1, IPV4.client, 7000, 2000),
            Many(cluster.n1, IPV4.client, 7000, 2000)]
    assert [one.opened() for one in held] == [2000] * 3
    assert [one.alive() for one in held] == [2000] * 3
    for one in held:
        one.close()
