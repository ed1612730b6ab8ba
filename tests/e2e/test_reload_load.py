# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reloads under load: nothing is lost and nothing grows. WEFT_RELOADS says how many (`make soak`: 1000)."""

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from cluster import IPV4, Cluster
from lab import wait_for
from load import Stream, Wrk, dropped
from test_life import pins
from test_reload import Node
from traffic import Server
from weft import BUILD

RELOADS = int(os.environ.get("WEFT_RELOADS", 30))
SETTLED = 100 if RELOADS >= 200 else RELOADS // 3  # reloads after which nothing may grow
CYCLE = 5
RSS_SLACK = 1024  # KiB
HTTP_PORT, ECHO_PORTS = 30200, (30201, 30202)
URL = f"http://{IPV4.n1}:{HTTP_PORT}/"


def services():
    """HTTP on both pods, and UDP on each."""
    return [("service load-http", {"port": "80/tcp", "node-port": HTTP_PORT,
                                   "backend": [f"{IPV4.p1}:8080", f"{IPV4.p2}:8080"]}),
            *((f"service load-echo-{n}", {"port": f"{n}/udp", "node-port": port, "backend": f"{pod}:5353"})
              for n, (port, pod) in enumerate(zip(ECHO_PORTS, (IPV4.p1, IPV4.p2)), 1))]


@pytest.fixture
def node():
    with Cluster() as cluster:
        made = Node(cluster, BUILD)
        made.put("faulty-1")
        change(made, 0)
        made.weft.start()
        for name in ("p1", "p2"):
            server = Server(cluster.lab[name], name)
            server.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            cluster.lab.on_close(server.close)
        wait_for("both pods to answer", lambda: {answer(made) for _ in range(8)} == {"p1", "p2"})
        yield made


def answer(node):
    return node.cluster.client.run("curl", "-s", "-m", "1", URL, check=False).stdout.split(" ")[1]


def change(node, n):
    """The n-th reload's configuration and files: one thing is exchanged by each."""
    step = n % CYCLE
    masq = {"ipv6": "yes", "masquerade-link-local": "yes" if step == 4 else "no"}
    if step == 1:
        node.put("faulty-1b" if n % 2 else "faulty-1")
    faulty = None if step == 3 else {"number": n if step == 2 else 1}
    node.configure(faulty, more=services(), bpf_masq=masq, nodeport_snat={"snat-ports": "32768-65535"})


def held(weft):
    """What the daemon holds: KiB of memory; files (control connections come and go), maps, programs, pins."""
    process = Path(f"/proc/{weft.process.pid}")
    rss = int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text()).group(1))
    infos = []
    for p in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile: a control connection
            if not os.readlink(p).startswith("socket:"):
                infos.append((process / "fdinfo" / p.name).read_text())
    kinds = [len({m.group(1) for i in infos if (m := re.search(rf"{kind}_id:\s+(\d+)", i))})
             for kind in ("map", "prog")]
    return rss, (len(infos), *kinds, pins(weft))


def test_reloads_under_load_lose_nothing_and_nothing_grows(node):
    weft = node.weft
    before = dropped(node.cluster, weft)
    wrks = [Wrk(node.cluster.lab, node.cluster.client, URL, *how)
            for how in ((8, 5, "keep-alive"), (4, 20, "close"))]
    streams = [Stream(node.cluster.client, IPV4.n1, port) for port in ECHO_PORTS * 2]
    samples = {}
    try:
        for n in range(RELOADS // CYCLE * CYCLE):
            change(node, n + 1)
            weft.ctl("reload")
            if (n + 1) % CYCLE == 0:
                samples[n + 1] = held(weft)
    finally:
        lost = [stream.stop() for stream in streams]
        requests = [wrk.stop() for wrk in wrks]
    reloads = max(samples)
    print(f"{reloads} reloads, {requests} requests, {[s.sent for s in streams]} datagrams, memory "
          f"{[rss for rss, _ in samples.values()]} KiB, {samples[reloads][1][:3]} files, maps, programs")
    assert weft.generation() == reloads + 1
    assert lost == [0] * len(streams)
    assert all(n > reloads for n in requests)
    assert dropped(node.cluster, weft) == before
    settled = [n for n in samples if n >= SETTLED]
    for n in settled:
        assert samples[n][1] == samples[settled[0]][1], f"after {n} reloads"
    assert samples[reloads][0] <= samples[settled[0]][0] + RSS_SLACK


def test_a_reload_s_time_goes_to_the_verifier(node):
    """The figures are in the log, one line for each reload."""
    for n in range(CYCLE):
        change(node, n + 1)
        node.weft.ctl("reload")
    times = [(float(a), float(b)) for a, b in re.findall(
        r"reload: ([\d.]+) ms, ([\d.]+) of them loading programs", node.weft.log())]
    assert len(times) == CYCLE
    total, loading = (sorted(column)[CYCLE // 2] for column in zip(*times))
    print(f"a reload takes {total:.0f} ms, {loading:.0f} ms of them load programs")
    assert loading > total / 2
