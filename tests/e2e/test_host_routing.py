# SPDX-License-Identifier: LGPL-2.1-or-later
"""host-routing: past the host's stack and its netfilter, by the node's own routes and policy rules."""

import random
from contextlib import contextmanager

import pytest

from cluster import IPV4, IPV6, Cluster, standard_modules
from conftest import start_servers
from lab import wait_for
from packets import Sniffer, icmp_errors
from traffic import Echo, Server, download, ping, tcp_who, udp_who, upload

HOOKS = ["prerouting", "input", "forward", "output", "postrouting"]
PODS = {"ip": "10.244.0.0/16", "ip6": "fd00:244::/32"}

P3 = {"ipv4": "10.244.1.30", "ipv6": "fd00:244:1::30"}


def count_hooks(node):
    """A counter for packets from or to pods in each of the node's netfilter hooks."""
    others = "\n".join(f"{family} saddr != {cidr} {family} daddr != {cidr} accept" for family, cidr in PODS.items())
    chains = "\n".join(f"counter {hook} {{}}\nchain {hook} {{ type filter hook {hook} priority -400; {others}\n"
                       f"meta protocol {{ ip, ip6 }} counter name {hook}\n}}" for hook in HOOKS)
    node.run("nft", "-f", "-", input=f"table inet watch {{\n{chains}\n}}\n")


def seen(node):
    """Packets of pods that each hook has seen."""
    listing = node.run("nft", "list", "counters", "table", "inet", "watch").stdout
    words = listing.split()
    return {hook: int(words[words.index(hook) + 3]) for hook in HOOKS}


def new(before, after):
    return {hook: after[hook] - before[hook] for hook in HOOKS}


@contextmanager
def running(host_routing):
    """Two nodes, the first with a second pod, p3; nothing passes its hooks uncounted."""
    cluster = Cluster()
    try:
        lab = cluster.lab
        cluster.p3 = lab.namespace("p3")
        cluster.weft(standard_modules(host_routing))
        cluster.weft1.drop_in("p3", [("endpoint p3", {"netns": cluster.p3.path, "address": list(P3.values())})])
        cluster.weft1.ctl("reload")
        start_servers(cluster)
        for ns in (cluster.p3, cluster.client):
            server = Server(ns, ns.name.rsplit("-", 1)[1])
            lab.on_close(server.close)
        count_hooks(cluster.n1)
        yield cluster
        for weft in cluster.wefts.values():
            weft.stop()
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def cluster():
    with running(True) as made:
        yield made


@pytest.fixture(scope="module")
def stack():
    with running(False) as made:
        yield made


def talk(cluster, f):
    """Every way that a pod's traffic takes; once before, so that neighbours are known."""
    assert udp_who(cluster.p1, f.p2, 5353)[:2] == ("p2", f.p1)
    assert tcp_who(cluster.p2, f.p1, 8080)[:2] == ("p1", f.p2)
    assert udp_who(cluster.p1, P3[f.name], 5353)[:2] == ("p3", f.p1)
    assert tcp_who(cluster.p3, f.p1, 8080)[:2] == ("p1", P3[f.name])
    assert tcp_who(cluster.p1, f.client, 8080)[:2] == ("client", f.n1)
    assert tcp_who(cluster.client, f.n1, f.near)[:2] == ("p1", f.client)
    assert tcp_who(cluster.client, f.p1, 8080)[:2] == ("p1", f.client)
    assert ping(cluster.p1, f.p2) and ping(cluster.p1, P3[f.name]) and ping(cluster.p1, f.client)
    assert upload(cluster.p1, f.p2, 8080, 1 << 20) and download(cluster.p1, P3[f.name], 8080, 1 << 20)


# ---- netfilter ----------------------------------------------------------------------------------------


def test_no_packet_of_a_pod_passes_any_hook_of_the_hosts_netfilter(cluster, family):
    before = seen(cluster.n1)
    talk(cluster, family)
    assert new(before, seen(cluster.n1)) == dict.fromkeys(HOOKS, 0)


def test_without_it_every_packet_of_a_pod_passes_forward(stack, family):
    """Each datagram is one packet, so they can be counted; TCP may be put together on the way."""
    ways = [(stack.p1, family.p2), (stack.p2, family.p1), (stack.p1, P3[family.name]),
            (stack.client, family.p1), (stack.p1, family.client)]
    before = seen(stack.n1)
    for ns, address in ways:
        for _ in range(10):
            assert udp_who(ns, address, 5353)
    assert new(before, seen(stack.n1)) == {"prerouting": 100, "input": 0, "forward": 100, "output": 0,
                                           "postrouting": 100}
    before = seen(stack.n1)
    talk(stack, family)
    passed = new(before, seen(stack.n1))
    assert passed["forward"] > 100 and passed["input"] == passed["output"] == 0


# ---- policy routing ----------------------------------------------------------------------------------


@contextmanager
def second_way(cluster):
    """A second client with the first one's address, behind a second uplink of n1 that only table 100
    leads to. Its servers say who answered."""
    lab, n1 = cluster.lab, cluster.n1
    other = lab.namespace("other")
    lab.cable(n1, "eth1", other, "eth0")
    for ns, v4, v6 in ((n1, "198.18.1.1", "2001:db8:1::1"), (other, "198.18.1.2", "2001:db8:1::2")):
        ns.ip(f"addr add {v4}/24 dev {'eth1' if ns is n1 else 'eth0'}",
              f"addr add {v6}/64 dev {'eth1' if ns is n1 else 'eth0'}")
    far = {"ipv4": "198.18.99.9", "ipv6": "2001:db8:99::9"}
    for ns in (other, cluster.client):
        ns.ip(*(f"addr add {a} dev lo" for a in far.values()))
    other.ip("route add default via 198.18.1.1", "route add default via 2001:db8:1::1")
    n1.ip("route add 198.18.99.0/24 via 198.18.1.2 table 100", "route add 2001:db8:99::/64 via 2001:db8:1::2 table 100",
          f"route add 198.18.99.0/24 via {IPV4.client}", f"route add 2001:db8:99::/64 via {IPV6.client}")
    cluster.weft1.drop_in("uplinks", [("node", {"uplink": ["", "eth0", "eth1"]})])
    cluster.weft1.ctl("reload")
    server = Server(other, "other")
    try:
        yield far
    finally:
        server.close()


