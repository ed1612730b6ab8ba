# SPDX-License-Identifier: LGPL-2.1-or-later
"""notrack: the host's conntrack sees nothing of pod traffic and everything else; nothing of it stays."""

import re

import pytest

from cluster import IPV4, IPV6, Cluster, standard_modules
from conftest import start_servers
from lab import wait_for
from test_left_out import ends, lesser, state
from traffic import Echo, Server, download, ping, tcp_who, udp_who, upload

# Makes conntrack look at everything, as a firewall would, and stands for what is somebody else's.
WATCH = """
table inet watch {
        chain in { type filter hook prerouting priority 0; ct state new counter; }
        chain out { type filter hook output priority 0; ct state new counter; }
}
"""

TABLE = """\
table inet weft-notrack {
	set native4 {
		type ipv4_addr
		flags interval
		auto-merge
		elements = { 10.244.0.0/16 }
	}

	set native6 {
		type ipv6_addr
		flags interval
		auto-merge
		elements = { fd00:244::/32 }
	}

	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		ip saddr @native4 counter notrack
		ip daddr @native4 counter notrack
		ip6 saddr @native6 counter notrack
		ip6 daddr @native6 counter notrack
	}

	chain output {
		type filter hook output priority raw; policy accept;
		ip saddr @native4 counter notrack
		ip daddr @native4 counter notrack
		ip6 saddr @native6 counter notrack
		ip6 daddr @native6 counter notrack
	}
}
"""


def ruleset(ns):
    return ns.run("nft", "-s", "list", "ruleset").stdout


def with_notrack(**options):
    return {**standard_modules(host_routing=False), "notrack": options}


@pytest.fixture(scope="module")
def cluster():
    made = Cluster()
    try:
        for node in (made.n1, made.n2):
            node.run("nft", "-f", "-", input=WATCH)
        made.before = ruleset(made.n1)
        made.weft(with_notrack())
        start_servers(made)
        yield made
        for weft in made.wefts.values():
            weft.stop()
    finally:
        made.close()


def tracked(node):
    """Both tuples of every connection that the node's conntrack knows."""
    return "".join(node.run("conntrack", "-L", "-f", family).stdout for family in ("ipv4", "ipv6"))


def test_the_table_says_exactly_what_the_native_prefixes_are(cluster):
    assert cluster.n1.run("nft", "-s", "list", "table", "inet", "weft-notrack").stdout == TABLE
    (row,) = (m for m in cluster.weft1.ctl_json("modules")["modules"] if m["name"] == "notrack")
    assert row["status"] == "table inet weft-notrack of nftables; 2 prefixes not tracked"


def test_conntrack_sees_nothing_of_pod_traffic_and_everything_else(cluster, family):
    server = Server(cluster.client, "client", tcp=7003, udp=7004)
    for node in (cluster.n1, cluster.n2):
        node.run("conntrack", "-F")
    try:
        assert tcp_who(cluster.p1, family.p2, 8080)[:2] == ("p2", family.p1)
        assert udp_who(cluster.p2, family.p1, 5353)[:2] == ("p1", family.p2)
        assert ping(cluster.p1, family.p2)
        assert tcp_who(cluster.p1, family.client, 7003)[:2] == ("client", family.n1), "masqueraded"
        assert udp_who(cluster.p1, family.client, 7004)[:2] == ("client", family.n1)
        assert ping(cluster.p1, family.client)
        assert tcp_who(cluster.client, family.n1, family.near)[:2] == ("p1", family.client)
        assert tcp_who(cluster.client, family.p1, 8080)[:2] == ("p1", family.client)
        assert tcp_who(cluster.n1, family.p1, 8080)[0] == "p1", "from the node itself"
        assert upload(cluster.p1, family.p2, 8080, 4 << 20)
        assert download(cluster.p1, family.client, 7003, 4 << 20)
        assert [tracked(node) for node in (cluster.n1, cluster.n2)] == ["", ""]

        assert tcp_who(cluster.n1, family.client, 7003)[0] == "client"
        assert ping(cluster.client, family.n1)
        seen = tracked(cluster.n1)
        assert f"src={family.n1} dst={family.client}" in seen and "dport=7003" in seen
        assert f"src={family.client} dst={family.n1}" in seen and "icmp" in seen
    finally:
        server.close()


