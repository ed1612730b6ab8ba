# SPDX-License-Identifier: LGPL-2.1-or-later
"""Endpoints in every way they can be given, and what is left when they go."""

import json
import re
import socket
import subprocess
import threading
import time

import pytest

from cluster import IPV4, IPV6
from conftest import make_cluster
from lab import PATIENCE, has_link_kind, run, wait_for
from traffic import Server, ping, tcp_who
from varlink import Client
from weft import BUILD, BUILD_SANITIZED


@pytest.fixture(scope="module")
def shared():
    made = make_cluster(BUILD_SANITIZED)
    made.client.ip("route add 10.244.1.0/24 via 192.0.2.11", "route add fd00:244:1::/64 via 2001:db8::11")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(shared):
    """The cluster with no endpoint but p1."""
    weft = shared.weft1
    yield shared
    if weft.process.poll() is not None:
        weft.start()
    names = [e["name"] for e in weft.ctl_json("endpoint", "list")["endpoints"] if e["runtime"]]
    if names:
        weft.ctl("endpoint", "del", *names)
    weft.check_log()


@pytest.fixture
def namespace(shared):
    """A namespace that ends with the test."""
    ns = shared.lab.namespace("extra")
    yield ns
    for process in ns.processes:
        process.kill()
        process.wait()
    ns.processes.clear()
    run("ip", "netns", "delete", ns.name, check=False)


def endpoint(weft, name):
    return weft.ctl_json("endpoint", "list", name)["endpoints"][0]


def host_side(cluster):
    """What of weft's the node has: devices, routes, forwarding."""
    links = json.loads(cluster.n1.run("ip", "-j", "link").stdout)
    routes = [cluster.n1.run("ip", f, "route", "show", "proto", "119").stdout for f in ("-4", "-6")]
    return sorted(link["ifname"] for link in links), [sorted(r.split("\n")) for r in routes]


def inside(ns):
    return {what: ns.run("ip", "-o", *what.split()).stdout.split("\n")
            for what in ("-4 route", "-6 route", "-4 neigh show nud permanent", "addr")}


@pytest.mark.parametrize("kind", ["veth", "netkit"])
def test_an_endpoint_added_at_run_time_is_reached_and_leaves_nothing_of_wefts_behind(cluster, namespace, kind):
    weft = cluster.weft1
    namespace.ip("link add keep type veth peer name keep2", "addr add 192.168.9.1/24 dev keep", "link set keep up",
                 "link set keep2 up")
    before, before_inside = host_side(cluster), inside(namespace)
    server = Server(namespace, "extra")
    try:
        weft.ctl("endpoint", "add", "extra", f"netns={namespace.path}", "address=10.244.1.77", "address=fd00:244:1::77",
                 "identity=1077", f"kind={kind}")
        made = endpoint(weft, "extra")
        instead = kind == "netkit" and not has_link_kind("netkit")
        device, = json.loads(namespace.run("ip", "-j", "-d", "link", "show", "eth0").stdout)
        assert device["linkinfo"]["info_kind"] == ("veth" if instead else kind)
        assert (f"ready on {made['interface']}, a veth: the kernel has no netkit" in weft.log()) == instead
        assert made["state"] == "ready" and made["addresses"] == ["10.244.1.77", "fd00:244:1::77"]
        for address in made["addresses"]:
            assert tcp_who(cluster.client, address, 8080)[0] == "extra"
            assert tcp_who(cluster.p1, address, 8080)[0] == "extra"
        weft.ctl("reload")
        weft.kill()
        assert tcp_who(cluster.client, "10.244.1.77", 8080)[0] == "extra"
        weft.start()
        assert {**endpoint(weft, "extra"), "ifindex": 0} == {**made, "ifindex": 0}
        assert tcp_who(cluster.client, "10.244.1.77", 8080)[0] == "extra"
    finally:
        server.close()
    weft.ctl("endpoint", "del", "extra")
    assert host_side(cluster) == before
    assert inside(namespace) == before_inside
    assert namespace.path.exists()


