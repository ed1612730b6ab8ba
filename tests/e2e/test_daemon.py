# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon does when the node around it changes, and when it is killed in the middle of it."""

import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from cluster import FAMILIES, IPV4, IPV6, Cluster, standard_modules
from conftest import make_cluster
from lab import run, wait_for
from test_life import ATTACH, host_state, pins, reachable
from traffic import Echo, Server, tcp_who
from weft import BUILD_SANITIZED, Weft


@pytest.fixture
def cluster():
    made = make_cluster(BUILD_SANITIZED)
    try:
        yield made
    finally:
        made.close()


def sections(cluster, change=None):
    """Node 1's configuration; change: called with the keys by section."""
    result = cluster.sections(1, standard_modules())
    if change:
        change(dict(result))
    return result


def endpoint(cluster):
    return cluster.weft1.ctl_json("status")["endpoints"][0]


def service(cluster, name):
    return next(s for s in cluster.weft1.ctl_json("status")["services"] if s["name"] == name)


def wait_until_ready(cluster):
    wait_for("the endpoint to be ready", lambda: endpoint(cluster)["state"] == "ready")


# ---- node ports ---------------------------------------------------------------------------------


def test_a_node_port_outside_the_modules_range_is_refused_with_its_place_and_the_range(cluster):
    weft = cluster.weft1
    weft.drop_in("far", [("service far-out", {"port": "80/tcp", "node-port": 8080})])
    result = weft.ctl("reload", check=False)
    assert result.returncode == 1
    assert "conf.d/far.conf:3: [service far-out] node-port = 8080: " in result.stderr
    assert "30000-32767" in result.stderr
    weft.drop_in("wide", [("module nodeport-snat", {"port-range": "8000-32767"})])
    weft.ctl("reload")
    assert reachable(cluster)


def test_node_ports_in_use_are_reserved_beside_foreign_ones_and_given_back(cluster):
    weft, node = cluster.weft1, cluster.n1
    reserved = node.sysctl("ipv4/ip_local_reserved_ports").split(",")
    assert "30053-30054" in reserved and "30080-30082" in reserved
    weft.drop_in("more", [("service more", {"port": "80/tcp", "node-port": 30083})])
    weft.ctl("reload")
    assert "30080-30083" in node.sysctl("ipv4/ip_local_reserved_ports")
    weft.drop_in("more", [("module nodeport-snat", {"enabled": "no"})])
    weft.ctl("reload")
    assert node.sysctl("ipv4/ip_local_reserved_ports") == ""


def test_a_program_of_the_node_that_listens_on_a_node_port_is_reported(cluster):
    weft = cluster.weft1
    assert "reason" not in service(cluster, "near-ipv4")
    with cluster.n1.inside():
        everywhere = socket.create_server(("0.0.0.0", IPV4.near))
        inward = socket.create_server(("127.0.0.1", IPV4.far))
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.bind((IPV6.n1, IPV6.dns))
    with everywhere, inward, datagrams:
        assert "0.0.0.0" in service(cluster, "near-ipv4")["reason"]
        assert IPV6.n1 in service(cluster, "dns-ipv6")["reason"]
        assert "reason" not in service(cluster, "far-ipv4")
        assert f"listens on port {IPV4.near} of 0.0.0.0" in weft.log()
        assert tcp_who(cluster.client, IPV4.n1, IPV4.near)[0] == "p1"
    assert "reason" not in service(cluster, "near-ipv4")


# ---- endpoints ----------------------------------------------------------------------------------


def test_an_endpoints_device_that_was_deleted_is_made_again(cluster):
    before = endpoint(cluster)
    cluster.n1.run("ip", "link", "delete", before["interface"])
    wait_for("a new device", lambda: endpoint(cluster).get("ifindex", before["ifindex"]) != before["ifindex"])
    wait_until_ready(cluster)
    assert endpoint(cluster)["addresses"] == before["addresses"]
    assert reachable(cluster)


def test_a_namespace_that_was_replaced_is_followed_while_the_old_one_lives_on(cluster):
    run("umount", cluster.p1.path)
    os.unlink(cluster.p1.path)
    run("ip", "netns", "add", cluster.p1.name)
    wait_for("the address in the new namespace",
             lambda: IPV4.p1 in cluster.p1.run("ip", "-brief", "address").stdout)
    wait_until_ready(cluster)
    cluster.lab.on_close(Server(cluster.p1, "new").close)
    assert tcp_who(cluster.client, IPV4.n1, IPV4.near)[0] == "new"


