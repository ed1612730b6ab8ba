# SPDX-License-Identifier: LGPL-2.1-or-later
"""weftd as a service: start, reload, watchdog, crash, stop, and who may talk to it."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import urllib.request
from pathlib import Path

import pytest

from cluster import IPV4
from lab import run, wait_for
from load import Load
from machine import CONTROL, PINS, UNITS, WEFTD, cursor, drop_in, is_active, journal, messages, show, systemctl
from traffic import tcp_who
from weft import TOP


def serves(cluster, port=IPV4.far):
    """Whether a client reaches the pods by node ports; at once, or not at all."""
    try:
        return tcp_who(cluster.client, IPV4.n1, port, timeout=0.5)[0] in ("p1", "p2")
    except OSError:
        return False


def call(method, path=CONTROL):
    """A Varlink call by hand; its reply."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(str(path))
        s.sendall(json.dumps({"method": method}).encode() + b"\0")
        reply = b""
        while not reply.endswith(b"\0"):
            part = s.recv(1 << 16)
            assert part, f"{method}: the connection ended after {reply!r}"
            reply += part
    return json.loads(reply[:-1])


# ---- units --------------------------------------------------------------------------------------

def test_verify_has_nothing_to_say_of_the_units():
    units = sorted(UNITS.glob("weft*"))
    assert {"weftd.service", "weftd.socket", "weftd-metrics.socket"} <= {unit.name for unit in units}
    said = run("systemd-analyze", "verify", *(str(unit).replace("@", "@web") for unit in units))
    assert said.stdout + said.stderr == ""


@pytest.mark.parametrize("unit", [WEFTD, "weft-endpoint@.service"])
def test_the_exposure_of_a_service_is_at_most_three(unit):
    said = run("systemd-analyze", "security", "--offline=yes", "--threshold=30", UNITS / unit, check=False)
    assert said.returncode == 0, said.stdout
    assert float(re.search(r"exposure level for weft\S+: ([\d.]+)", said.stdout).group(1)) <= 3.0


def test_enabling_the_service_enables_its_socket(weftd):
    systemctl("enable", WEFTD)
    try:
        assert systemctl("is-enabled", WEFTD, "weftd.socket").stdout.split() == ["enabled", "enabled"]
    finally:
        systemctl("disable", WEFTD, "weftd.socket")


# ---- start --------------------------------------------------------------------------------------

def test_start_returns_when_packets_flow_and_the_status_tells_what_runs(cluster, weftd):
    systemctl("stop", WEFTD)
    weftd.ctl("cleanup")
    assert not serves(cluster)
    systemctl("start", WEFTD)
    assert serves(cluster)
    assert show(WEFTD, "StatusText") == ("generation 1; modules native-routing, nodeport-snat, bpf-masq, "
                                         "host-routing; 1 of 1 endpoints ready")


def test_a_client_of_the_socket_starts_the_daemon(weftd):
    systemctl("stop", WEFTD)
    socket_file = CONTROL.stat().st_ino
    assert not is_active(WEFTD)
    assert call("io.weft.Node.GetStatus")["parameters"]["node"] == "n1"
    assert is_active(WEFTD)
    assert CONTROL.stat().st_ino == socket_file


def test_the_metrics_socket_is_known_by_its_name_and_starts_the_daemon(weftd):
    systemctl("stop", WEFTD)
    systemctl("start", "weftd-metrics.socket")
    try:
        weftd.drop_in("elsewhere", [("weft", {"metrics-listen": "127.0.0.1:9965"})])
        with urllib.request.urlopen("http://127.0.0.1:9964/metrics", timeout=30) as reply:
            assert b"\nweft_generation " in reply.read()
        assert is_active(WEFTD)
        assert weftd.ctl_json("status")["metrics"] == {"at": "passed socket"}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 9965)).close()
    finally:
        systemctl("stop", "weftd-metrics.socket")


def test_a_health_check_port_of_those_that_need_a_privilege_is_opened(weftd):
    weftd.drop_in("low", [("service low", {"port": "90/tcp", "node-port": 30300, "backend": f"{IPV4.p1}:8080",
                                           "health-check-node-port": 81})])
    weftd.reload()
    with urllib.request.urlopen("http://127.0.0.1:81/", timeout=30) as reply:
        assert json.load(reply) == {"service": {"name": "low"}, "localEndpoints": 1}


@pytest.mark.parametrize("verb", ["status", "chain", "flows", "modules", "metrics"])
def test_verbs_that_read_do_not_start_a_stopped_daemon(weftd, verb):
    systemctl("stop", WEFTD)
    said = weftd.ctl(verb, check=False)
    assert said.returncode == 3, said
    assert show(WEFTD, "ActiveState") == "inactive"
    assert is_active("weftd.socket")


