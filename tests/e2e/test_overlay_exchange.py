# SPDX-License-Identifier: LGPL-2.1-or-later
"""One tunnel module in the place of the other on both nodes, under load: what lives on, and what is left.
WEFT_EXCHANGES says how many times there and back."""

import ctypes
import os
import re
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cluster import FAMILIES, IPV4, IPV6, Cluster
from conftest import start_servers
from lab import libc, wait_for
from load import Load
from packets import SYS_BPF
from test_life import pins
from traffic import Echo, Server, tcp_who, udp_who, upload
from weft import Weft

EXCHANGES = int(os.environ.get("WEFT_EXCHANGES", 1))
MODULES = {"nodeport-snat": {}, "bpf-masq": {"ipv6": "yes"}, "host-routing": {}}
# the module and mode at the beginning, the underlay; the other one is geneve, mode = bpf
WAYS = [("bpf", "ipv4"), ("device", "ipv6")]
if EXCHANGES > 1:
    WAYS += [("bpf", "ipv6"), ("device", "ipv4")]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"vxlan-{way[0]}-over-{way[1]}")
def cluster(request):
    mode, underlay = request.param
    with Cluster() as made:
        made.kinds = [("vxlan", mode), ("geneve", "bpf")]
        for number in (1, 2):
            weft = Weft(made.lab, getattr(made, f"n{number}"), f"n{number}")
            weft.configure(made.sections(number, MODULES, {"underlay": underlay}))
            made.wefts[number] = weft
        swap(made, made.kinds[0], None)
        for weft in made.wefts.values():
            weft.start()
        start_servers(made)
        made.lab.on_close(Server(made.client, "client").close)
        yield made


def swap(cluster, new, old):
    """One drop-in comes, the other goes, on both nodes."""
    for weft in cluster.wefts.values():
        weft.drop_in(f"20-{new[0]}", [(f"module {new[0]}", {"mode": new[1]})])
        if old:
            weft.drop_in(f"20-{old[0]}", None)


def reload_both(cluster):
    for weft in cluster.wefts.values():
        weft.ctl("reload")


# ---- what there is of a module --------------------------------------------------------------------


# What bpf(2) is asked for: the next number of a map or program. Nothing is opened by that, unlike by bpftool: who
# opens and closes a prog array that nobody else has open has the kernel empty it once more.
NEXT = {"prog": 11, "map": 12}
FIELDS = re.compile(r"^((?:map|prog)_(?:id|type|tag)|(?:key|value)_size|max_entries):\s+(\S+)$", re.M)