def test_an_endpoint_that_lost_its_namespace_says_so_and_comes_back():
    with Cluster() as cluster:
        cluster.weft(standard_modules(), build=BUILD_SANITIZED)
        run("ip", "netns", "delete", cluster.p1.name)
        wait_for("the endpoint to be pending", lambda: endpoint(cluster)["state"] == "pending")
        assert endpoint(cluster)["reason"]
        assert IPV4.p1 not in cluster.n1.run("ip", "route").stdout
        run("ip", "netns", "add", cluster.p1.name)
        wait_until_ready(cluster)
        cluster.lab.on_close(Server(cluster.p1, "p1").close)
        assert tcp_who(cluster.client, IPV6.n1, IPV6.near)[0] == "p1"
        cluster.weft1.stop()


def test_an_endpoint_whose_namespace_has_no_name_any_more_is_switched_with_the_others(cluster):
    echo = Echo(cluster.client, IPV4.n1, IPV4.near)
    run("umount", cluster.p1.path)
    os.unlink(cluster.p1.path)
    for _ in range(2):  # the first finds it pending, the second takes the first one's programs away
        cluster.weft1.ctl("reload")
        assert endpoint(cluster)["state"] == "pending"
        assert echo.alive()
        assert reachable(cluster)


def join(cluster, pod):
    """A pod whose device somebody else made: address, routes and neighbours by hand."""
    node = cluster.n1
    cluster.lab.cable(node, "theirs", pod, "eth0")
    macs = {ns: json.loads(ns.run("ip", "--json", "link", "show", device).stdout)[0]["address"]
            for ns, device in ((node, "theirs"), (pod, "eth0"))}
    pod.ip("addr add 10.244.1.50/32 dev eth0", "route add 10.244.1.1 dev eth0",
           "route add default via 10.244.1.1", f"neigh replace 10.244.1.1 lladdr {macs[node]} dev eth0")
    node.ip("route add 10.244.1.50 dev theirs", f"neigh replace 10.244.1.50 lladdr {macs[pod]} dev theirs")


def test_a_device_that_weft_did_not_make_is_served_again_when_it_comes_back(cluster):
    weft, node, pod = cluster.weft1, cluster.n1, cluster.lab.namespace("guest")
    join(cluster, pod)
    weft.drop_in("guest", [
        ("endpoint guest", {"interface": "theirs", "address": "10.244.1.50"}),
        ("service guest", {"port": "81/tcp", "node-port": 30500, "backend": "10.244.1.50:8080"})])
    weft.ctl("reload")
    cluster.lab.on_close(Server(pod, "guest").close)
    assert tcp_who(cluster.client, IPV4.n1, 30500)[0] == "guest"
    node.run("ip", "link", "delete", "theirs")
    wait_for("the endpoint to be pending", lambda: guest(weft)["state"] == "pending")
    join(cluster, pod)
    wait_for("the endpoint to be ready", lambda: guest(weft)["state"] == "ready")
    assert tcp_who(cluster.client, IPV4.n1, 30500)[0] == "guest"
    weft.drop_in("guest", None)
    weft.ctl("reload")
    assert node.sysctl("ipv4/conf/theirs/forwarding") == "0"
    assert "10.244.1.50" in node.run("ip", "route").stdout, "what weft did not make stays"


def guest(weft):
    return next(e for e in weft.ctl_json("status")["endpoints"] if e["name"] == "guest")


def test_a_reload_repairs_what_was_changed_inside_an_endpoint(cluster):
    cluster.p1.run("ip", "neigh", "flush", "nud", "permanent", "dev", "eth0")
    cluster.p1.run("ip", "addr", "flush", "dev", "eth0")  # the IPv4 routes go with them
    cluster.p1.run("ip", "-6", "route", "flush", "dev", "eth0")
    assert not answers(cluster, IPV4.n1, IPV4.near) and not answers(cluster, IPV6.n1, IPV6.near)
    cluster.weft1.ctl("reload")
    assert reachable(cluster)


