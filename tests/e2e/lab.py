# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network of namespaces on one machine: namespaces, cables between them, and their end.

Everything a Lab makes bears its prefix, `wft` and the process id, and is gone after close(), which
also runs when the process ends by itself. What a killed process left behind is removed by

    lab.py clean
"""

import atexit
import ctypes
import itertools
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

NAMESPACES = Path("/run/netns")
PREFIX = re.compile(r"wft(\d+)[a-z]?-")
ADDED6 = re.compile(r"^addr (?:add|replace) (\S*:\S*)/\d+ dev (\S+)", re.MULTILINE)
CLONE_NEWNET = 0x40000000
PATIENCE = float(os.environ.get("WEFT_PATIENCE", 1))  # factor of every bound, for emulated machines

libc = ctypes.CDLL(None, use_errno=True)


def wait_for(what, condition, timeout=10.0, step=0.02):
    """Polls CONDITION until it gives something true, and returns that; fails naming WHAT."""
    end = time.monotonic() + timeout * PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s in vain for: {what}")
        time.sleep(step)


def run(*argv, check=True, timeout=60, **keywords):
    """Runs a command and returns it with its output as text; its stderr is in the failure's text."""
    result = subprocess.run(
        [str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=timeout * PATIENCE, **keywords,
    )
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, argv))}: exit status {result.returncode}\n{result.stdout}{result.stderr}"
        )
    return result


def has_link_kind(kind):
    """Whether the kernel has such devices. That of the CI machine has no geneve; those of Debian have."""
    return "Unknown device type" not in run("unshare", "--net", "ip", "link", "add", "type", kind, check=False).stderr


class Namespace:
    """A network namespace. Sockets made inside() stay in it, whoever uses them."""

    def __init__(self, name):
        self.name = name
        self.path = NAMESPACES / name
        self.processes = []

    def command(self, *argv):
        # Not `ip netns exec`: that makes a mount namespace, in which pins and mounts would vanish.
        return ["nsenter", f"--net={self.path}", "--", *map(str, argv)]

    def run(self, *argv, **keywords):
        return run(*self.command(*argv), **keywords)

    def start(self, *argv, **keywords):
        """Starts a process that ends with the lab."""
        process = subprocess.Popen(self.command(*argv), **keywords)
        self.processes.append(process)
        return process

    def ip(self, *lines):
        """Runs `ip` commands, one a line, in one go. The addresses that they add can be used afterwards."""
        self.run("ip", "-batch", "-", input="\n".join(lines) + "\n")
        for address, device in ADDED6.findall("\n".join(lines)):
            wait_for(f"{address} to be usable", lambda: self.is_usable(address, device))

    def is_usable(self, address, device):
        """IPv6: the kernel makes the route in a work queue, and not before the link works."""
        return self.run("ip", "-6", "route", "show", "table", "local", address).stdout \
            or "LOWER_UP" not in self.run("ip", "link", "show", "dev", device).stdout

    @contextmanager
    def inside(self):
        """Takes the calling thread into the namespace."""
        with open("/proc/thread-self/ns/net") as home, open(self.path) as there:
            enter(there.fileno())
            try:
                yield self
            finally:
                enter(home.fileno())

    def sysctl(self, key, value=None):
        """Reads or writes net.KEY, with slashes: sysctl("ipv4/ip_forward", 1)."""
        with self.inside():
            path = Path("/proc/sys/net") / key
            if value is not None:
                path.write_text(f"{value}\n")
            return path.read_text().strip()


def enter(fd):
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Lab:
    """Namespaces and cables. Use as a context manager. home: name of the one that this process is in
    already, for tests that have a machine of their own."""

    letters = itertools.cycle(string.ascii_lowercase)

    def __init__(self, home=None):
        self.home = home
        self.prefix = f"wft{os.getpid()}{next(self.letters)}-"
        self.directory = Path(tempfile.mkdtemp(prefix=self.prefix))
        self.namespaces = {}
        self.closers = []
        atexit.register(self.close)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getitem__(self, name):
        return self.namespaces[name]

    def namespace(self, name):
        """Makes the namespace NAME with its loopback up and addresses usable at once."""
        full = self.prefix + name
        if name == self.home:
            run("ip", "netns", "attach", full, os.getpid())
            self.on_close(lambda: run("ip", "netns", "delete", full))  # who is in it lives on
        else:
            run("ip", "netns", "add", full)
        ns = self.namespaces[name] = Namespace(full)
        for key in ("all", "default"):
            ns.sysctl(f"ipv6/conf/{key}/accept_dad", 0)
            ns.sysctl(f"ipv6/conf/{key}/accept_ra", 0)
        ns.sysctl("ipv4/ip_forward", 0)
        ns.ip("link set lo up")
        return ns

    def cable(self, a, a_device, b, b_device, mtu=1500):
        """A veth pair between two namespaces, up at both ends, all offloads on."""
        run("ip", "link", "add", a_device, "mtu", mtu, "netns", a.name, "type", "veth",
            "peer", "name", b_device, "mtu", mtu, "netns", b.name)
        a.ip(f"link set {a_device} up")
        b.ip(f"link set {b_device} up")

    def switch(self, name, *ports):
        """A bridge in a namespace of its own, with a cable to eth0 of each of PORTS."""
        ns = self.namespace(name)
        ns.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up")
        for port in ports:
            self.plug(ns, port)
        return ns

    def plug(self, switch, ns, device="eth0"):
        short = "to-" + ns.name.rsplit("-", 1)[1]
        self.cable(ns, device, switch, short)
        switch.ip(f"link set {short} master br0")

    def on_close(self, closer):
        """Called when the lab ends, before its namespaces go."""
        self.closers.append(closer)

    def close(self):
        atexit.unregister(self.close)
        while self.closers:
            closer = self.closers.pop()
            try:
                closer()
            except Exception as error:  # the rest has to go whatever happens
                print(f"lab: {error}", file=sys.stderr)
        for ns in self.namespaces.values():
            end(ns.processes)
        remove(self.prefix)
        self.namespaces = {}


def end(processes):
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
    processes.clear()


def mounts_below(directory):
    with open("/proc/mounts") as file:
        points = [line.split()[1] for line in file]
    return sorted((p for p in points if p.startswith(str(directory))), reverse=True)


def remove(prefix):
    """Removes the processes, namespaces, mounts and files of the lab with this prefix."""
    for path in NAMESPACES.glob(prefix + "*"):
        for pid in run("ip", "netns", "pids", path.name, check=False).stdout.split():
            if int(pid) != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "delete", path.name, check=False)
    for directory in Path(tempfile.gettempdir()).glob(prefix + "*"):
        for point in mounts_below(directory):
            run("umount", "--lazy", point, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def clean():
    """Removes what labs of processes that live no more have left."""
    left = [p.name for p in NAMESPACES.glob("wft*-*")]
    left += [p.name for p in Path(tempfile.gettempdir()).glob("wft*-*")]
    for name in sorted(left):
        match = PREFIX.match(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove(match[0])
            print(f"removed {name}")


if __name__ == "__main__":
    if sys.argv[1:] != ["clean"]:
        sys.exit("usage: lab.py clean")
    clean()
