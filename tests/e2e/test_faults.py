# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to a node under traffic, fault by fault: what was established goes on or comes back by itself.

The nodes' addresses and uplinks are not configured: they follow the node. Those that cost a daemon of their
own are in other files: killed at any moment in test_life.py and test_daemon.py, a full flow table in
test_network.py."""

import json
import socket
import struct

import pytest

from cluster import FAMILIES, IPV4, IPV6
from conftest import make_cluster
from lab import run, wait_for
from packets import attached
from test_life import ATTACH
from traffic import Echo, Server, download, tcp_who, udp_who, upload
from weft import BUILD_SANITIZED

PORTS = [(f, port, pod) for f in FAMILIES for port, pod in ((f.near, "p1"), (f.far, "p2"))]


def forget_places(cluster):
    """Lets node 1 find out its addresses and uplinks by itself."""
    keys = dict(cluster.sections(1, cluster.modules))
    del keys["node"]["address"], keys["node"]["uplink"]
    cluster.weft1.configure(list(keys.items()))
    cluster.weft1.ctl("reload")


@pytest.fixture(scope="module", params=[True, False], ids=["host-routing", "stack"])
def cluster(request):
    made = make_cluster(BUILD_SANITIZED, host_routing=request.param)
    try:
        forget_places(made)
        made.lab.on_close(Server(made.client, "client", tcp=7003, udp=7004).close)
        yield made
        made.weft1.stop()
    finally:
        made.close()


@pytest.fixture
def echoes(cluster):
    """Established connections over node 1: through node ports, straight to its pod, and out of it."""
    made = [Echo(cluster.client, f.n1, port) for f, port, _ in PORTS]
    made += [Echo(cluster.client, f.p1, 8080) for f in FAMILIES]
    made += [Echo(cluster.p1, f.client, 7003) for f in FAMILIES]
    yield made
    for echo in made:
        echo.close()


def all_alive(echoes):
    return all(echo.alive() for echo in echoes)


def answers(cluster, address, port):
    try:
        return tcp_who(cluster.client, address, port, timeout=1)[0]
    except OSError:
        return None


def serves(cluster):
    return all(answers(cluster, f.n1, port) == pod for f, port, pod in PORTS)


def status(cluster):
    return cluster.weft1.ctl_json("status")


def default_routes(cluster, device="eth0"):
    """The kernel forgets them with the link; a network manager makes them again."""
    cluster.n1.ip(*(f"route replace default via {f.client} dev {device}" for f in FAMILIES))


def uplink(cluster, name="eth0"):
    return next((u for u in status(cluster)["uplinks"] if u["name"] == name), {"ifindex": 0, "addresses": []})


# ---- the uplink ---------------------------------------------------------------------------------


def test_connections_outlive_a_link_that_goes_down_and_up(cluster, echoes):
    node = cluster.n1
    node.ip("link set eth0 down")
    wait_for("no service", lambda: not answers(cluster, IPV4.n1, IPV4.near))
    node.ip("link set eth0 up", f"addr replace {IPV6.n1}/64 dev eth0")
    default_routes(cluster)
    assert all_alive(echoes)
    wait_for("service", lambda: serves(cluster))


def test_connections_outlive_a_loss_of_carrier(cluster, echoes):
    switch = cluster.lab["switch"]
    switch.ip("link set to-n1 down")
    wait_for("no service", lambda: not answers(cluster, IPV4.n1, IPV4.near))
    switch.ip("link set to-n1 up")
    assert all_alive(echoes)
    wait_for("service", lambda: serves(cluster))


@pytest.mark.timing  # its addresses come back within three seconds
def test_connections_outlive_an_uplink_that_was_deleted_and_made_again(cluster, echoes):
    node = cluster.n1
    node.run("ip", "link", "delete", "eth0")
    wait_for("the uplink to be missing", lambda: not uplink(cluster)["ifindex"])
    cluster.lab.plug(cluster.lab["switch"], node)
    node.ip(f"addr add {IPV4.n1}/24 dev eth0", f"addr add {IPV6.n1}/64 dev eth0")
    default_routes(cluster)
    for other in (cluster.client, cluster.n2):
        other.run("ip", "neigh", "flush", "all")  # the new device has another link-layer address
    wait_for("the uplink's addresses", lambda: len(uplink(cluster)["addresses"]) == 2)
    assert all_alive(echoes)
    wait_for("service", lambda: serves(cluster))


def test_an_uplink_that_was_renamed_is_hooked_once_and_carries_on(cluster, echoes):
    node = cluster.n1
    for old, new in (("eth0", "wan0"), ("wan0", "eth0")):
        node.ip(f"link set {old} down", f"link set {old} name {new}", f"link set {new} up",
                f"addr replace {IPV6.n1}/64 dev {new}")
        default_routes(cluster, new)
        wait_for("the uplink's new name", lambda: uplink(cluster, new)["ifindex"])
        wait_for("its programs, once", lambda: attached(node, new) == [1, 1])
        assert all_alive(echoes)
        assert serves(cluster)


def test_new_connections_leave_by_the_uplink_that_the_default_route_moved_to(cluster, echoes):
    node, client, lab = cluster.n1, cluster.client, cluster.lab
    lab.cable(node, "eth1", client, "eth1")
    node.ip("addr add 192.0.3.11/24 dev eth1", "addr add 2001:db8:3::11/64 dev eth1")
    client.ip("addr add 192.0.3.100/24 dev eth1", "addr add 2001:db8:3::100/64 dev eth1",
              "addr add 203.0.113.200/32 dev lo", "addr add 2001:db8:fffe::200/128 dev lo")
    outside = {"203.0.113.200": (IPV4.n1, "192.0.3.11"), "2001:db8:fffe::200": (IPV6.n1, "2001:db8:3::11")}
    for address, (first, _) in outside.items():
        assert tcp_who(cluster.p1, address, 7003)[1] == first
    node.ip("route replace default via 192.0.3.100 dev eth1", "route replace default via 2001:db8:3::100 dev eth1")
    wait_for("the second uplink", lambda: "192.0.3.11" in uplink(cluster, "eth1")["addresses"])
    for address, (_, second) in outside.items():
        wait_for("the way over it", lambda: tcp_who(cluster.p1, address, 7003)[1] == second)
    assert all_alive(echoes)
    assert serves(cluster)
    for address, port in (("192.0.3.11", IPV4.far), ("2001:db8:3::11", IPV6.far)):
        wait_for("node ports there, too", lambda: answers(cluster, address, port) == "p2")
    default_routes(cluster)
    for address, (first, _) in outside.items():
        wait_for("the way back", lambda: tcp_who(cluster.p1, address, 7003)[1] == first)
    node.ip("link delete eth1")
    assert all_alive(echoes)


def test_an_address_that_changes_takes_the_node_ports_with_it_and_ends_nothing_else(cluster, echoes):
    node = cluster.n1
    straight = echoes[len(PORTS):len(PORTS) + len(FAMILIES)]  # to the pod's own address
    unborne = straight + [e for e, (_, _, pod) in zip(echoes, PORTS) if pod == "p1"]  # no reply goes to the node
    cluster.client.ip(f"route replace {IPV4.p1} via 192.0.2.21", f"route replace {IPV6.p1} via 2001:db8::21")
    node.ip("addr add 192.0.2.21/24 dev eth0", "addr add 2001:db8::21/64 dev eth0",
            f"addr delete {IPV4.n1}/24 dev eth0", f"addr delete {IPV6.n1}/64 dev eth0",
            "addr replace 192.0.2.21/24 dev eth0", "addr replace 2001:db8::21/64 dev eth0")
    default_routes(cluster)
    wait_for("the new addresses", lambda: set(status(cluster)["addresses"]) == {"192.0.2.21", "2001:db8::21"})
    assert all_alive(straight)
    for address, family in (("192.0.2.21", IPV4), ("2001:db8::21", IPV6)):
        wait_for("the new address's node port", lambda: answers(cluster, address, family.far) == "p2")
        assert not answers(cluster, getattr(family, "n1"), family.far)
    node.ip(f"addr add {IPV4.n1}/24 dev eth0", f"addr add {IPV6.n1}/64 dev eth0",
            "addr delete 192.0.2.21/24 dev eth0", "addr delete 2001:db8::21/64 dev eth0",
            f"addr replace {IPV4.n1}/24 dev eth0", f"addr replace {IPV6.n1}/64 dev eth0")
    default_routes(cluster)
    cluster.client.ip(*(f"route replace {f.p1} via {f.n1}" for f in FAMILIES))
    wait_for("the old addresses", lambda: set(status(cluster)["addresses"]) == {IPV4.n1, IPV6.n1})
    wait_for("service", lambda: serves(cluster))
    assert all_alive(unborne), "the others end when the address has been away for some seconds"


def test_connections_outlive_a_change_of_the_uplinks_mtu(cluster, echoes):
    for mtu in (1300, 9000, 1500):
        cluster.n1.ip(f"link set eth0 mtu {mtu}")
        wait_for("the mtu", lambda: uplink(cluster)["mtu"] == mtu)
        assert all_alive(echoes)
        if mtu <= 1500:
            for f in FAMILIES:
                assert upload(cluster.p1, f.client, 7003, 1 << 20)
                assert download(cluster.client, f.n1, f.far, 1 << 20)


# ---- tables -------------------------------------------------------------------------------------


def age_flows(weft, port):
    """Ends the lives of all IPv4 flows with that port, as if their time had passed."""
    path = weft.bpffs / "maps/flows4"
    for row in json.loads(run("bpftool", "--json", "map", "dump", "pinned", path).stdout):
        key, value = (bytes(int(byte, 16) for byte in row[what]) for what in ("key", "value"))
        told = row["formatted"]["value"]["f"]
        if struct.pack("!H", port) not in key + value:
            continue
        value = value.replace(struct.pack("<Q", told["deadline"]), struct.pack("<Q", told["created"]), 1)
        run("bpftool", "map", "update", "pinned", path, "key", *(str(b) for b in key),
            "value", *(str(b) for b in value), "exist")


def test_ports_that_are_used_up_are_counted_and_recover_as_flows_end(cluster):
    weft = cluster.weft1
    weft.drop_in("few", [("module nodeport-snat", {"snat-ports": "61000-61003"})])
    weft.ctl("reload")
    clients = [udp_client(cluster, IPV4.far_udp) for _ in range(4)]
    before = weft.drops("PORTS_EXHAUSTED")
    with pytest.raises(TimeoutError):
        udp_who(cluster.client, IPV4.n1, IPV4.far_udp, timeout=0.2, tries=1)
    assert weft.drops("PORTS_EXHAUSTED") > before
    assert all(asks(one) for one in clients), "who has a port keeps it"
    age_flows(weft, 5353)
    assert udp_who(cluster.client, IPV4.n1, IPV4.far_udp)[0] == "p2"
    for one in clients:
        one.close()
    weft.drop_in("few", None)
    weft.ctl("reload")


def udp_client(cluster, port):
    with cluster.client.inside():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(5)
    one.connect((IPV4.n1, port))
    assert asks(one)
    return one


def asks(one):
    one.send(b"who")
    return one.recv(100).startswith(b"p2 ")


# ---- sysctls and routes that somebody else changes ----------------------------------------------


@pytest.mark.parametrize("settings", [
    ["ipv4/ip_forward=1", "ipv4/ip_forward=0"],
    ["ipv4/conf/eth0/forwarding=0"],
    ["ipv6/conf/all/forwarding=1", "ipv6/conf/all/forwarding=0"],
], ids=lambda settings: settings[-1])
def test_forwarding_that_somebody_switched_off_is_switched_on_again(cluster, echoes, settings):
    node, said = cluster.n1, len(cluster.weft1.log())
    for setting in settings:
        key, value = setting.split("=")
        node.sysctl(key, value)
    family = settings[0][:4]
    wait_for("forwarding", lambda: node.sysctl(f"{family}/conf/eth0/forwarding") == "1")
    assert all_alive(echoes)
    wait_for("service", lambda: serves(cluster))
    assert "somebody else had changed: /proc/sys/net/" in cluster.weft1.log()[said:]


def test_reserved_ports_that_somebody_overwrote_are_reserved_again_beside_theirs(cluster):
    node = cluster.n1
    assert "30080" in node.sysctl("ipv4/ip_local_reserved_ports")
    node.sysctl("ipv4/ip_local_reserved_ports", "4444")
    wait_for("the node ports", lambda: "30080-30082" in node.sysctl("ipv4/ip_local_reserved_ports"), 15, step=0.2)
    assert node.sysctl("ipv4/ip_local_reserved_ports").startswith("4444,")
    node.sysctl("ipv4/ip_local_reserved_ports", node.sysctl("ipv4/ip_local_reserved_ports")[5:])


def test_routes_of_weft_that_somebody_deleted_come_back(cluster, echoes):
    """As systemd-networkd does with routes that it did not make."""
    node = cluster.n1

    def routes():
        return [sorted(node.run("ip", version, "route", "show", "proto", "119").stdout.splitlines())
                for version in ("-4", "-6")]

    before = routes()
    assert all(before)
    for version in ("-4", "-6"):
        node.run("ip", version, "route", "flush", "proto", "119")
    wait_for("weft's routes", lambda: routes() == before)
    assert all_alive(echoes)
    assert serves(cluster)


# ---- what weft made, changed by somebody --------------------------------------------------------


def test_an_endpoints_device_that_was_down_serves_again_when_it_is_up(cluster, echoes):
    node, device = cluster.n1, status(cluster)["endpoints"][0]["interface"]
    node.ip(f"link set {device} down")
    wait_for("no service", lambda: not answers(cluster, IPV4.n1, IPV4.near))
    node.ip(f"link set {device} up")
    wait_for("service", lambda: serves(cluster))
    wait_for("the node's own way to it", lambda: IPV4.p1 in node.run("ip", "route").stdout)
    assert tcp_who(node, IPV4.p1, 8080)[0] == "p1" and tcp_who(node, IPV6.p1, 8080)[0] == "p1"
    assert all_alive(echoes)


@pytest.mark.parametrize("attach", ATTACH)
def test_hooks_that_somebody_detached_are_attached_again(attach):
    cluster = make_cluster(BUILD_SANITIZED, {"debug-attach": attach})
    try:
        node, weft, echo = cluster.n1, cluster.weft1, Echo(cluster.client, IPV4.n1, IPV4.far)
        if attach == "clsact":
            node.run("tc", "qdisc", "delete", "dev", "eth0", "clsact")
        for path in (weft.bpffs / "links").glob("eth0-*"):
            run("bpftool", "link", "detach", "pinned", path)
        assert attached(node, "eth0") == [0, 0]
        wait_for("the hooks", lambda: attached(node, "eth0") == [1, 1], 15, step=0.2)
        assert echo.alive()
        assert serves(cluster)
        assert "programs of weft at eth0 were detached" in weft.log()
        weft.stop()
    finally:
        cluster.close()