def test_an_endpoints_address_changes_in_place(cluster):
    def move(keys):
        keys["endpoint p1"]["address"] = ["10.244.1.77", IPV6.p1]

    before, echo = endpoint(cluster), Echo(cluster.client, IPV6.n1, IPV6.near)
    cluster.weft1.configure(sections(cluster, move))
    cluster.weft1.ctl("reload")
    assert endpoint(cluster)["ifindex"] == before["ifindex"]
    assert endpoint(cluster)["addresses"] == ["10.244.1.77", IPV6.p1]
    addresses = cluster.p1.run("ip", "-brief", "address", "show", "dev", "eth0").stdout
    assert "10.244.1.77/32" in addresses and IPV4.p1 not in addresses
    assert echo.alive()


def test_endpoints_follow_the_uplinks_mtu(cluster):
    for mtu in (1400, 1500):
        cluster.n1.ip(f"link set eth0 mtu {mtu}")
        for version in ("-4", "-6"):
            wait_for(f"mtu {mtu} on the default route", lambda: f"mtu {mtu}" in cluster.p1.run(
                "ip", version, "route", "show", "default").stdout)
    assert reachable(cluster)


# ---- uplinks ------------------------------------------------------------------------------------


def served_addresses(weft):
    """The first words of every key of the services table: addresses."""
    rows = json.loads(run("bpftool", "--json", "map", "dump", "pinned", weft.bpffs / "maps/services").stdout)
    keys = (bytes(int(byte, 16) for byte in row["key"]) for row in rows)
    return {socket.inet_ntop(socket.AF_INET6, key[:16]).removeprefix("::ffff:") for key in keys}


def test_node_ports_move_with_the_uplinks_addresses(cluster):
    weft = cluster.weft1
    weft.configure(sections(cluster, lambda keys: keys["node"].pop("address")))
    weft.ctl("reload")
    assert {IPV4.n1, IPV6.n1} <= served_addresses(weft)
    cluster.n1.ip(f"addr delete {IPV4.n1}/24 dev eth0", "addr add 192.0.2.21/24 dev eth0",
                  f"route add default via {IPV4.client}",
                  f"addr delete {IPV6.n1}/64 dev eth0", "addr add 2001:db8::21/64 dev eth0")
    wait_for("the new addresses",
             lambda: weft.ctl_json("status")["addresses"] == ["192.0.2.21", "2001:db8::21"])
    served = served_addresses(weft)
    assert {"192.0.2.21", "2001:db8::21"} <= served
    assert not {IPV4.n1, IPV6.n1} & served
    for address, port in (("192.0.2.21", IPV4.far), ("2001:db8::21", IPV6.far)):
        assert tcp_who(cluster.client, address, port)[0] == "p2"


def test_an_uplink_that_was_deleted_and_made_again_carries_traffic(cluster):
    node, switch = cluster.n1, cluster.lab["switch"]
    node.run("ip", "link", "delete", "eth0")
    wait_for("the uplink to be missing", lambda: not cluster.weft1.ctl_json("status")["uplinks"][0]["ifindex"])
    cluster.lab.plug(switch, node)
    node.ip(f"addr add {IPV4.n1}/24 dev eth0", f"addr add {IPV6.n1}/64 dev eth0",
            *(f"route add default via {f.client}" for f in FAMILIES))
    for other in (cluster.client, cluster.n2):
        other.run("ip", "neigh", "flush", "all")  # the new device has another link-layer address
    wait_for("the uplink to be there", lambda: cluster.weft1.ctl_json("status")["uplinks"][0]["ifindex"])
    wait_for("traffic", lambda: all(answers(cluster, f.n1, p) for f in FAMILIES for p in (f.near, f.far)))


def answers(cluster, address, port):
    try:
        return tcp_who(cluster.client, address, port, timeout=1)
    except OSError:
        return False


# ---- churn --------------------------------------------------------------------------------------


class Churn:
    """About a thousand changes a second on a node, evenly, until it is stopped."""

    def __init__(self, node, lines):
        self.lines, self.done, self.end = lines, 0, threading.Event()
        self.process = subprocess.Popen(node.command("ip", "-batch", "-"), stdin=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.feed)
        self.thread.start()

    def feed(self):
        while not self.end.wait(0.01):
            for _ in range(10):
                self.process.stdin.write(self.lines[self.done % len(self.lines)] + "\n")
                self.done += 1
            self.process.stdin.flush()

    def stop(self):
        self.end.set()
        self.thread.join()
        self.process.stdin.close()
        assert self.process.wait(10) == 0


