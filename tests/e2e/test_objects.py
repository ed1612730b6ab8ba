# SPDX-License-Identifier: LGPL-2.1-or-later
"""Objects set at run time: by the control socket, at once, and for good."""

import json
import socket

import pytest

from cluster import IPV4
from conftest import make_cluster
from lab import PATIENCE, wait_for
from traffic import Echo, tcp_who
from weft import BUILD_SANITIZED

STORE = "var/lib/weft/objects"


class Refused(Exception):
    def __init__(self, message):
        self.error = message["error"].removeprefix("io.weft.Node.")
        self.parameters = message["parameters"]
        super().__init__(json.dumps(message))


class Control:
    """The control socket of a node."""

    def __init__(self, weft):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20 * PATIENCE)
        self.socket.connect(str(weft.root / "run/weft/control"))

    def call(self, method, **parameters):
        self.socket.sendall(json.dumps({"method": "io.weft.Node." + method,
                                        "parameters": parameters}).encode() + b"\0")
        text = b""
        while not text.endswith(b"\0"):
            part = self.socket.recv(1 << 16)
            assert part, "the daemon ended the connection"
            text += part
        message = json.loads(text[:-1])
        if "error" in message:
            raise Refused(message)
        return message["parameters"]

    def close(self):
        self.socket.close()


def settings(**keys):
    """port="80/tcp", backend=[…] as the methods want them."""
    return [{"key": key.replace("_", "-"), "value": value}
            for key, values in keys.items() for value in (values if isinstance(values, list) else [values])]


def call(weft, method, **parameters):
    control = Control(weft)
    try:
        return control.call(method, **parameters)
    finally:
        control.close()


def set_service(weft, name, **keys):
    return call(weft, "SetServices", services=[{"name": name, "settings": settings(**keys)}])["services"][0]


def refusal(f, *arguments, **keywords):
    with pytest.raises(Refused) as caught:
        f(*arguments, **keywords)
    return caught.value


def answers(cluster, port):
    try:
        return tcp_who(cluster.client, IPV4.n1, port, timeout=1)[0]
    except OSError:
        return None


@pytest.fixture(scope="module")
def shared():
    made = make_cluster(BUILD_SANITIZED)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(shared):
    """The cluster without any object set at run time, before and after."""
    weft = shared.weft1
    yield shared
    if weft.process.poll() is not None:
        weft.start()
    for kind, key in (("Services", "services"), ("Endpoints", "endpoints"), ("Peers", "peers")):
        names = [o["name"] for o in call(weft, "List" + kind)[key] if o["runtime"]]
        call(weft, "Remove" + kind, names=names)
    weft.check_log()


# ---- services -----------------------------------------------------------------------------------


def test_a_service_set_at_run_time_serves_at_once_and_after_kill_and_restart(cluster):
    weft = cluster.weft1
    assert answers(cluster, 30300) is None
    made = set_service(weft, "run", port="80/tcp", node_port="30300", backend=["10.244.2.10:8080"])
    assert made["state"] == "ready" and made["runtime"]
    assert answers(cluster, 30300) == "p2"
    echo = Echo(cluster.client, IPV4.n1, 30300)
    weft.ctl("reload")
    assert echo.alive() and answers(cluster, 30300) == "p2"
    weft.kill()
    assert echo.alive() and answers(cluster, 30300) == "p2"
    weft.start()
    assert echo.alive() and answers(cluster, 30300) == "p2"
    assert [s["name"] for s in call(weft, "ListServices")["services"] if s["runtime"]] == ["run"]
    call(weft, "RemoveServices", names=["run"])
    assert answers(cluster, 30300) is None
    weft.kill()
    weft.start()
    assert answers(cluster, 30300) is None
    echo.close()
