# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket: called by systemd's varlinkctl, by well-behaved clients and by others."""

import json
import os
import selectors
import socket
import statistics
import subprocess
import threading
import time

import pytest

from cluster import IPV4
from conftest import make_cluster
from lab import PATIENCE, run, wait_for
from traffic import Echo, udp_who
from varlink import Client, Interface, Refused
from weft import BUILD, BUILD_SANITIZED, TOP

NODE = "io.weft.Node"
CONTRACT = TOP / "core/control/io.weft.Node.varlink"
PIECE = 64  # flows of one reply of a stream


@pytest.fixture(scope="module")
def cluster():
    made = make_cluster(BUILD_SANITIZED)
    try:
        yield made
        made.weft1.stop()
    finally:
        made.close()


@pytest.fixture(scope="module")
def flows(cluster):
    """More flows than go into one reply of a stream."""
    echoes = [Echo(cluster.client, IPV4.n1, IPV4.far) for _ in range(PIECE)]
    udp_who(cluster.client, IPV4.n1, IPV4.dns)
    yield 2 * PIECE
    for echo in echoes:
        echo.close()


@pytest.fixture(scope="session")
def program():
    return run(TOP / "tests/tools/fetch-varlinkctl", BUILD / "tools", timeout=300).stdout.strip()


@pytest.fixture
def varlinkctl(program, cluster):
    """varlinkctl VERB ARGUMENT…, on node 1's socket."""
    def call(verb, *arguments, options=(), check=True):
        result = run(program, *options, verb, cluster.weft1.control, *arguments, check=check,
                     stdin=subprocess.DEVNULL)
        assert not check or result.stderr.strip() == "", result.stderr
        return result
    return call


def interface():
    return Interface(CONTRACT.read_text())


def readers():
    """Methods that can be called without a parameter and change nothing."""
    return [name for name, (parameters, _) in interface().methods.items()
            if name.startswith(("Get", "List")) and all(kind[0] == "?" for kind in parameters.values())]


# ---- varlinkctl ---------------------------------------------------------------------------------


def test_varlinkctl_tells_what_the_service_is(varlinkctl):
    info = varlinkctl("info").stdout
    assert "weftd" in info and NODE in info
    assert varlinkctl("list-interfaces").stdout.split() == [NODE, "org.varlink.service"]


def test_varlinkctl_understands_both_interfaces(varlinkctl, program):
    text = varlinkctl("introspect", NODE, "org.varlink.service").stdout
    assert all(f"method {name}(" in text for name in interface().methods)
    assert "method GetInterfaceDescription(" in text
    listed = varlinkctl("list-methods", NODE).stdout.split()
    assert set(listed) == {f"{NODE}.{name}" for name in interface().methods}
    run(program, "validate-idl", CONTRACT)


@pytest.mark.parametrize("method", readers())
def test_varlinkctl_calls_every_reading_method(varlinkctl, flows, method):
    reply = json.loads(varlinkctl("call", f"{NODE}.{method}", "{}").stdout)
    assert not interface().faults(reply, interface().methods[method][1])


def test_varlinkctl_gets_a_stream_reply_by_reply(varlinkctl, flows):
    pieces = varlinkctl("call", f"{NODE}.ListFlows", "{}", options=["--more", "--json=short"]).stdout
    replies = [json.loads(line) for line in pieces.replace("\x1e", "").splitlines()]
    assert len(replies) > 1
    assert sum(len(reply["flows"]) for reply in replies) >= flows


def test_varlinkctl_is_told_errors_by_their_names(varlinkctl):
    for method, parameters, error in (
            ("Nothing", "{}", "org.varlink.service.MethodNotFound"),
            ("GetChain", '{"hook": "none"}', "org.varlink.service.InvalidParameter"),
            ("ListFlows", '{"limit": -1}', "org.varlink.service.InvalidParameter")):
        result = varlinkctl("call", f"{NODE}.{method}", parameters, check=False)
        assert result.returncode != 0 and error in result.stderr


def test_varlinkctl_reloads_and_is_told_why_not(cluster, varlinkctl):
    weft, before = cluster.weft1, cluster.weft1.generation()
    reply = varlinkctl("call", f"{NODE}.Reload", "{}").stdout
    assert json.loads(reply) == {"generation": before + 1}
    weft.drop_in("typo", [("weft", {"mdoe": "probe"})])
    result = varlinkctl("call", f"{NODE}.Reload", "{}", check=False)
    weft.drop_in("typo", None)
    assert f"{NODE}.ReloadRefused" in result.stderr and "did you mean" in result.stdout
    assert weft.generation() == before + 1