def world_epoch(weft):
    row, = json.loads(run("bpftool", "--json", "map", "dump", "pinned", weft.bpffs / "maps/world").stdout)
    return int.from_bytes(bytes(int(byte, 16) for byte in row["value"][:4]), "little")


@pytest.mark.timing
@pytest.mark.parametrize("change", ["addr {} 10.99.{}.{}/32 dev lo", "route {} 10.99.{}.{}/32 dev lo",
                                    "route {} 192.0.2.100/32 dev eth0"])
def test_a_thousand_changes_a_second_neither_starve_the_daemon_nor_move_the_epoch_often(cluster, change):
    weft, echo = cluster.weft1, Echo(cluster.client, IPV4.n1, IPV4.far)
    lines = [change.format(verb, i // 256, i % 256) for i in range(500) for verb in ("add", "del")]
    churn = Churn(cluster.n1, lines)
    before, begin, slowest = world_epoch(weft), time.monotonic(), 0
    try:
        while time.monotonic() < begin + 3:
            asked = time.monotonic()
            weft.ctl("status")
            slowest = max(slowest, time.monotonic() - asked)
            assert echo.alive()
    finally:
        churn.stop()
    moved, seconds = world_epoch(weft) - before, time.monotonic() - begin
    assert churn.done > 200 * seconds, "too few changes to show anything"
    assert slowest < 2
    assert 1 <= moved <= 10 * seconds + 1


# ---- its life -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attach", ATTACH)
def test_killed_at_any_moment_of_its_start_it_leaves_what_a_start_or_cleanup_can_deal_with(attach):
    moments = 12
    with Cluster() as cluster:
        before = host_state(cluster.n1)
        weft = Weft(cluster.lab, cluster.n1, "n1", BUILD_SANITIZED)
        weft.configure(cluster.sections(1, standard_modules(), {"debug-attach": attach}))
        begin = time.monotonic()
        weft.start()
        length = time.monotonic() - begin
        weft.kill()
        for i in range(moments):
            with open(weft.log_path, "ab") as log:
                process = cluster.n1.start(*weft.command(), stdout=log, stderr=log)
            time.sleep(length * i / moments)  # the moment is what is tested
            process.send_signal(signal.SIGKILL)
            process.wait()
            if i % 3 == 0:
                weft.start()
                assert weft.ctl_json("status")["endpoints"][0]["state"] == "ready"
                weft.kill()
            weft.ctl("cleanup")
            assert host_state(cluster.n1) == before
            assert not pins(weft)
            assert not (weft.root / "run/weft").exists()
        weft.check_log()


def test_a_second_daemon_is_refused_whether_it_shares_the_root_or_the_pins(cluster):
    weft = cluster.weft1
    again = run(*weft.ns.command(*weft.command()), check=False)
    assert again.returncode == 1
    assert f"another weftd (pid {weft.process.pid})" in again.stderr
    other = cluster.lab.directory / "other"
    (other / "etc/weft").mkdir(parents=True)
    again = run(*weft.ns.command(weft.build / "core/weftd", "--root", other, "--bpffs", weft.bpffs), check=False)
    assert again.returncode == 1
    assert f"another weftd has its pins in {weft.bpffs}" in again.stderr
    assert reachable(cluster)


def test_cleanup_stops_a_daemon_that_runs(cluster):
    weft = cluster.weft1
    said = weft.ctl("cleanup").stdout
    assert said.startswith(f"stopped weftd (pid {weft.process.pid})")
    assert weft.process.wait(10) == 0
    assert not pins(weft)
    weft.check_log()


def test_without_a_module_it_says_what_to_write():
    with Cluster() as cluster:
        cluster.weft({}, {"mode": "partial"}, build=BUILD_SANITIZED)
        weft = cluster.weft1
        assert "no module is chosen" in weft.log() and "[module NAME]" in weft.log()
        assert "nodeport-snat" in weft.log(), "the installed ones are named"
        assert "no module is chosen" in weft.ctl("status").stdout
        assert cluster.n1.sysctl("ipv4/ip_local_reserved_ports") == ""
        weft.stop()