def test_the_table_follows_native_routing_and_goes_with_its_module_under_traffic(cluster):
    weft, node = cluster.weft1, cluster.n1
    echoes = [Echo(cluster.p1, f.p2, 8080) for f in (IPV4, IPV6)]
    weft.drop_in("50-more", [("module native-routing", {"cidr": ["", "10.244.0.0/16", "10.246.0.0/16"]})])
    weft.ctl("reload")
    table = node.run("nft", "list", "set", "inet", "weft-notrack", "native4").stdout
    assert "elements = { 10.244.0.0/16, 10.246.0.0/16 }" in table
    assert "ip6" not in node.run("nft", "list", "table", "inet", "weft-notrack").stdout
    assert all(echo.alive() for echo in echoes)

    weft.drop_in("50-more", [("module notrack", {"cidr": "fd00:244::/32"})])
    weft.ctl("reload")
    listing = node.run("nft", "list", "table", "inet", "weft-notrack").stdout
    assert "ip6 saddr @native6" in listing and "ip saddr" not in listing

    weft.drop_in("50-more", [("module notrack", {"enabled": "no"})])
    weft.ctl("reload")
    assert ruleset(node) == cluster.before
    assert all(echo.alive() for echo in echoes)
    assert state(weft, "native-routing")[0] == "on"

    weft.drop_in("50-more", None)
    weft.ctl("reload")
    assert node.run("nft", "-s", "list", "table", "inet", "weft-notrack").stdout == TABLE
    assert all(echo.alive() for echo in echoes)
    for echo in echoes:
        echo.close()


# A firewall that trusts what conntrack says, as many do.
FIREWALL = """
table inet firewall {
        chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
        chain input { type filter hook input priority 0; ct state invalid counter drop; }
}
"""
BYPASSES = {"notrack": {}, "host-routing": {"notrack": {"enabled": "no"}}}  # by module: what else it is tried with


@pytest.mark.parametrize("module", BYPASSES)
def test_connections_that_went_past_conntrack_for_a_while_are_valid_to_it_again(cluster, module):
    weft, node, more = cluster.weft1, cluster.n1, [(f"module {m}", keys) for m, keys in BYPASSES[module].items()]

    def past(conntrack):
        name = f"module {module}"
        weft.drop_in("50-more", [*more, (name, {"enabled": "yes" if conntrack else "no"})])
        weft.ctl("reload")

    past(False)
    node.run("nft", "-f", "-", input=FIREWALL)
    try:
        echoes = [Echo(*way) for f in (IPV4, IPV6) for way in
                  [(cluster.p1, f.p2, 8080), (cluster.client, f.n1, f.near), (cluster.n1, f.p2, 8080)]]
        for _ in range(2):
            past(True)
            assert all([echo.carries(8 << 20) for echo in echoes])
            past(False)
            assert all([echo.alive() for echo in echoes])
        assert re.findall(r"counter packets (\d+)", node.run("nft", "list table inet firewall").stdout) == ["0", "0"]
    finally:
        node.run("nft", "delete table inet firewall")
        weft.drop_in("50-more", None)
        weft.ctl("reload")
    for echo in echoes:
        echo.close()


def test_the_table_comes_back_when_somebody_flushes_the_whole_ruleset(cluster):
    """As firewalls do before they load their rules."""
    cluster.n1.run("nft", "flush", "ruleset")
    wait_for("the table", lambda: "weft-notrack" in ruleset(cluster.n1), 15, step=0.2)
    assert cluster.n1.run("nft", "-s", "list", "table", "inet", "weft-notrack").stdout == TABLE
    cluster.n1.run("nft", "-f", "-", input=WATCH)
    assert "table inet weft-notrack of nftables" in cluster.weft1.log()


def test_a_refused_reload_leaves_the_table_as_it_was(cluster):
    weft = cluster.weft1
    weft.drop_in("50-more", [("module native-routing", {"cidr": ""})])
    result = weft.ctl("reload", check=False)
    assert result.returncode != 0
    assert "module notrack" in result.stderr and "[module native-routing]" in result.stderr
    weft.drop_in("50-more", [("module notrack", {"cidr": "10.99.0.0/16"}),
                             ("service bad", {"port": "1/tcp", "node-port": 1})])
    assert weft.ctl("reload", check=False).returncode != 0
    weft.drop_in("50-more", None)
    assert cluster.n1.run("nft", "-s", "list", "table", "inet", "weft-notrack").stdout == TABLE


