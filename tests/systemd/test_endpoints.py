# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any service becomes an endpoint: what docs/operations.md shows is done as it stands there."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from cluster import IPV4
from lab import NAMESPACES, run, wait_for
from machine import cursor, is_active, messages, show, systemctl
from traffic import connect
from weft import TOP

GUIDE = TOP / "docs/operations.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.M | re.S)
WEB, JOB, BOX, ALONE = "10.244.1.20", "10.244.1.21", "10.244.1.22", "10.244.1.23"
NODE_PORT = 30380
STARTED = ["nginx.service", "job.service", "box.service", "alone.service", "weft-endpoint@*.service"]


def page(ns, address, port):
    """What is answered there, or "" with nobody who answers."""
    return ns.run("curl", "-fsS", "-m", "2", f"http://{address}:{port}/", check=False).stdout


def play(*words):
    """Does what the guide says where one of WORDS is in it: writes its files and runs its commands."""
    for language, name, text in BLOCK.findall(GUIDE.read_text()):
        if not any(word in name + text for word in words):
            continue
        if name:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text)
        elif language == "sh":
            run("sh", "-eu", "-c", text)


@pytest.fixture
def machine(weftd):
    yield weftd
    systemctl("stop", *STARTED, check=False)
    shutil.rmtree("/etc/systemd/system/nginx.service.d", ignore_errors=True)


@pytest.fixture
def nginx(machine):
    play("30-web", "nginx")
    return machine


def reached(cluster):
    """By whom nginx is."""
    asked = {"pod of the node": (cluster.p1, WEB, 80), "pod of the other node": (cluster.p2, WEB, 80),
             "the node": (cluster.n1, WEB, 80), "client": (cluster.client, IPV4.n1, NODE_PORT)}
    return {who for who, where in asked.items() if "nginx" in page(*where)}


EVERYBODY = {"pod of the node", "pod of the other node", "the node", "client"}


def test_nginx_as_debian_installs_it_is_reached_as_a_pod_and_as_a_service(cluster, nginx):
    assert is_active("weft-endpoint@web.service") and is_active("nginx.service")
    assert reached(cluster) == EVERYBODY
    inside = run("nsenter", f"--net=/proc/{show('nginx.service', 'MainPID')}/ns/net", "--", "ip", "-o", "addr").stdout
    assert f"{WEB}/32" in inside and IPV4.n1 not in inside


def test_an_endpoint_s_end_ends_its_service_and_the_next_start_brings_both(cluster, nginx):
    systemctl("stop", "weft-endpoint@web.service")
    assert not is_active("nginx.service")
    assert not (NAMESPACES / "web").exists()
    assert not page(cluster.p1, WEB, 80)
    systemctl("start", "nginx.service")
    assert reached(cluster) == EVERYBODY


def test_the_endpoint_does_not_notice_what_happens_to_the_daemon(cluster, nginx):
    pid = show("nginx.service", "MainPID")
    with connect(cluster.client, IPV4.n1, NODE_PORT) as kept:
        daemon = nginx.pid
        os.kill(daemon, signal.SIGKILL)
        nginx.wait_for_another(daemon)
        systemctl("restart", "weftd.service")
        kept.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert kept.recv(12) == b"HTTP/1.1 200"
    assert show("nginx.service", "MainPID") == pid
    assert reached(cluster) == EVERYBODY


def test_a_namespace_that_was_there_stays(machine):
    machine.drop_in("30-box", [("endpoint box", {"netns": "/run/netns/box", "address": BOX})])
    run("ip", "netns", "add", "box")
    try:
        before = (NAMESPACES / "box").stat().st_ino
        systemctl("start", "weft-endpoint@box.service")
        assert {e["name"]: e["state"] for e in machine.ctl_json("status")["endpoints"]}["box"] == "ready"
        systemctl("stop", "weft-endpoint@box.service")
        assert (NAMESPACES / "box").stat().st_ino == before
    finally:
        run("ip", "netns", "del", "box")


@pytest.mark.parametrize("directory", ["/run/netns", "/run/made-for-it"])
def test_an_endpoint_is_up_when_it_is_ready_in_the_namespace_that_is_there_now(machine, directory):
    """Not in the one before, which somebody keeps alive and of which weftd says "ready" for a while."""
    netns, unit = f"{directory}/box", "weft-endpoint@box.service"
    machine.drop_in("30-box", [("endpoint box", {"netns": netns, "address": BOX})])
    generations = set()
    for _ in range(4):
        systemctl("start", unit)
        assert BOX in run("nsenter", f"--net={netns}", "--", "ip", "-o", "addr").stdout
        generations.add(machine.generation())
        run("systemd-run", "-p", "Type=exec", "-p", f"NetworkNamespacePath={netns}", "/bin/sleep", "20")
        systemctl("stop", unit)
    assert len(generations) == 1


def test_an_instance_may_be_escaped_as_systemd_does_it(machine):
    machine.drop_in("30-box", [("endpoint my-box", {"netns": "/run/netns/my-box", "address": BOX})])
    unit = run("systemd-escape", "--template=weft-endpoint@.service", "my-box").stdout.strip()
    assert unit == r"weft-endpoint@my\x2dbox.service"
    systemctl("start", unit)
    assert BOX in run("nsenter", "--net=/run/netns/my-box", "--", "ip", "-o", "addr").stdout
    systemctl("stop", unit)
    assert not (NAMESPACES / "my-box").exists()


@pytest.mark.parametrize("section, said", [
    (None, "there is no [endpoint nobody] in weft.conf or in conf.d"),
    ({"interface": "somebody0", "address": BOX}, "[endpoint nobody] has no netns = that could be made"),
])
def test_an_endpoint_that_cannot_be_made_fails_with_the_reason(machine, section, said):
    if section:
        machine.drop_in("30-nobody", [("endpoint nobody", section)])
    at = cursor()
    assert systemctl("start", "weft-endpoint@nobody.service", check=False).returncode != 0
    assert f"weft-endpoint: {said}" in messages("weft-endpoint@nobody.service", at)
    assert not (NAMESPACES / "nobody").exists()


def test_a_transient_service_is_an_endpoint_for_as_long_as_it_runs(cluster, machine):
    play("30-job", "unit=job")
    wait_for("the server", lambda: "Directory listing" in page(cluster.p2, JOB, 8000))


def test_a_container_of_nspawn_is_an_endpoint(cluster, machine):
    play("30-box", "nspawn")
    wait_for("the server", lambda: "Directory listing" in page(cluster.p2, BOX, 8000))


def test_a_service_with_a_private_network_is_an_endpoint_by_its_process(cluster, machine):
    """Of another user than weftd's, too, whose namespace only its process has."""
    run("systemd-run", "--unit=alone", "-p", "DynamicUser=yes", "-p", "PrivateNetwork=yes",
        "/usr/bin/python3", "-m", "http.server", "8000")
    machine.drop_in("30-alone", [("endpoint alone", {"pid": show("alone.service", "MainPID"), "address": ALONE})])
    machine.reload()
    wait_for("the server", lambda: "Directory listing" in page(cluster.p2, ALONE, 8000))