def test_the_status_text_follows_an_endpoint_that_becomes_ready_later(cluster, weftd):
    def text():
        return show(WEFTD, "StatusText")

    weftd.drop_in("late", [("endpoint late", {"netns": "/run/netns/late", "address": "10.244.1.77"})])
    weftd.reload()
    assert text().startswith("generation 2; ") and text().endswith("; 1 of 2 endpoints ready")
    run("ip", "netns", "add", "late")
    try:
        wait_for("the status text", lambda: text().endswith("; 2 of 2 endpoints ready"))
    finally:
        run("ip", "netns", "del", "late")
    wait_for("the status text", lambda: text().endswith("; 1 of 2 endpoints ready"))


def test_a_configuration_with_errors_is_not_tried_again_and_the_socket_stays(cluster, weftd):
    systemctl("stop", WEFTD)
    at = cursor()
    weftd.drop_in("typo", [("service web", {"node-prot": 30080})])
    assert systemctl("start", WEFTD, check=False).returncode != 0
    assert show(WEFTD, "ActiveState", "NRestarts", "ExecMainStatus") == ("failed", "0", "78")
    assert any("conf.d/typo.conf:2: " in line and "node-port" in line for line in messages(WEFTD, at))
    assert is_active("weftd.socket")
    weftd.drop_in("typo", None)
    systemctl("start", WEFTD)
    assert serves(cluster)


def test_who_starts_a_daemon_with_errors_by_the_socket_is_let_go_and_starts_it_once(weftd):
    systemctl("stop", WEFTD)
    at = cursor()
    weftd.drop_in("typo", [("service web", {"node-prot": 30080})])
    assert weftd.ctl("reload", check=False).returncode == 1
    wait_for("the failure", lambda: show(WEFTD, "ActiveState") == "failed")
    assert is_active("weftd.socket")
    weftd.drop_in("typo", None)
    systemctl("start", WEFTD)
    assert show("weftd.socket", "SubState") == "running"
    assert len(messages(WEFTD, at, MESSAGE_ID=IDS["NOT_STARTED"])) == 1


def test_the_reason_is_among_the_unit_s_lines_though_the_journal_hears_of_it_late(weftd):
    systemctl("stop", WEFTD)
    at = cursor()
    weftd.drop_in("typo", [("service web", {"node-prot": 30080})])
    systemctl("kill", "-s", "STOP", "systemd-journald.service")
    try:
        assert systemctl("start", WEFTD, check=False).returncode != 0
    finally:
        systemctl("kill", "-s", "CONT", "systemd-journald.service")
    assert "not started: the configuration has 1 error" in messages(WEFTD, at)


@pytest.mark.parametrize("units", [("weftd.socket",), ("weftd.socket", WEFTD), ("weftd*",)], ids=" ".join)
def test_the_socket_and_the_service_are_restarted_together(weftd, units):
    pid = weftd.pid
    systemctl("restart", *units)
    weftd.wait_for_another(pid)
    assert is_active("weftd.socket")
    assert weftd.generation() == 2


# ---- reload -------------------------------------------------------------------------------------

def test_reload_returns_when_the_new_generation_runs(cluster, weftd):
    generation = weftd.generation()
    assert not serves(cluster, 30300)
    weftd.drop_in("more", [("service more", {"port": "80/tcp", "node-port": 30300, "backend": f"{IPV4.p2}:8080"})])
    weftd.reload()
    assert serves(cluster, 30300)
    assert weftd.generation() == generation + 1
    assert show(WEFTD, "StatusText").startswith(f"generation {generation + 1}; ")


def test_a_refused_reload_fails_and_says_why(cluster, weftd):
    generation, at = weftd.generation(), cursor()
    weftd.drop_in("typo", [("service web", {"node-prot": 30080})])
    said = systemctl("reload", WEFTD, check=False)
    assert said.returncode != 0
    assert is_active(WEFTD)
    assert weftd.generation() == generation
    assert serves(cluster)
    reason = [line for line in messages(WEFTD, at, SYSLOG_IDENTIFIER="weftctl") if "refused" in line]
    assert reason == ["weftctl: refused, nothing was changed: the configuration has 1 error"]
    assert any(f"{weftd.root}etc/weft/conf.d/typo.conf:2: " in line for line in messages(WEFTD, at))
    assert "; last reload refused: the configuration has 1 error" in show(WEFTD, "StatusText")
    weftd.drop_in("typo", None)
    weftd.reload()
    assert "refused" not in show(WEFTD, "StatusText")


def test_hanging_up_reloads(weftd):
    generation = weftd.generation()
    systemctl("kill", "--kill-whom=main", "-s", "HUP", WEFTD)
    wait_for("the next generation", lambda: weftd.generation() == generation + 1)