def held(weft):
    """Maps and programs that the daemon holds: {(kind, number): what tells its kind from others}."""
    found = {}
    for info in Path(f"/proc/{weft.process.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile: a control connection
            fields = dict(FIELDS.findall(info.read_text()))
            for kind in NEXT:
                if f"{kind}_type" in fields:  # a link names its program, too
                    number = int(fields.pop(f"{kind}_id"))
                    found[kind, number] = tuple(sorted(fields.items()))
    return found


def lives(kind, number):
    attributes = (ctypes.c_uint32 * 3)(number - 1)
    result = libc.syscall(SYS_BPF, NEXT[kind], attributes, ctypes.sizeof(attributes))
    return result == 0 and attributes[1] == number


def on_the_node(weft):
    """Everything that the node's network and weftd have, in words that stay the same over reloads."""
    ns, has = weft.ns, {}
    has["links"] = sorted(re.sub(r"^\d+: |@if\d+|link-netnsid \d+|link-netns \S+", "", line)
                          for line in ns.run("ip", "-o", "-d", "link").stdout.splitlines())
    has["addresses"] = sorted(re.sub(r"^\d+: ", "", line) for line in ns.run("ip", "-o", "addr").stdout.splitlines())
    for version in ("-4", "-6"):
        for what in (("route", "show", "table", "all"), ("rule",), ("neigh", "show", "nud", "permanent")):
            has[version, what[0]] = sorted(ns.run("ip", version, *what).stdout.splitlines())
    has["filters"] = ns.run("nft", "list", "ruleset").stdout
    has["pins"] = pins(weft)
    has["held"] = sorted((kind, fields) for (kind, _), fields in held(weft).items())
    has["stages"] = [(s["hook"], s["module"], s.get("phase")) for s in weft.ctl_json("chain")["stages"]]
    has["files"] = sorted(files(weft))
    return has


def files(weft):
    """What the daemon has open, but for sockets: control connections come and go."""
    for p in Path(f"/proc/{weft.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            name = os.readlink(p)
            if not name.startswith("socket:"):
                yield re.sub(r"\d+", "N", name)


def traces_of(kind, has):
    """Where the words of on_the_node() name a module."""
    return [(what, word) for what, words in has.items() for word in words if kind in str(word)]


def differences(a, b):
    """(what, what is in one of them only)."""
    return [(what, list(set(a[what]) ^ set(b[what])) or (a[what], b[what])) for what in a if a[what] != b[what]]


def at_rest(weft):
    """on_the_node(), while weftd opens nothing for a moment."""
    seen = []

    def again():
        seen.append(on_the_node(weft))
        return len(seen) > 2 and not differences(seen[-1], seen[-2]) and not differences(seen[-2], seen[-3])

    wait_for("weftd to rest", again, step=0.05)
    return seen[-1]


def is_as(weft, wanted):
    try:
        wait_for("the state as before", lambda: not differences(wanted, on_the_node(weft)), step=0.1)
    except AssertionError:
        assert differences(wanted, on_the_node(weft)) == []


# ---- tests ----------------------------------------------------------------------------------------


def everybody_is_reached(cluster):
    for f in FAMILIES:
        assert tcp_who(cluster.p1, f.p2, 8080)[:2] == ("p2", f.p1)
        assert tcp_who(cluster.p2, f.p1, 8080)[:2] == ("p1", f.p2)
        assert udp_who(cluster.p1, f.p2, 5353)[:2] == ("p2", f.p1)
        assert tcp_who(cluster.n1, f.p2, 8080)[:2] == ("p2", f.n1)
        assert tcp_who(cluster.client, f.n1, f.far)[:2] == ("p2", f.n1)
        assert upload(cluster.p2, f.p1, 8080, 1 << 20)


def test_tunnels_are_exchanged_under_load_and_nothing_of_the_old_one_is_left(cluster):
    kinds, nodes = cluster.kinds, list(cluster.wefts.values())
    everybody_is_reached(cluster)
    states = {(kinds[0], number): at_rest(weft) for number, weft in enumerate(nodes)}
    with Load(cluster, lossy=True) as load:
        load.echoes += [Echo(cluster.p2, IPV6.p1, 8080), Echo(cluster.n1, IPV4.p2, 8080),
                        Echo(cluster.client, IPV6.n1, IPV6.far), Echo(cluster.n2, IPV6.p1, 8080)]
        for old, new in [kinds, kinds[::-1]] * EXCHANGES:
            before = [held(weft) for weft in nodes]
            swap(cluster, new, old)
            reload_both(cluster)
            load.check()
            for stream in load.streams:
                sent = stream.sent
                wait_for("datagrams that were sent since to come back", lambda: max(stream.seen) > sent)
            for weft, ids, number in zip(nodes, before, (0, 1)):
                if (new, number) not in states:
                    states[new, number] = at_rest(weft)
                is_as(weft, states[new, number])
                assert traces_of(new[0], states[new, number]) and not traces_of(old[0], states[new, number])
                gone = ids.keys() - held(weft).keys()
                assert {kind for kind, _ in gone} == {"map", "prog"}
                wait_for(f"all of {gone} to be gone", lambda: not any(lives(*key) for key in gone))
    everybody_is_reached(cluster)


WATCH = """
table inet watch {
        chain input {
                type filter hook input priority -400
                ip saddr 10.244.2.0/24 counter
        }
}
"""


def delivered(node):
    """Packets of node 2's pods that the node's own stack took for its own."""
    return int(re.search(r"packets (\d+)", node.run("nft", "list", "table", "inet", "watch").stdout).group(1))


@contextmanager
def answers_without_end(cluster):
    """Datagrams of p2 that are answers to the client, to the port that masquerades it, all the time."""
    _, _, port = udp_who(cluster.client, IPV4.n1, IPV4.far_udp)
    stopping = threading.Event()

    def send():
        while not stopping.is_set():
            cluster.servers["p2"].udp.sendto(b"more", (f"::ffff:{IPV4.n1}", int(port)))
            time.sleep(0.0002)  # the pace

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stopping.set()
        sender.join()


def test_the_stack_is_shown_nothing_of_a_tunnel_that_goes_or_comes(cluster):
    """It would take the answers to masqueraded connections for its own, and reset them. And its device
    forwards from the first packet on."""
    weft, (kind, mode) = cluster.wefts[1], cluster.kinds[0]
    cluster.n1.run("nft", "-f", "-", input=WATCH)
    try:
        with answers_without_end(cluster):
            wait_for("answers", lambda: weft.ctl_json("status")["flows"])
            for _ in range(3):
                weft.drop_in(f"20-{kind}", None)
                weft.ctl("reload")
                assert delivered(cluster.n1) == 0
                weft.drop_in(f"20-{kind}", [(f"module {kind}", {"mode": mode})])
                weft.ctl("reload")
                assert delivered(cluster.n1) == 0
                assert weft.drops("FORWARDING_OFF") == 0
    finally:
        cluster.n1.run("nft", "delete table inet watch")
    everybody_is_reached(cluster)
