# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab itself, with the kernel's own routing: what fails here is no fault of weft's."""

import pytest

from cluster import Cluster
from conftest import start_servers
from traffic import datagram, download, numbers, ping, tcp_who, udp_who, upload


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as made:
        made.plain()
        start_servers(made)
        yield made


def test_pods_reach_each_other(cluster, family):
    assert tcp_who(cluster.p1, family.p2, 8080)[:2] == ("p2", family.p1)
    assert udp_who(cluster.p2, family.p1, 5353)[:2] == ("p1", family.p2)


def test_the_client_reaches_a_pod_with_large_transfers(cluster, family):
    assert upload(cluster.client, family.p1, 8080, 8 << 20)
    assert download(cluster.client, family.p2, 8080, 8 << 20)


def test_large_datagrams_come_back(cluster, family):
    data = numbers(3, 20000)
    assert datagram(cluster.client, family.p1, 5353, data) == data


def test_ping(cluster, family):
    assert ping(cluster.client, family.p1)
    assert not ping(cluster.client, family.external, wait=1)


def test_a_closed_port_refuses(cluster, family):
    with pytest.raises(ConnectionRefusedError):
        datagram(cluster.client, family.p1, 9, b"x")
    with pytest.raises(ConnectionRefusedError):
        tcp_who(cluster.client, family.p1, 9)


def test_a_lab_leaves_nothing(tmp_path):
    from lab import NAMESPACES, Lab

    with Lab() as lab:
        lab.switch("switch", lab.namespace("a"))
        prefix, directory = lab.prefix, lab.directory
        assert len(list(NAMESPACES.glob(prefix + "*"))) == 2
    assert not list(NAMESPACES.glob(prefix + "*"))
    assert not directory.exists()