def test_an_endpoint_that_the_node_has_no_gateway_for_says_so_until_there_is_one(cluster, namespace):
    weft = cluster.weft1
    sections = cluster.sections(1, cluster.modules)
    node = next(keys for name, keys in sections if name == "node")
    four, six = node["pod-cidr"]
    try:
        node["pod-cidr"] = [four]
        weft.configure(sections)
        weft.ctl("reload")
        said = weft.ctl("endpoint", "add", "half", f"netns={namespace.path}", "address=10.244.1.78, fd00:244:1::78").stdout
        assert "half is ready: no default route for IPv6: add an IPv6 prefix to pod-cidr in [node]" in said
        assert "no default route for IPv6" in endpoint(weft, "half")["reason"]
        assert "endpoint half has no default route for IPv6" in weft.log()
        assert "default" in namespace.run("ip", "-4", "route").stdout
        assert "default" not in namespace.run("ip", "-6", "route").stdout
    finally:
        node["pod-cidr"] = [four, six]
        weft.configure(sections)
        weft.ctl("reload")
    assert "reason" not in endpoint(weft, "half")
    assert "default" in namespace.run("ip", "-6", "route").stdout
    assert tcp_who(namespace, IPV6.p2, 8080)[0] == "p2"


def test_lent_addresses_are_kept_over_restarts_and_free_after_removal(cluster, namespace):
    weft = cluster.weft1
    weft.ctl("endpoint", "add", "lent", f"netns={namespace.path}")
    lent = endpoint(weft, "lent")["addresses"]
    assert [":" in a for a in lent] == [False, True]
    assert all(ping(cluster.client, a) for a in lent)
    weft.kill()
    weft.start()
    assert endpoint(weft, "lent")["addresses"] == lent
    result = weft.ctl("endpoint", "add", "thief", "netns=/run/netns/none", f"address={lent[0]}", check=False)
    assert result.returncode == 1 and f"{lent[0]} is lent to [endpoint lent]" in result.stderr
    weft.ctl("endpoint", "del", "lent")
    assert (weft.root / "var/lib/weft/addresses").read_text() == ""
    weft.ctl("endpoint", "add", "next", f"netns={namespace.path}", f"address={lent[0]}")
    assert endpoint(weft, "next")["state"] == "ready"


def test_a_namespace_that_is_not_there_is_waited_for_and_one_made_anew_is_picked_up(cluster):
    weft, name = cluster.weft1, cluster.lab.prefix + "late"
    said = weft.ctl("endpoint", "add", "late", f"netns=/run/netns/{name}", "address=10.244.1.80").stdout
    assert "late is pending: " in said and name in said
    for _ in range(2):
        assert endpoint(weft, "late")["state"] == "pending"
        run("ip", "netns", "add", name)
        wait_for("the endpoint to be ready", lambda: endpoint(weft, "late")["state"] == "ready")
        assert ping(cluster.client, "10.244.1.80")
        run("ip", "netns", "delete", name)
        wait_for("the endpoint to be pending", lambda: endpoint(weft, "late")["state"] == "pending")


def test_an_endpoint_is_given_by_a_process_and_never_by_another_one_with_its_number(cluster, namespace):
    weft = cluster.weft1
    process = namespace.start("sleep", "1000")
    weft.ctl("endpoint", "add", "by-pid", f"pid={process.pid}", "address=10.244.1.81")
    assert endpoint(weft, "by-pid")["state"] == "ready" and ping(cluster.client, "10.244.1.81")
    weft.kill()
    path = weft.root / "var/lib/weft/objects/endpoint/by-pid.conf"
    text = path.read_text()
    assert f"pid = {process.pid} started=" in text
    path.write_text(text.replace("started=", "started=1"))  # what a reboot would make of it
    weft.start()
    gone = endpoint(weft, "by-pid")
    assert gone["state"] == "pending" and "another one has its number" in gone["reason"]
    assert not ping(cluster.client, "10.244.1.81", wait=1)
    weft.ctl("endpoint", "del", "by-pid")
    result = weft.ctl("endpoint", "add", "by-pid", "pid=4194303", check=False)
    assert result.returncode == 1 and "there is no process 4194303" in result.stderr


def add_veth(ns, inside):
    run("ip", "link", "add", "mine", "netns", ns.name, "type", "veth", "peer", "name", "eth0", "netns", inside.name)


def add_netkit(ns, inside):
    """In mode L3, which has no link-layer addresses: what the kernel takes by default."""
    ns.ip("link add mine type netkit")
    other = next(link["ifname"] for link in json.loads(ns.run("ip", "-j", "link", "show").stdout)
                 if link.get("link") == "mine")
    ns.ip(f"link set {other} netns {inside.name} name eth0")