@pytest.fixture(scope="module")
def two_ways(cluster):
    with second_way(cluster) as far:
        yield far


@contextmanager
def rule(node, f, text):
    """A policy rule, known to weftd when the body runs and gone when it is over."""
    command = ["ip", "-6" if f.name == "ipv6" else "-4", "rule"]
    node.run(*command, "add", *text.split())
    try:
        yield
    finally:
        node.run(*command, "del", *text.split())


def goes_to(cluster, address, source=None, tos=0):
    """Who answers a new connection of p1; None: nobody. SOURCE is the first of a thousand ports."""
    source = ("", source + random.randrange(1000)) if source else None
    try:
        return tcp_who(cluster.p1, address, 8080, timeout=1, source=source, tos=tos)[0]
    except OSError:
        return None


def comes_to(cluster, address, name, **keywords):
    """Rules take effect when weftd has heard of them, a moment later."""
    wait_for(f"{address} to be {name}", lambda: goes_to(cluster, address, **keywords) == name, 5, step=0.1)
    return True


RULES = ["from {p1}", "to {far}", "iif {device}", "ipproto tcp dport 8080", "ipproto tcp sport 40000-40999",
         "tos 0x10"]


@pytest.mark.parametrize("text", RULES)
def test_policy_rules_that_the_lookup_knows_decide_without_the_stack(cluster, two_ways, family, text):
    far, node = two_ways[family.name], cluster.n1
    device = next(e["interface"] for e in cluster.weft1.ctl_json("status")["endpoints"] if e["name"] == "p1")
    assert comes_to(cluster, far, "client")
    before, left = seen(node), cluster.weft1.events("STACK_ROUTED")
    keywords = {"source": 40000} if "sport" in text else {"tos": 0x10} if "tos" in text else {}
    with rule(node, family, text.format(p1=family.p1, far=far, device=device) + " lookup 100"):
        assert comes_to(cluster, far, "other", **keywords)
        if keywords:
            assert goes_to(cluster, far) == "client", "others go where they went"
    assert comes_to(cluster, far, "client", **keywords)
    assert new(before, seen(node)) == dict.fromkeys(HOOKS, 0)
    assert cluster.weft1.events("STACK_ROUTED") == left


def passes_by(cluster, address):
    before, left = seen(cluster.n1), cluster.weft1.events("STACK_ROUTED")
    return goes_to(cluster, address) == "client" and seen(cluster.n1) == before and \
        cluster.weft1.events("STACK_ROUTED") == left


def test_rules_by_mark_are_the_stacks_and_such_flows_are_counted(cluster, two_ways, family):
    """Marks are set by netfilter on the way through the stack, so only that can know them."""
    far, node = two_ways[family.name], cluster.n1
    word = "ip6" if family.name == "ipv6" else "ip"
    node.run("nft", f"add table inet marking; add chain inet marking pre {{ type filter hook prerouting priority -150; }}; "
             f"add rule inet marking pre {word} daddr {far} tcp dport 8080 meta mark set 0x7")
    echo = Echo(cluster.p1, family.p2, 8080)
    try:
        assert comes_to(cluster, far, "client")
        before = cluster.weft1.events("STACK_ROUTED")
        with rule(node, family, "fwmark 0x7 lookup 100"):
            assert comes_to(cluster, far, "other")
            assert tcp_who(cluster.p1, family.client, 8080)[:2] == ("client", family.n1)
            assert cluster.weft1.events("STACK_ROUTED") > before
            assert echo.alive()
        assert wait_for("pods to pass the stack by again", lambda: passes_by(cluster, far), 5)
        assert echo.alive()
    finally:
        echo.close()
        node.run("nft", "delete table inet marking")


def test_a_route_that_encapsulates_is_the_stacks_and_the_flow_is_counted(cluster):
    """IPv6 segment routing is a light-weight tunnel of a route; the lookup only says that there is one."""
    node, f = cluster.n1, IPV6
    node.run("ip", "-6", "route", "add", "2001:db8:77::/64", "encap", "seg6", "mode", "encap", "segs", f.client,
             "via", f.client, "dev", "eth0")
    before = cluster.weft1.events("STACK_ROUTED")
    with Sniffer(cluster.client) as sniffer:
        with pytest.raises(TimeoutError):
            udp_who(cluster.p1, "2001:db8:77::7", 5353, tries=1, timeout=0.3)
        assert [p for p in sniffer.frames() if p[12:14] == b"\x86\xdd" and p[20] == 43], "no routing header"
    assert cluster.weft1.events("STACK_ROUTED") > before


def test_refusing_routes_answer_as_the_stack_does(cluster, family):
    """Unreachable and prohibited destinations: the sender is told."""
    address = {"ipv4": "198.18.50.1", "ipv6": "2001:db8:50::1"}[family.name]
    cluster.n1.ip(f"route add unreachable {address}")
    with Sniffer(cluster.p1) as sniffer:
        with pytest.raises(OSError):
            udp_who(cluster.p1, address, 5353, tries=1, timeout=0.3)
        assert icmp_errors(sniffer.frames()) == {family.n1}