def test_a_killed_daemons_table_goes_with_cleanup_or_with_a_successor_that_does_not_want_it(cluster):
    weft, node = cluster.weft1, cluster.n1
    weft.kill()
    assert "weft-notrack" in ruleset(node), "the datapath goes on without its daemon"
    weft.start()
    assert node.run("nft", "-s", "list", "table", "inet", "weft-notrack").stdout == TABLE
    weft.kill()
    weft.drop_in("50-more", [("module notrack", {"enabled": "no"})])
    weft.start()
    assert ruleset(node) == cluster.before

    weft.drop_in("50-more", None)
    weft.ctl("reload")
    assert "weft-notrack" in ruleset(node)
    weft.kill()
    said = weft.ctl("cleanup").stdout
    assert "removed table inet weft-notrack of nftables" in said
    assert ruleset(node) == cluster.before
    weft.start()


# ---- refusals --------------------------------------------------------------------------------------


def refusal(cluster, modules, **keywords):
    """What weftd says that does not start."""
    weft = lesser(cluster, keywords.get("mode", "strict"), keywords.get("facts", ""), modules)
    assert ends(weft) == 1
    weft.ctl("cleanup", check=False)
    (said,) = [line for line in weft.log().splitlines() if "not started:" in line]
    return said


@pytest.fixture
def lone():
    with Cluster() as made:
        yield made


def test_no_prefix_at_all_is_refused(lone):
    said = refusal(lone, {"notrack": {}})
    assert "module notrack" in said and "[module native-routing]" in said and "cidr" in said
    assert ruleset(lone.n1) == ""


def test_a_kernel_without_nftables_is_refused_or_goes_without(lone):
    modules = with_notrack()
    assert "module notrack needs the kernel's feature nftables" in refusal(lone, modules, facts="no-nftables")


def test_probe_mode_goes_without_nftables_and_says_so(lone):
    weft = lesser(lone, "probe", "no-nftables", with_notrack()).start()
    on, reason = state(weft, "notrack")
    assert on == "off" and reason.startswith("needs the kernel's feature nftables")
    assert state(weft, "native-routing")[0] == "on"
    weft.stop()


FOREIGN = {
    "iptables": (["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.0/16", "-j", "MASQUERADE"],
                 "masquerade-free", "table ip nat, chain POSTROUTING"),
    "iptables-legacy": (["iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "!", "-s", "10.1.0.0/16",
                         "-j", "MASQUERADE"], "masquerade-free", "iptables-legacy"),
    "ip6tables-legacy": (["ip6tables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "fd00:244:1::/64", "-j",
                          "SNAT", "--to-source", "2001:db8::11"], "masquerade-free", "ip6tables-legacy"),
    "service": (["iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "80", "-j", "DNAT",
                 "--to-destination", "10.244.1.10:8080"], "redirect-free", "table ip nat, chain PREROUTING"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_translation_of_pods_by_somebody_else_is_refused_by_name(lone, name):
    command, fact, where = FOREIGN[name]
    lone.n1.run(*command)
    said = refusal(lone, with_notrack())
    assert f"module notrack needs the host to be {fact}" in said
    assert where in said and "[module notrack]" in said


def test_translation_of_others_than_pods_is_no_reason_to_refuse(lone):
    """As Docker and Podman do it for their own networks."""
    lone.n1.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "-j", "MASQUERADE")
    lone.n1.run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "172.18.0.0/16", "-j", "MASQUERADE")
    lone.n1.run("nft", "-f", "-", input="""
table inet netavark {
        chain net { ip daddr != 224.0.0.0/4 masquerade; }
        chain post { type nat hook postrouting priority srcnat; ip saddr 10.88.0.0/16 jump net; }
        chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 dnat ip to 10.88.0.5:80; }
}
""")
    weft = lesser(lone, "strict", "", {**with_notrack(), "host-routing": {}}).start()
    assert state(weft, "notrack")[0] == "on" and state(weft, "host-routing")[0] == "on"
    weft.stop()


def test_strict_mode_refuses_host_routing_where_somebody_else_masquerades_pods(lone):
    lone.n1.run(*FOREIGN["iptables"][0])
    said = refusal(lone, standard_modules())
    assert "module host-routing needs the host to be masquerade-free" in said
    assert "table ip nat, chain POSTROUTING" in said and "on Linux" not in said


def test_masquerading_of_pods_by_somebody_else_keeps_host_routing_out_until_it_ends(lone):
    lone.n1.run("nft", "-f", "-", input="""
table ip mine { chain post { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }; }
""")
    weft = lesser(lone, "probe", "", standard_modules()).start()
    on, reason = state(weft, "host-routing")
    assert on == "off" and "table ip mine, chain post" in reason and "[module host-routing]" in reason
    lone.n1.run("nft", "delete table ip mine")
    weft.ctl("reload")
    assert state(weft, "host-routing")[0] == "on"
    weft.stop()