# ---- by hand ------------------------------------------------------------------------------------


def test_every_reply_is_what_the_interface_file_promises(cluster, flows):
    contract = interface()
    with Client(cluster.weft1.control) as client:
        for method in readers():
            for reply in client.stream_of(f"{NODE}.{method}"):
                assert not contract.faults(reply, contract.methods[method][1]), method
        served = client.call("org.varlink.service.GetInterfaceDescription", {"interface": NODE})
    assert served["description"] == CONTRACT.read_text()


def test_a_refusal_is_what_the_interface_file_promises(cluster):
    contract, weft = interface(), cluster.weft1
    weft.drop_in("typo", [("weft", {"mdoe": "probe"})])
    with Client(weft.control) as client, pytest.raises(Refused) as refused:
        client.call(f"{NODE}.Reload")
    weft.drop_in("typo", None)
    assert refused.value.error == f"{NODE}.ReloadRefused"
    assert not contract.faults(refused.value.parameters, contract.errors["ReloadRefused"])


def test_a_oneway_call_is_done_though_its_caller_hangs_up_at_once(cluster):
    before = cluster.weft1.generation()
    with Client(cluster.weft1.control) as client:
        client.send(f"{NODE}.Reload", oneway=True)
    wait_for("the next generation", lambda: cluster.weft1.generation() == before + 1)


def test_the_daemon_may_open_as_many_files_as_the_system_lets_it(cluster):
    """Two links for each endpoint: a thousand files are not many."""
    limits = open(f"/proc/{cluster.weft1.process.pid}/limits").read()
    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft == hard


def test_reading_verbs_leave_a_socket_alone_that_would_start_a_daemon(cluster, tmp_path):
    """As systemd has it: the socket is there and takes connections, the daemon is not."""
    (tmp_path / "run/weft").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as waiting:
        waiting.bind(str(tmp_path / "run/weft/control"))
        waiting.listen()
        for verb in (["status"], ["flows"], ["chain"], ["modules"], ["reload", "--dry-run"]):
            result = run(BUILD / "core/ctl/weftctl", "--root", tmp_path, *verb, check=False, timeout=5)
            assert result.returncode == 3 and "does not run" in result.stderr, verb
        with pytest.raises(BlockingIOError):
            waiting.accept()


def test_who_may_not_write_the_lock_finds_out_all_the_same_that_the_daemon_runs(cluster):
    weft = cluster.weft1
    cluster.lab.directory.chmod(0o711)
    result = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BUILD / "core/ctl/weftctl",
                 "--root", weft.root, "status", check=False)
    assert result.returncode == 4 and "group weft" in result.stderr


ODD = [None, True, -1, 0, 2**63 - 1, 1.5, "", "x" * 10000, "a\nb", "\u202e\U0001f600", "../../etc", "0.0.0.0/0", "::", "[",
       [], {}, [[]], [None], [{}], {"": ""}]


def example(contract, kind):
    """A value of the type, as plain as can be."""
    if isinstance(kind, tuple):
        return {"?": lambda: example(contract, kind[1]), "[]": lambda: [example(contract, kind[1])],
                "[string]": lambda: {"a": example(contract, kind[1])}}[kind[0]]()
    if isinstance(kind, set):
        return min(kind)
    if isinstance(kind, dict):
        return {name: example(contract, inner) for name, inner in kind.items()}
    plain = {"string": "odd", "int": 1, "bool": True, "float": 1.0, "object": {}}
    return plain[kind] if kind in plain else example(contract, contract.types[kind])


def mutations(value):
    """The value with each of its parts in turn replaced by something odd, or left out."""
    yield from ODD
    if isinstance(value, dict):
        for name, part in value.items():
            yield {key: other for key, other in value.items() if key != name}
            for odd in mutations(part):
                yield {**value, name: odd}
        yield {**value, "unheard-of": 1}
    elif isinstance(value, list):
        for odd in mutations(value[0]):
            yield [odd]
            yield value + [odd]


