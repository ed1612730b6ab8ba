# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other people's programs, rules, routes and devices on a node: left alone, and told where they do what
weft does."""

import os
import socket

import pytest

from cluster import FAMILIES, IPV4, Cluster, standard_modules
from conftest import start_servers
from foreign import BEFORE, TC_ACT_SHOT, XDP, XDP_PASS, Program
from packets import TCX_EGRESS, TCX_INGRESS, has_tcx, tcx_programs
from test_life import host_state, reachable
from traffic import tcp_who
from weft import BUILD_SANITIZED

needs_tcx = pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx")

RULES = """
table inet theirs {
        chain forward { type filter hook forward priority filter; policy accept; counter; }
}
table ip theirs-nat {
        chain postrouting { type nat hook postrouting priority srcnat; ip saddr 198.18.0.0/15 masquerade; }
}
"""


@pytest.fixture
def bare():
    """A cluster on which weft was not started yet."""
    with Cluster() as made:
        yield made


def start(cluster, core=None, **options):
    cluster.weft(standard_modules(**options), core, BUILD_SANITIZED)
    start_servers(cluster)
    return cluster.weft1


def program(cluster, *arguments, **keywords):
    made = Program(*arguments, **keywords)
    cluster.lab.on_close(made.close)
    return made


def whole_life(cluster, check):
    """Everything that weft does on a node, CHECK called in between."""
    weft = cluster.weft1
    for step in (lambda: None, lambda: weft.ctl("reload"), weft.stop, weft.start, weft.kill, weft.start,
                 lambda: weft.ctl("cleanup")):
        step()
        check()
    weft.process.wait(20)


# ---- left alone ---------------------------------------------------------------------------------


@needs_tcx
def test_foreign_tcx_programs_keep_their_places_and_their_packets(bare):
    sides = {TCX_INGRESS: True, TCX_EGRESS: False}
    before = {side: program(bare, "before") for side in sides}
    for side, ingress in sides.items():
        before[side].attach_tcx(bare.n1, "eth0", ingress)
    start(bare)
    after = {side: program(bare, "after") for side in sides}
    for side, ingress in sides.items():
        after[side].attach_tcx(bare.n1, "eth0", ingress)
    assert all(len(tcx_programs(bare.n1, "eth0", side)) == 3 for side in sides)

    def check():
        for side in sides:
            programs = tcx_programs(bare.n1, "eth0", side)
            assert (programs[0], programs[-1]) == (before[side].id(), after[side].id())
        seen = before[TCX_INGRESS].count()
        if len(programs) == 3:
            assert reachable(bare)
            assert before[TCX_INGRESS].count() > seen

    whole_life(bare, check)
    assert all(len(tcx_programs(bare.n1, "eth0", side)) == 2 for side in sides)


@needs_tcx
def test_foreign_tcx_programs_of_an_endpoints_device_keep_their_places(bare):
    weft = start(bare)
    device = weft.ctl_json("status")["endpoints"][0]["interface"]
    theirs = program(bare, "theirs")
    theirs.attach_tcx(bare.n1, device, ingress=True, flags=BEFORE)
    for step in (lambda: weft.ctl("reload"), weft.kill, weft.start):
        step()
        assert tcx_programs(bare.n1, device, TCX_INGRESS)[0] == theirs.id()
    seen = theirs.count()
    assert reachable(bare) and theirs.count() > seen


def test_foreign_clsact_filters_and_their_qdisc_stay(bare):
    theirs, node = program(bare, "theirs"), bare.n1
    weft_pins = bare.lab.directory / "theirs"
    weft_pins.mkdir()
    bare.n1.run("mount", "-t", "bpf", "bpf", weft_pins)
    theirs.pin(weft_pins / "filter")
    node.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    for side in ("ingress", "egress"):
        node.run("tc", "filter", "add", "dev", "eth0", side, "prio", "7", "handle", "7", "bpf", "da",
                 "object-pinned", weft_pins / "filter")
    start(bare, {"debug-attach": "clsact"})

    def filters():
        return ["handle 0x7 " in node.run("tc", "filter", "show", "dev", "eth0", side).stdout
                for side in ("ingress", "egress")]

    def check():
        assert filters() == [True, True]
        seen = theirs.count()
        assert bare.client.run("ping", "-c", "1", "-W", "5", IPV4.n1)
        assert theirs.count() > seen

    assert reachable(bare)
    whole_life(bare, check)
    assert "clsact" in node.run("tc", "qdisc", "show", "dev", "eth0").stdout


def test_a_foreign_xdp_program_stays_and_weft_goes_without(bare):
    theirs, node = program(bare, "theirs", XDP, XDP_PASS), bare.n1
    pins = bare.lab.directory / "theirs"
    pins.mkdir()
    node.run("mount", "-t", "bpf", "bpf", pins)
    theirs.pin(pins / "xdp")
    node.run("ip", "link", "set", "dev", "eth0", "xdpdrv", "pinned", pins / "xdp")
    weft = start(bare, {"xdp": "best-effort"})
    assert not weft.ctl_json("status")["uplinks"][0]["xdp"]
    assert "somebody else's XDP program is there" in weft.log()

    def check():
        assert f"prog/xdp id {theirs.id()} " in node.run("ip", "-d", "link", "show", "eth0").stdout

    assert reachable(bare)
    whole_life(bare, check)


def test_foreign_rules_routes_addresses_and_devices_are_as_they_were_afterwards(bare):
    node = bare.n1
    node.run("nft", "-f", "-", input=RULES)
    node.ip("route add 198.18.0.0/15 via 192.0.2.100 proto 42", "route add blackhole 198.51.100.128/25",
            "route add 10.244.200.0/24 via 192.0.2.12", "link add theirs0 type veth peer name theirs1",
            "addr add 198.18.0.1/32 dev theirs0", "addr add 192.0.2.77/32 dev eth0", "link set theirs0 up",
            "rule add fwmark 0x42 lookup 42 pref 1042", "neigh add 192.0.2.99 lladdr 02:00:00:00:00:99 dev eth0")
    node.sysctl("ipv4/ip_local_reserved_ports", "4444,30082")

    def theirs():
        return [node.run("nft", "list", "table", *table).stdout.split("counter")[0]
                for table in (("inet", "theirs"), ("ip", "theirs-nat"))] + [
            sorted(line for line in node.run("ip", *what).stdout.splitlines() if "weft" not in line and
                   "proto 119" not in line and "proto kernel" not in line)
            for what in (("route",), ("rule",), ("-br", "addr", "show", "theirs0"))]

    before, all_before = theirs(), host_state(node)
    start(bare)
    assert reachable(bare)
    assert "4444" in node.sysctl("ipv4/ip_local_reserved_ports")

    def check():
        assert theirs() == before

    whole_life(bare, check)
    after = host_state(node)
    for state in (all_before, after):
        state["rules"] = state["rules"].replace(" packets", "\n").split("counter")[0]
    assert after == all_before
    assert "02:00:00:00:00:99 PERMANENT" in node.run("ip", "neigh").stdout


# ---- order --------------------------------------------------------------------------------------


@needs_tcx
@pytest.mark.parametrize("order", ["first", "last"])
def test_the_place_among_foreign_tcx_programs_is_as_configured(bare, order):
    theirs = program(bare, "theirs")
    theirs.attach_tcx(bare.n1, "eth0", ingress=True)
    start(bare, {"tcx-order": order})
    programs = tcx_programs(bare.n1, "eth0", TCX_INGRESS)
    assert programs.index(theirs.id()) == (1 if order == "first" else 0)
    seen = theirs.count()
    assert all(tcp_who(bare.client, f.n1, f.far)[0] == "p2" for f in FAMILIES * 10)
    # Ten packets of each connection come in; what weft redirects goes past those behind it, but for ARP.
    assert (theirs.count() - seen > 100) == (order == "last")


@needs_tcx
def test_a_foreign_program_before_weft_may_keep_packets_from_it(bare):
    weft = start(bare)
    wall = program(bare, "wall", verdict=TC_ACT_SHOT)
    assert reachable(bare)
    wall.attach_tcx(bare.n1, "eth0", ingress=True, flags=BEFORE)
    with pytest.raises(TimeoutError):
        tcp_who(bare.client, IPV4.n1, IPV4.far, timeout=0.3)
    weft.ctl("reload")
    with pytest.raises(TimeoutError):
        tcp_who(bare.client, IPV4.n1, IPV4.far, timeout=0.3)


# ---- conflicts ----------------------------------------------------------------------------------


def conflicts(listing):
    return {row["what"]: row["remedy"] for row in listing["conflicts"]}


KUBE = """
table ip nat {
        chain KUBE-SERVICES { }
        chain KUBE-POSTROUTING { }
        chain POSTROUTING { type nat hook postrouting priority srcnat; jump KUBE-POSTROUTING; }
}
"""


def test_whoever_does_what_weft_does_is_named_with_a_remedy_and_left_alone(bare):
    node = bare.n1
    node.run("nft", "-f", "-", input=KUBE)
    node.ip("link add flannel.1 type vxlan id 1 dstport 8472 dev eth0", "link add cali123 type veth peer name peer",
            "link add cilium_host type bridge")
    cilium = program(bare, "cil_from_netdev")
    pins = bare.lab.directory / "theirs"
    pins.mkdir()
    node.run("mount", "-t", "bpf", "bpf", pins)
    cilium.pin(pins / "filter")
    node.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    node.run("tc", "filter", "add", "dev", "eth0", "egress", "bpf", "da", "object-pinned", pins / "filter")
    if has_tcx():
        cilium.attach_tcx(node, "eth0", ingress=True)
    with node.inside():
        squatter = socket.create_server(("0.0.0.0", IPV4.near))
    weft = start(bare)
    told, probed = conflicts(weft.ctl_json("status")), conflicts(weft.ctl_json("probe", "--module-dir", weft.module_dir))
    expected = ["kube-proxy: 2 chains such as KUBE-SERVICES, in table ip nat of nftables",
                "flannel: device flannel.1", "vxlan device flannel.1 has UDP port 8472", "Calico: device cali123",
                "Cilium: device cilium_host", "Cilium: program cil_from_netdev at eth0 (egress)"]
    if has_tcx():
        expected.append("Cilium: program cil_from_netdev at eth0 (tcx ingress)")
    for what in expected:
        assert len(told[what]) > 20 and what in weft.log(), told
        assert probed[what] == told[what]
    assert set(told) == set(expected)
    listening = f"python3 (pid {os.getpid()}) listens on"
    assert any(what.startswith(f"{listening} {IPV4.near}, the node port of service near-ipv4") for what in probed)
    reason = next(s["reason"] for s in weft.ctl_json("status")["services"] if s["name"] == "near-ipv4")
    assert reason.startswith(listening) and "node-port" in reason
    for text in (weft.ctl("status").stdout, weft.ctl("probe", "--module-dir", weft.module_dir).stdout):
        assert "KUBE-SERVICES" in text and "--cleanup" in text
    squatter.close()
    node.run("nft", "delete", "table", "ip", "nat")
    node.ip("link delete flannel.1")
    weft.ctl("reload")
    told = conflicts(weft.ctl_json("status"))
    assert not any("kube-proxy" in what or "flannel" in what for what in told)
    assert "Calico: device cali123" in told