# ---- crash, watchdog, stop ----------------------------------------------------------------------

def test_a_killed_daemon_is_restarted_and_no_packet_notices(cluster, weftd):
    with Load(cluster) as load:
        for n in (1, 2):
            pid = weftd.pid
            os.kill(pid, signal.SIGKILL)
            weftd.wait_for_another(pid)
            load.check()
            assert show(WEFTD, "NRestarts") == str(n)
    assert serves(cluster)


def test_a_daemon_that_is_killed_time_and_again_is_restarted_each_time(weftd):
    drop_in(WEFTD, [("Service", {"RestartSec": "50ms"})])
    for _ in range(6):
        pid = weftd.pid
        os.kill(pid, signal.SIGKILL)
        weftd.wait_for_another(pid)


def test_the_watchdog_leaves_alone_who_works_and_replaces_who_hangs_while_packets_flow(cluster, weftd):
    assert show(WEFTD, "WatchdogUSec") == "1min"
    drop_in(WEFTD, [("Service", {"WatchdogSec": "3", "WatchdogSignal": "KILL"})])
    systemctl("restart", WEFTD)
    pid, begin, at = weftd.pid, int(show(WEFTD, "WatchdogTimestampMonotonic")), cursor()
    wait_for("more than the watchdog's time",
             lambda: int(show(WEFTD, "WatchdogTimestampMonotonic")) > begin + 4_000_000)
    assert weftd.pid == pid
    with Load(cluster):
        os.kill(pid, signal.SIGSTOP)
        weftd.wait_for_another(pid)
    assert any("Watchdog timeout" in line for line in messages(WEFTD, at, _PID=1))
    assert serves(cluster)


def test_stop_leaves_the_datapath_at_work_and_cleanup_takes_it_away(cluster, weftd):
    with Load(cluster) as load:
        systemctl("stop", WEFTD)
        load.check()
        assert serves(cluster)
        assert serves(cluster, IPV4.near)
        systemctl("start", WEFTD)
    systemctl("stop", WEFTD)
    said = weftd.ctl("cleanup").stdout
    assert "removed tcx link" in said or "removed filter" in said
    assert not serves(cluster)
    assert not PINS.exists()
    assert [p.name for p in CONTROL.parent.iterdir()] == ["control"]
    assert "weft" not in cluster.n1.run("ip", "-o", "link").stdout

    assert call("io.weft.Node.GetStatus")["parameters"]["generation"] == 1
    assert serves(cluster)


def test_cleanup_stops_the_service_for_good(cluster, weftd):
    assert f"stopped weftd (pid {weftd.pid})" in weftd.ctl("cleanup").stdout
    assert show(WEFTD, "ActiveState", "NRestarts") == ("inactive", "0")
    assert not serves(cluster)


# ---- who may ------------------------------------------------------------------------------------

def as_member(group, *argv):
    """Runs a command as nobody, with one more group."""
    groups = f"--groups={group}" if group else "--clear-groups"
    return run("setpriv", "--reuid=65534", "--regid=65534", groups, *argv, check=False)


@pytest.mark.parametrize("by_systemd", [True, False], ids=["of the socket unit", "of its own"])
def test_group_weft_changes_and_weft_ro_reads(weftd, by_systemd):
    if not by_systemd:
        drop_in(WEFTD, [("Unit", {"Wants": ""}), ("Service", {"Sockets": ""})])
        systemctl("mask", "--runtime", "weftd.socket")
        systemctl("stop", "weftd.socket", WEFTD)
        systemctl("start", WEFTD)
    try:
        mode = CONTROL.stat()
        assert stat.S_IMODE(mode.st_mode) == 0o660
        assert (CONTROL.owner(), CONTROL.group()) == ("root", "weft" if by_systemd else "root")
        assert as_member("weft", "weftctl", "status").returncode == 0
        assert as_member("weft", "weftctl", "reload").returncode == 0
        assert as_member("weft-ro", "weftctl", "status").returncode == 0
        refused = as_member("weft-ro", "weftctl", "reload")
        assert refused.returncode == 4 and "needs group weft" in refused.stderr
        refused = as_member("weft", "weftctl", "cleanup")
        assert refused.returncode == 4 and "cleanup needs root" in refused.stderr
        refused = as_member(None, "weftctl", "status")
        assert refused.returncode != 0 and "permission denied" in refused.stderr
    finally:
        systemctl("unmask", "--runtime", "weftd.socket")


