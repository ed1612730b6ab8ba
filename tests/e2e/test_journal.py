# SPDX-License-Identifier: LGPL-2.1-or-later
"""What weftd writes to the journal where its stderr is the journal. A socket of ours stands where the
journal's would be, in a mount namespace of weftd's own; the lab's bpffs is there as well."""

import array
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest

from cluster import Cluster
from lab import wait_for
from test_reload import Node
from varlink import Client, Refused
from weft import TOP

IDS = dict(re.findall(r'^MESSAGE\((\w+), "(\w+)"', (TOP / "core/messages.def").read_text(), re.MULTILINE))


class Journal:
    """Entries as dicts, as they come."""

    def __init__(self, directory):
        self.directory = directory
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "socket"))
        self.socket.setblocking(False)
        self.entries = []

    def wrap(self, command, stderr):
        """A shell's command line that starts COMMAND with its stderr taken for the journal."""
        status = os.fstat(stderr.fileno())
        script = (f"mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/journal && "
                  f"mount --bind {self.directory} /run/systemd/journal && exec \"$@\"")
        return ["env", f"JOURNAL_STREAM={status.st_dev}:{status.st_ino}", "unshare", "--mount",
                "sh", "-c", script, "sh", *command]

    def read(self):
        while True:
            try:
                data, control, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            except BlockingIOError:
                return self.entries
            for _, _, numbers in control:  # too large for a datagram
                descriptor, = array.array("i", numbers)
                with open(descriptor, "rb") as file:
                    file.seek(0)
                    data = file.read()
            self.entries.append(parse(data))

    def find(self, message, **fields):
        """The last entry of this message with these fields."""
        wanted = {"MESSAGE_ID": IDS[message], **fields}
        for entry in reversed(self.read()):
            if all(entry.get(key) == value for key, value in wanted.items()):
                return entry
        return None


def parse(data):
    entry = {}
    while data:
        line, data = data.split(b"\n", 1)
        name, found, value = line.partition(b"=")
        if not found:  # its length in binary, then the value, then a line feed
            length, = struct.unpack("<Q", data[:8])
            value, data = data[8:8 + length], data[9 + length:]
        entry[name.decode()] = value.decode()
    return entry


@pytest.fixture(scope="module")
def node():
    with Cluster() as cluster:
        made = Node(cluster)
        made.put("faulty-1")
        directory = cluster.lab.directory / "journal"
        directory.mkdir()
        made.journal = Journal(directory)
        command = made.weft.command

        def journalled():
            with open(made.weft.log_path, "ab") as log:
                return made.journal.wrap(map(str, command()), log)

        made.weft.command = journalled
        yield made.start(faulty={})


def test_a_start_says_so_with_its_number_and_generation(node):
    entry = node.journal.find("STARTED")
    assert entry["WEFT_GENERATION"] == str(node.weft.generation())
    assert entry["SYSLOG_IDENTIFIER"] == "weftd" and entry["PRIORITY"] == "5"
    assert "modules: " in entry["MESSAGE"]
    assert node.journal.find("ENDPOINT_READY", WEFT_ENDPOINT="p1")
    assert node.weft.log() == "", "nothing is said twice"


def test_a_reload_says_who_asked_for_it(node):
    node.reload()
    entry = node.journal.find("RELOADED", WEFT_GENERATION=str(node.weft.generation()))
    assert entry["WEFT_CALLER"].startswith("uid 0, pid ")
    before = node.weft.generation()
    node.weft.process.send_signal(signal.SIGHUP)
    wait_for("the next generation", lambda: node.weft.generation() == before + 1)
    entry = node.journal.find("RELOADED", WEFT_GENERATION=str(before + 1))
    assert entry["WEFT_CALLER"] == f"SIGHUP of uid 0, pid {os.getpid()}"


def test_an_error_of_the_configuration_has_its_file_and_line(node):
    node.weft.drop_in("typo", [("weft", {"mdoe": "probe"})])
    node.weft.ctl("reload", check=False)
    node.weft.drop_in("typo", None)
    entry = node.journal.find("CONFIG_ERROR")
    assert entry["CONFIG_FILE"].endswith("/etc/weft/conf.d/typo.conf") and entry["CONFIG_LINE"] == "2"
    assert node.journal.find("RELOAD_REFUSED")


def test_a_program_that_the_kernel_refuses_leaves_the_verifiers_whole_log(node):
    node.put("faulty-refused")
    result = node.weft.ctl("reload", check=False)
    node.put("faulty-1")
    entry = node.journal.find("RELOAD_REFUSED")
    assert result.returncode != 0
    log = entry["WEFT_VERIFIER_LOG"]
    assert log.count("\n") > 5 and "\nprocessed " in log, log
    node.reload()
    assert "WEFT_VERIFIER_LOG" not in node.journal.find("RELOADED")


def test_a_change_at_run_time_says_who_made_it_and_of_what(node):
    weft = node.weft
    with Client(weft.control) as client:
        client.call("io.weft.Node.SetServices", {"services": [{"name": "late", "settings": [
            {"key": "port", "value": "80/tcp"}, {"key": "node-port", "value": "30700"}]}]})
        client.call("io.weft.Node.RemoveServices", {"names": ["late"]})
        with pytest.raises(Refused):
            client.call("io.weft.Node.RemoveServices", {"names": ["far-ipv4"]})
    caller = f"uid 0, pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
    changes = [e["MESSAGE"] for e in node.journal.read()
               if e.get("MESSAGE_ID") == IDS["CHANGED"] and e["WEFT_SERVICE"] == "late" and e["WEFT_CALLER"] == caller]
    assert len(changes) == 2 and "node-port = 30700" in changes[0] and "removed" in changes[1]
    assert node.journal.find("CHANGE_REFUSED", WEFT_SERVICE="far-ipv4", WEFT_CALLER=caller)