@pytest.mark.parametrize("add", [add_veth] + [add_netkit] * has_link_kind("netkit"))
def test_an_endpoint_given_by_an_interface_keeps_it_when_it_goes(cluster, namespace, add):
    weft = cluster.weft1
    add(cluster.n1, namespace)
    try:
        cluster.n1.ip("link set mine up", "route add 10.244.1.82 dev mine")
        namespace.ip("addr add 10.244.1.82/32 dev eth0", "link set eth0 up", "route add 192.0.2.11 dev eth0",
                     "route add default via 192.0.2.11")
        before = cluster.n1.run("ip", "-o", "-d", "addr", "show", "mine").stdout
        weft.ctl("endpoint", "add", "given", "interface=mine", "address=10.244.1.82")
        made = endpoint(weft, "given")
        assert made["state"] == "ready" and made["interface"] == "mine"
        assert ping(cluster.client, "10.244.1.82")
        assert tcp_who(namespace, IPV4.p2, 8080)[:2] == ("p2", "10.244.1.82")
        assert tcp_who(namespace, IPV4.p1, 8080)[:2] == ("p1", "10.244.1.82")
        weft.ctl("endpoint", "del", "given")
        assert cluster.n1.run("ip", "-o", "-d", "addr", "show", "mine").stdout == before
        assert cluster.n1.sysctl("ipv4/conf/mine/forwarding") == "0"
        assert "dev mine" in cluster.n1.run("ip", "route", "show", "10.244.1.82").stdout
    finally:
        cluster.n1.ip("link del mine")


@pytest.mark.parametrize("settings, why", [
    (["netns=/proc/self/ns/net"], "the daemon's own network namespace"),
    (["netns=/proc/self/ns/mnt"], "is not a network namespace"),
    (["netns=/etc/passwd"], "is not a network namespace"),
    (["netns=/dev/tty"], "is not a network namespace"),
    (["interface=eth0", "address=10.244.1.90"], "is an uplink of this node"),
    (["interface=lo", "address=10.244.1.90"], "is not Ethernet"),
])
def test_what_is_no_endpoints_is_not_touched(cluster, settings, why):
    weft, before = cluster.weft1, host_side(cluster)
    said = weft.ctl("endpoint", "add", "bad", *settings).stdout
    assert "bad is pending: " in said and why in said
    assert host_side(cluster) == before
    assert tcp_who(cluster.client, IPV4.n1, IPV4.near)[0] == "p1"


# ---- many ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd():
    """A cluster whose first node has 200 namespaces without endpoints."""
    made = make_cluster(BUILD)
    names = [f"{made.lab.prefix}many{i}" for i in range(200)]
    try:
        run("ip", "-batch", "-", input="".join(f"netns add {name}\n" for name in names))
        made.p1_device = endpoint(made.weft1, "p1")["interface"]
        made.client.ip("route add 10.244.1.0/24 via 192.0.2.11")
        yield made, names
    finally:
        made.close()


def all_ready(weft):
    return all(e["state"] == "ready" for e in weft.ctl_json("endpoint", "list")["endpoints"])


def timed(what, f):
    start = time.monotonic()
    f()
    took = time.monotonic() - start
    print(f"{what}: {took:.2f} s")
    return took


@pytest.mark.timing
def test_two_hundred_endpoints_are_added_in_under_two_seconds_each_way(crowd):
    made, names = crowd
    weft = made.weft1
    assert timed("by the socket", lambda: weft.ctl("endpoint", "add", *settings_of(names))) < 2 * PATIENCE
    assert all_ready(weft)
    addresses = {a for e in weft.ctl_json("endpoint", "list")["endpoints"] for a in e["addresses"]}
    assert len(addresses) == 402
    assert ping(made.client, endpoint(weft, "e199")["addresses"][0])
    weft.kill()
    assert timed("a start that takes them over", weft.start) < 2 * PATIENCE
    assert all_ready(weft) and ping(made.client, endpoint(weft, "e0")["addresses"][0])
    weft.ctl("endpoint", "del", *[f"e{i}" for i in range(200)])
    assert not [name for name in host_side(made)[0] if name.startswith("weft")][1:]
    weft.drop_in("many", [(f"endpoint e{i}", {"netns": f"/run/netns/{name}"}) for i, name in enumerate(names)])
    assert timed("by files and a reload", lambda: weft.ctl("reload")) < 2 * PATIENCE
    assert all_ready(weft)
    weft.stop()
    weft.ctl("cleanup")
    assert timed("by files and a start from nothing", weft.start) < 2 * PATIENCE
    assert all_ready(weft) and ping(made.client, endpoint(weft, "e7")["addresses"][0])
    weft.drop_in("many", None)
    weft.ctl("reload")
    assert not left_of_many(made)