def test_a_user_of_the_group_may_set_4096_objects_and_root_more(weftd):
    """All but two of them are there already, as an earlier daemon left them."""
    objects = Path("/var/lib/weft/objects/service")
    systemctl("stop", "weftd.socket", WEFTD)
    objects.mkdir(parents=True, exist_ok=True)
    for n in range(4094):
        address = f"198.18.{n // 256}.{n % 256}"
        (objects / f"many-{n}.conf").write_text(
            f"# weft object 1, uid 65534\n[service many-{n}]\nport = 80/tcp\nexternal-ip = {address}\n")

    def add(name, member=True):
        command = ["weftctl", "service", "set", name, "port=81/tcp", f"external-ip=198.19.0.{len(name)}"]
        return as_member("weft", *command) if member else run(*command)

    try:
        systemctl("start", WEFTD)
        assert add("a").returncode == add("aa").returncode == 0
        refused = add("aaa")
        assert refused.returncode == 1 and "may set 4096 objects at most" in refused.stderr
        assert not (objects / "aaa.conf").exists()
        assert add("aa").returncode == 0, "one that is there already may be changed"
        assert add("aaaa", member=False).returncode == 0, "root"
        assert as_member("weft", "weftctl", "service", "del", "a").returncode == 0
        assert add("aaa").returncode == 0
    finally:
        systemctl("stop", "weftd.socket", WEFTD)
        shutil.rmtree(objects)


# ---- the journal --------------------------------------------------------------------------------

IDS = dict(re.findall(r'^MESSAGE\((\w+), "(\w+)"', (TOP / "core/messages.def").read_text(), re.MULTILINE))


def test_lines_have_fields_and_the_catalogue_explains_them(weftd):
    at = cursor()
    weftd.drop_in("typo", [("service web", {"node-prot": 30080})])
    systemctl("reload", WEFTD, check=False)
    weftd.drop_in("typo", None)
    weftd.reload()
    (wrong,) = journal(WEFTD, at, MESSAGE_ID=IDS["CONFIG_ERROR"])
    assert (wrong["CONFIG_FILE"], wrong["CONFIG_LINE"]) == ("/etc/weft/conf.d/typo.conf", "2")
    (refused,) = journal(WEFTD, at, MESSAGE_ID=IDS["RELOAD_REFUSED"])
    assert refused["WEFT_GENERATION"] == "1" and refused["WEFT_CALLER"].startswith("uid 0, pid ")
    (reloaded,) = journal(WEFTD, at, MESSAGE_ID=IDS["RELOADED"])
    assert reloaded["WEFT_GENERATION"] == "2"
    assert {entry["_SYSTEMD_UNIT"] for entry in (wrong, refused, reloaded)} == {WEFTD}

    explained = run("journalctl", "-x", "-u", WEFTD, "--after-cursor", at).stdout
    assert "Subject: An error in /etc/weft/conf.d/typo.conf, line 2" in explained
    assert "Generation 2 carries this node's traffic." in explained


def test_what_is_said_of_a_module_has_its_name(weftd):
    at = cursor()
    drop_in(WEFTD, [("Service", {"Environment": "WEFTD_DEBUG_FACTS=no-redirect-peer"})])
    systemctl("restart", WEFTD)
    (left_out,) = journal(WEFTD, at, MESSAGE_ID=IDS["MODULE_LEFT_OUT"])
    assert left_out["WEFT_MODULE"] == "host-routing"
    assert left_out["PRIORITY"] == "4"


# ---- hardening ----------------------------------------------------------------------------------

CAPABILITIES = {10: "net_bind_service", 12: "net_admin", 19: "sys_ptrace", 21: "sys_admin", 38: "perfmon", 39: "bpf"}


def test_the_daemon_runs_hardened(weftd):
    status = dict(line.split(":\t") for line in Path(f"/proc/{weftd.pid}/status").read_text().splitlines()
                  if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[kind], 16) == sum(1 << n for n in CAPABILITIES)
    inside = ["nsenter", f"--mount=/proc/{weftd.pid}/ns/mnt", "--"]
    for path in ("/usr", "/etc", "/sys/fs/bpf", "/sys/kernel", "/proc/sys/kernel", "/boot"):
        assert run(*inside, "test", "-w", path, check=False).returncode == 1, path
    for path in (PINS, "/run/weft", "/var/lib/weft", "/proc/sys/net/ipv4/ip_forward"):
        assert run(*inside, "test", "-w", path, check=False).returncode == 0, path
    assert (PINS / "maps/flows4").exists()


def test_hardening_is_in_no_module_s_way(weftd):
    """Nothing that a start and a reload do is answered by a warning."""
    at = cursor()
    systemctl("stop", WEFTD)
    weftd.ctl("cleanup")
    systemctl("start", WEFTD)
    weftd.reload()
    said = [line for level in range(5) for line in messages(WEFTD, at, PRIORITY=level)]
    assert said == []
    assert {m["state"] for m in weftd.ctl_json("modules")["modules"]} == {"on"}