def test_odd_parameters_are_answered_and_the_daemon_goes_on():
    cluster, contract, told = make_cluster(BUILD_SANITIZED), interface(), 0
    try:
        weft = cluster.weft1
        with Client(weft.control) as client:
            for method, (parameters, reply) in contract.methods.items():
                for odd in mutations(example(contract, parameters)):
                    if not isinstance(odd, dict):
                        continue  # no call at all, which ends the connection
                    try:
                        answer = client.call(f"{NODE}.{method}", odd)
                        assert not contract.faults(answer, reply), (method, odd)
                    except Refused as refused:
                        told += 1
                        interface_name, _, error = refused.error.rpartition(".")
                        assert interface_name in (NODE, "org.varlink.service"), (method, odd)
                        if interface_name == NODE:
                            assert not contract.faults(refused.parameters, contract.errors[error]), (method, odd)
        assert told > 100
        assert weft.ctl_json("status")["node"] == "n1"
        weft.stop()
    finally:
        cluster.close()


# ---- a crowd ------------------------------------------------------------------------------------


class Crowd:
    """1 000 clients that mean no good, in a thread of their own: a quarter say nothing, a quarter begin
    a call and go on by a byte a second, a quarter send what is no call, a quarter send without end. Whom
    the daemon drops comes back after a second."""

    PAUSE = 1.0

    def __init__(self, path, size=1000):
        self.path, self.size, self.closed, self.end = str(path), size, 0, threading.Event()
        self.selector, self.clients = selectors.DefaultSelector(), {}
        self.again = [(0, number) for number in range(size)]
        self.complete = threading.Event()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def __enter__(self):
        assert self.complete.wait(60 * PATIENCE), "not every client has had its turn"
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        for one in self.clients:
            one.close()
        self.selector.close()

    def work(self):
        had_turn = set()
        while not self.end.is_set():
            now = time.monotonic()
            due = [number for when, number in self.again if when <= now]
            self.again = [(when, number) for when, number in self.again if when > now]
            for number in due:
                if self.connect(number):
                    had_turn.add(number)
            if len(had_turn) == self.size:
                self.complete.set()
            for key, _ in self.selector.select(0.05):
                self.look(key.fileobj)
            self.drip(now)

    def connect(self, number):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            one.connect(self.path)
        except BlockingIOError:  # the queue of those who wait is full
            one.close()
            self.again.append((time.monotonic() + 0.1, number))
            return False
        self.clients[one] = number
        self.selector.register(one, selectors.EVENT_READ)
        self.say(one, (b"", b'{"method":', b"no call\0", b" " * (1 << 16))[number % 4])
        return True

    def say(self, one, data):
        try:
            one.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.drop(one)

    def look(self, one):
        try:
            gone = not one.recv(1 << 16)
        except OSError:
            gone = True
        if gone and one in self.clients:
            self.drop(one)

    def drop(self, one):
        self.selector.unregister(one)
        self.again.append((time.monotonic() + self.PAUSE, self.clients.pop(one)))
        self.closed += 1
        one.close()

    def drip(self, now):
        if now >= getattr(self, "next_drip", 0):
            self.next_drip = now + 1
            for one, number in list(self.clients.items()):
                if number % 4 in (1, 3):
                    self.say(one, b" " if number % 4 == 1 else b" " * (1 << 16))


def reload_time(weft):
    """Seconds from asking to the answer."""
    begin = time.monotonic()
    with Client(weft.control) as client:
        client.call(f"{NODE}.Reload")
    return time.monotonic() - begin


@pytest.mark.timing
def test_a_thousand_bad_clients_neither_delay_a_reload_nor_keep_others_from_their_answers():
    """Medians of reloads with and without the crowd, one after the other. On an idle machine they differ
    by less than a tenth (WEFT_RELOAD_PAIRS=25, printed); the bound leaves room for a busy one, and is far
    from what a client that holds the daemon up would cost."""
    pairs, alone, crowded = int(os.environ.get("WEFT_RELOAD_PAIRS", 3)), [], []
    cluster = make_cluster(BUILD)
    try:
        weft = cluster.weft1
        reload_time(weft)
        for _ in range(pairs):
            alone.append(reload_time(weft))
            with Crowd(weft.control) as crowd:
                for _ in range(3):
                    assert weft.ctl_json("status")["node"] == "n1"
                crowded.append(reload_time(weft))
                assert crowd.closed > 500, "the daemon has held them all"
        ratio = statistics.median(crowded) / statistics.median(alone)
        print(f"reload {statistics.median(alone) * 1000:.0f} ms, with 1 000 bad clients {ratio:.2f} times that")
        assert ratio < 2
        weft.stop()
    finally:
        cluster.close()
