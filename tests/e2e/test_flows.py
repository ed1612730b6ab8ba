# SPDX-License-Identifier: LGPL-2.1-or-later
"""A large flow table holds nobody up who asks the daemon for something else.

WEFT_FLOWS: how many flows; a million in the long form."""

import ctypes
import json
import os
import subprocess
import threading
import time

import pytest

from cluster import IPV4, Cluster, standard_modules
from conftest import start_servers
from lab import PATIENCE
from traffic import Echo
from varlink import Client
from weft import BUILD

FLOWS = int(os.environ.get("WEFT_FLOWS", 60000))
BATCH = 50000
libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)


def bpftool(*words):
    result = subprocess.run(["bpftool", "-j", *map(str, words)], stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


def offset_of(struct, member):
    types = bpftool("btf", "dump", "file", BUILD / "bpf/engine.bpf.o")["types"]
    members = next(t for t in types if t["kind"] == "STRUCT" and t["name"] == struct)["members"]
    return next(m for m in members if m["name"] == member)["bits_offset"] // 8


def fill(path, count):
    """Copies of the table's first flow under COUNT other keys, by other source addresses. They are of
    tomorrow: an old one without its other direction would be collected."""
    fd = libbpf.bpf_obj_get(str(path).encode())
    assert fd >= 0, os.strerror(ctypes.get_errno())
    key, value = ctypes.create_string_buffer(64), ctypes.create_string_buffer(4096)
    assert libbpf.bpf_map_get_next_key(fd, None, key) == 0
    assert libbpf.bpf_map_lookup_elem(fd, key, value) == 0
    info = bpftool("map", "show", "pinned", path)
    key, value = key.raw[:info["bytes_key"]], value.raw[:info["bytes_value"]]
    at = value.index(key)  # a flow's key is in its value
    created = offset_of("weft_flow", "created")
    tomorrow = int.from_bytes(value[created:created + 8], "little") + 86400 * 1000
    value = value[:created] + tomorrow.to_bytes(8, "little") + value[created + 8:]
    for first in range(0, count, BATCH):
        n = min(BATCH, count - first)
        keys = [(10 << 24 | first + i).to_bytes(4, "big") + key[4:] for i in range(n)]
        values = b"".join(value[:at] + k + value[at + len(key):] for k in keys)
        done = ctypes.c_uint32(n)
        assert libbpf.bpf_map_update_batch(fd, b"".join(keys), values, ctypes.byref(done), None) == 0
        assert done.value == n
    os.close(fd)


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as made:
        size = 1 << FLOWS.bit_length()
        made.weft(standard_modules(), {"flow-table-size": str(size)})
        start_servers(made)
        kept = Echo(made.client, IPV4.n1, IPV4.far)
        assert kept.alive()
        fill(made.weft1.bpffs / "maps/flows4", FLOWS)
        yield made
        kept.close()


def slowest_answer(cluster, until):
    """The longest that weftd takes for a small question, in seconds."""
    slowest = 0
    with Client(cluster.weft1.control) as client:
        while not until():
            begin = time.monotonic()
            client.call("io.weft.Node.ListModules")
            slowest = max(slowest, time.monotonic() - begin)
    return slowest


@pytest.mark.timing
@pytest.mark.parametrize("options", [[], ["--port", 9], ["--top", 10]], ids=["all", "none", "top"])
def test_a_listing_of_a_large_table_does_not_delay_others(cluster, options):
    process = cluster.n1.start(cluster.weft1.build / "core/ctl/weftctl", "--root", cluster.weft1.root,
                               "flows", *options, stdout=subprocess.DEVNULL)
    slowest = slowest_answer(cluster, lambda: process.poll() is not None)
    assert process.returncode == 0
    assert slowest < 0.25 * PATIENCE


def test_every_flow_of_a_large_table_is_told(cluster):
    text = cluster.weft1.ctl("flows", "--source", "10.0.0.0/8").stdout
    assert len(text.splitlines()) >= FLOWS


@pytest.mark.timing
def test_the_status_of_a_large_table_is_quick(cluster):
    begin = time.monotonic()
    cluster.weft1.ctl_json("status")
    assert time.monotonic() - begin < 0.5 * PATIENCE
