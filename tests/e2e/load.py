# SPDX-License-Identifier: LGPL-2.1-or-later
"""Load that notices what it loses: wrk, and a stream of numbered datagrams."""

import re
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress

from cluster import IPV4, IPV6
from lab import PATIENCE
from traffic import Echo


class Wrk:
    """wrk against a URL, until it is stopped; every thread waits DELAY milliseconds between its requests."""

    def __init__(self, lab, ns, url, connections, delay, header, timeout=5):
        script = lab.directory / f"delay{delay}.lua"
        script.write_text(f"function delay() return {delay} end\n")
        self.process = ns.start("wrk", "-t1", f"-c{connections}", "-d3600s", "--timeout", f"{timeout}s", "-s", script,
                                "-H", f"Connection: {header}", url,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stop(self):
        """How many requests it made, once it is stopped; all of them were answered."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=60 * PATIENCE)[0]
        assert "errors" not in said and "Non-2xx" not in said, said
        return int(re.search(r"(\d+) requests in", said).group(1))


class Stream:
    """Numbered datagrams to an address that sends them back, from a socket of its own."""

    def __init__(self, ns, address, port):
        with ns.inside():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.connect((address, port))
        self.socket.settimeout(0.25 * PATIENCE)
        self.sent, self.seen, self.stopping = 0, set(), False
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.send, self.receive)]
        for thread in self.threads:
            thread.start()

    def send(self):
        while not self.stopping:
            with suppress(OSError):  # what an ICMP error said of an earlier one: this one is lost
                self.socket.send(struct.pack("!Q", self.sent))
            self.sent += 1
            time.sleep(0.002)  # the pace of the stream

    def receive(self):
        while not self.stopping or len(self.seen) < self.sent:
            try:
                self.seen.add(struct.unpack("!Q", self.socket.recv(64))[0])
            except OSError:
                if self.stopping:
                    return  # what has not come by now is lost

    def stop(self):
        """How many are lost, once it is stopped."""
        self.stopping = True
        for thread in self.threads:
            thread.join()
        self.socket.close()
        return self.sent - len(self.seen)


def dropped(cluster, *wefts):
    """Packets dropped on the way: the daemons' counters and the interfaces'."""
    counts = {(weft.name, row["what"]): row["packets"] for weft in wefts for row in weft.ctl_json("status")["drops"]}
    for name in ("n1", "n2", "p1", "p2"):
        for line in cluster.lab[name].run("cat", "/proc/net/dev").stdout.splitlines()[2:]:
            interface, fields = line.split(":")
            counts[name, interface.strip()] = int(fields.split()[3]) + int(fields.split()[11])
    assert ("n1", "eth0") in counts
    return counts


class Load:
    """All kinds of traffic of the lab at once, from outside and between pods. It ends with an error where a
    request failed, a datagram was lost, a connection broke or a drop counter moved. new: whether connections
    are opened all the time, too; urls: more to ask for, (namespace, URL). lossy: while the nodes differ,
    packets are lost and sent again."""

    def __init__(self, cluster, new=True, urls=(), lossy=False):
        self.cluster, self.lossy = cluster, lossy
        client, p1, p2 = cluster.client, cluster.p1, cluster.p2
        self.before = self.dropped()
        self.echoes = [Echo(client, IPV4.n1, IPV4.far), Echo(client, IPV6.n1, IPV6.near), Echo(p1, IPV4.p2, 8080),
                       Echo(p1, IPV6.p2, 8080), Echo(p1, IPV4.client, 8080), Echo(p2, IPV4.p1, 8080)]
        hows = [(4, 5, "keep-alive"), (2, 20, "close")][:2 if new else 1]
        self.wrks = [Wrk(cluster.lab, ns, url, *how, timeout=30 if lossy else 5) for how in hows for ns, url in
                     [(client, f"http://{IPV4.n1}:{IPV4.web}/"), (p1, f"http://{IPV4.p2}:8080/"), *urls]]
        self.streams = [Stream(client, IPV4.n1, IPV4.far_udp), Stream(p1, IPV4.p2, 5353)]

    def __enter__(self):
        self.check()
        return self

    def dropped(self):
        return dropped(self.cluster, *self.cluster.wefts.values())

    def expect(self, node, reason, packets):
        """A test drops packets of its own, which are no loss of the load."""
        self.before[node, reason] = packets

    def check(self):
        """Every connection that was opened at the beginning lives."""
        assert all([echo.alive() for echo in self.echoes])

    def __exit__(self, failed, *_):
        self.check_end(failed, [wrk.stop() for wrk in self.wrks],
                       {(s.sent, s.stop()) for s in self.streams})

    def check_end(self, failed, requests, datagrams):
        if failed:
            return
        self.check()
        for echo in self.echoes:
            echo.close()
        assert all(n > 10 for n in requests), requests
        if not self.lossy:
            assert all(lost == 0 for sent, lost in datagrams), datagrams
            assert self.dropped() == self.before