class Reader:
    """A client that reads all the time. waits: how long for each answer, in seconds; left: how many devices the
    node had when it came."""

    def __init__(self, made):
        self.made, self.client, self.stopping = made, Client(made.weft1.control), False
        self.waits, self.left = [], []
        self.thread = threading.Thread(target=self.read)

    def __enter__(self):
        self.thread.start()
        return self

    def read(self):
        while not self.stopping:
            start = time.monotonic()
            self.client.call("io.weft.Node.GetStatus")
            self.waits.append(time.monotonic() - start)
            self.left.append(devices(self.made.n1))
            time.sleep(0.005)  # the pace of its questions

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()
        self.client.close()
        print(f"{len(self.waits)} answers, the slowest after {max(self.waits):.3f} s, devices {self.left}")


def devices(ns):
    with ns.inside():
        return len(socket.if_nameindex())


def settings_of(names):
    return [word for i, name in enumerate(names) for word in (f"e{i}", f"netns=/run/netns/{name}")]


def left_of_many(made):
    """Devices, routes, pins and neighbours of endpoints on n1, but for what p1 has."""
    node, text = made.n1, []
    for words in (("link",), ("-4", "route"), ("-6", "route"), ("neigh", "show", "nud", "permanent")):
        text += node.run("ip", "-o", *words).stdout.splitlines()
    for kind in ("links", "filters"):
        text += [p.name for p in (made.weft1.bpffs / kind).iterdir()]
    return [line for line in text if re.search(r"weft[0-9a-f]{11}", line) and made.p1_device not in line]


@pytest.mark.timing
def test_while_two_hundred_go_others_are_answered_and_the_caller_when_they_are_gone(crowd):
    made, names = crowd
    weft = made.weft1
    weft.ctl("endpoint", "add", *settings_of(names))
    before = devices(made.n1)
    with Reader(made) as reader:
        took = timed("taking them away", lambda: weft.ctl("endpoint", "del", *[f"e{i}" for i in range(200)]))
        assert not left_of_many(made)
    assert any(before - 200 < left < before for left in reader.left)
    assert max(reader.waits) < max(0.25 * PATIENCE, 0.75 * took)


def test_a_daemon_that_dies_while_endpoints_go_has_a_successor_that_ends_it(crowd):
    made, names = crowd
    weft, half = made.weft1, None
    for _ in range(5):  # on a busy machine the end may come before the kill
        weft.ctl("endpoint", "add", *settings_of(names))
        before = devices(made.n1)
        with Client(weft.control) as caller:
            caller.send("io.weft.Node.RemoveEndpoints", {"names": [f"e{i}" for i in range(200)]})
            wait_for("some to be gone", lambda: devices(made.n1) < before, step=0)
            weft.kill()
            half = left_of_many(made)
            assert not half or caller.receive() is None  # no answer: it was not done
        weft.start()
        assert [e["name"] for e in weft.ctl_json("endpoint", "list")["endpoints"]] == ["p1"]
        assert not left_of_many(made)
        if half:
            break
    assert half
    assert tcp_who(made.client, IPV4.n1, IPV4.near)[0] == "p1"


def test_names_addresses_and_namespaces_of_endpoints_on_their_way_out_are_free(crowd):
    made, names = crowd
    weft = made.weft1
    weft.ctl("endpoint", "add", *settings_of(names))
    address = endpoint(weft, "e199")["addresses"][0]
    wanted = [{"name": "e198", "settings": [{"key": "netns", "value": f"/run/netns/{names[5]}"}]},
              {"name": "new", "settings": [{"key": "netns", "value": f"/run/netns/{names[199]}"},
                                           {"key": "address", "value": address}]}]
    with Client(weft.control) as one, Client(weft.control) as other:
        one.send("io.weft.Node.RemoveEndpoints", {"names": [f"e{i}" for i in range(200)]})
        other.send("io.weft.Node.AddEndpoints", {"endpoints": wanted})
        assert [e["state"] for e in other.receive()["parameters"]["endpoints"]] == ["ready", "ready"]
        one.receive()
    assert ping(made.client, address) and ping(made.client, endpoint(weft, "e198")["addresses"][0])
    weft.ctl("endpoint", "del", "e198", "new")
    assert not left_of_many(made)
    weft.stop()
    weft.start()
