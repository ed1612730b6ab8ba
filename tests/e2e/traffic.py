# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers in pods and clients outside: threads of the test's process with sockets inside namespaces."""

import hashlib
import random
import socket
import struct
import threading

from lab import PATIENCE

TIMEOUT = 10.0 * PATIENCE
CHUNK = 1 << 16


def plain(address):
    """An address as the tests write it: without the mapping of IPv4 into IPv6."""
    return address.removeprefix("::ffff:")


def numbers(seed, length):
    """LENGTH bytes that SEED decides."""
    return random.Random(seed).randbytes(length)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Server:
    """A TCP and a UDP server in a pod, both families. What it answers:

    TCP, by the first line:  who            "NAME CLIENT-ADDRESS CLIENT-PORT"
                             take LENGTH    the sha256 of the bytes that follow
                             give SEED LENGTH   these bytes
                             echo           everything back
                             GET PATH       "who" by HTTP; "Connection: keep-alive" is obeyed
    UDP:  "who" as above, anything else back as it came.
    """

    def __init__(self, ns, name, tcp=8080, udp=5353):
        self.name = name
        with ns.inside():
            self.tcp = socket.create_server(("::", tcp), family=socket.AF_INET6, backlog=512,
                                            dualstack_ipv6=True)
            self.udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self.udp.bind(("::", udp))
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.accept, self.datagrams)]
        for thread in self.threads:
            thread.start()

    def close(self):
        for s in (self.tcp, self.udp):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # a UDP socket is not connected; it wakes up all the same
        for thread in self.threads:
            thread.join()  # until then the ports are taken
        self.tcp.close()
        self.udp.close()

    def who(self, peer):
        return f"{self.name} {plain(peer[0])} {peer[1]}"

    def accept(self):
        while True:
            try:
                connection, peer = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection, peer), daemon=True).start()

    def serve(self, connection, peer):
        try:
            with connection, connection.makefile("rwb") as stream:
                words = stream.readline().decode().split()
                if words:
                    getattr(self, "do_" + words[0])(stream, peer, *words[1:])
        except OSError:
            pass  # the client's end of it is what a test looks at

    def do_who(self, stream, peer):
        stream.write(self.who(peer).encode() + b"\n")

    def do_take(self, stream, _, length):
        stream.write(sha(stream.read(int(length))).encode() + b"\n")

    def do_give(self, stream, _, seed, length):
        stream.write(numbers(int(seed), int(length)))

    def do_echo(self, stream, _):
        while data := stream.read1(CHUNK):
            stream.write(data)
            stream.flush()

    def do_GET(self, stream, peer, *_):  # noqa: N802, the name is the protocol's
        keep = True
        while keep:
            keep = False
            while line := stream.readline().strip():
                keep = keep or line.lower() == b"connection: keep-alive"
            body = f"pod {self.name} answers {plain(peer[0])}\n".encode()
            stream.write(b"HTTP/1.1 200 OK\r\nConnection: %s\r\nContent-Type: text/plain\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (b"keep-alive" if keep else b"close", len(body), body))
            stream.flush()
            keep = keep and stream.readline()  # the next request's first line

    def datagrams(self):
        while True:
            try:
                data, peer = self.udp.recvfrom(CHUNK)
                if not data:
                    return
                self.udp.sendto(self.who(peer).encode() if data == b"who" else data, peer)
            except ConnectionRefusedError:
                continue  # an answer of ours came too late for its client
            except OSError:
                return


def connect(ns, address, port, timeout=TIMEOUT, source=None, tos=0):
    """A connected TCP socket of the namespace."""
    with ns.inside():
        s = socket.socket(family_of(address), socket.SOCK_STREAM)
    s.settimeout(timeout)
    try:
        if source:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(source)
        if tos and s.family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
        elif tos:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        s.connect((address, port))
    except BaseException:
        s.close()
        raise
    return s


def has_socket(ns, port):
    """Whether a TCP socket of the namespace has this port: one that was closed, too, while its last
    segments are on their way."""
    with ns.inside():
        tables = [open(f"/proc/thread-self/net/{name}").read() for name in ("tcp", "tcp6")]
    return any(line.split()[1].endswith(f":{port:04X}") for t in tables for line in t.splitlines()[1:])


def read_all(s):
    parts = []
    while data := s.recv(CHUNK):
        parts.append(data)
    return b"".join(parts)


def tcp_who(ns, address, port, **keywords):
    """(pod that answered, client address and port that it saw)."""
    with connect(ns, address, port, **keywords) as s:
        s.sendall(b"who\n")
        name, seen, seen_port = read_all(s).decode().split()
        return name, seen, int(seen_port)


def upload(ns, address, port, length, seed=1):
    """Sends LENGTH bytes and returns whether they arrived as they were."""
    data = numbers(seed, length)
    with connect(ns, address, port) as s:
        s.sendall(f"take {length}\n".encode() + data)
        return read_all(s).decode().strip() == sha(data)


def download(ns, address, port, length, seed=2):
    """Asks for LENGTH bytes and returns whether they arrived as they were."""
    with connect(ns, address, port) as s:
        s.sendall(f"give {seed} {length}\n".encode())
        return sha(read_all(s)) == sha(numbers(seed, length))


class Echo:
    """A kept TCP connection that proves that it lives."""

    def __init__(self, ns, address, port, **keywords):
        self.socket = connect(ns, address, port, **keywords)
        self.socket.sendall(b"echo\n")
        self.count = 0

    def alive(self):
        self.count += 1
        word = struct.pack("!Q", self.count)
        self.socket.sendall(word)
        got = b""
        while len(got) < len(word):
            part = self.socket.recv(len(word) - len(got))
            if not part:
                return False
            got += part
        return got == word

    def carries(self, length):
        """Whether LENGTH bytes come back."""
        data = bytes(length)
        sender = threading.Thread(target=self.socket.sendall, args=(data,))
        sender.start()
        while length > 0 and (part := self.socket.recv(CHUNK)):
            length -= len(part)
        sender.join()
        return length == 0

    def close(self):
        self.socket.close()


def datagram(ns, address, port, data, timeout=2.0, tries=3, source=None):
    """Sends DATA as one datagram and returns the answer. A lost one is sent again, as UDP users do;
    an ICMP error is raised as the OSError that the kernel makes of it."""
    with ns.inside():
        s = socket.socket(family_of(address), socket.SOCK_DGRAM)
    with s:
        if source:
            s.bind(source)
        s.connect((address, port))
        s.settimeout(timeout * PATIENCE)
        for left in range(tries, 0, -1):
            s.send(data)
            try:
                return s.recv(CHUNK)
            except TimeoutError:
                if left == 1:
                    raise


def udp_who(ns, address, port, **keywords):
    name, seen, seen_port = datagram(ns, address, port, b"who", **keywords).decode().split()
    return name, seen, int(seen_port)


def ping(ns, address, count=1, wait=2 * PATIENCE):
    """Whether ADDRESS answers echo requests. wait: seconds for the last answer; where none is expected, few."""
    result = ns.run("ping", "-n", "-c", count, "-i", "0.2", "-W", wait, address, check=False)
    return result.returncode == 0
