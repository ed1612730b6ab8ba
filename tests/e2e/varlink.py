# SPDX-License-Identifier: LGPL-2.1-or-later
"""Varlink by hand: a client that may misbehave, and interface files read as types."""

import json
import re
import socket

from lab import PATIENCE


class Refused(Exception):
    """An error that the service answered."""

    def __init__(self, message):
        super().__init__(message["error"])
        self.error, self.parameters = message["error"], message.get("parameters", {})


class Client:
    """A connection to a service."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))  # waits where the queue is full, which with a time-out it would not
        self.socket.settimeout(timeout * PATIENCE)
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, method, parameters=None, **flags):
        call = {"method": method, "parameters": parameters or {}, **flags}
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def receive(self):
        """The next reply's whole message; None at the end of the connection."""
        while b"\0" not in self.rest:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.rest += data
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        if "error" in message:
            raise Refused(message)
        return message

    def call(self, method, parameters=None):
        self.send(method, parameters)
        return self.receive()["parameters"]

    def stream_of(self, method, parameters=None):
        """Every reply of a call with "more"."""
        self.send(method, parameters, more=True)
        while True:
            message = self.receive()
            yield message["parameters"]
            if not message.get("continues"):
                return


TOKEN = re.compile(r"\s*(?:#[^\n]*\n\s*)*([A-Za-z][A-Za-z0-9_.]*|->|\[\]|\[string\]|[(),:?])")


class Interface:
    """An interface file: its types, methods (name -> (parameters, reply)) and errors.

    A type is a word ("int", "Flow"), a dict of fields, a set of enum values, or ("[]", type),
    ("[string]", type), ("?", type)."""

    def __init__(self, text):
        self.tokens = TOKEN.findall(text)
        self.types, self.methods, self.errors = {}, {}, {}
        self.expect("interface")
        self.name = self.take()
        while self.tokens:
            kind, name = self.take(), self.take()
            if kind == "type":
                self.types[name] = self.members()
            elif kind == "error":
                self.errors[name] = self.members()
            else:
                assert kind == "method", kind
                parameters = self.members()
                self.expect("->")
                self.methods[name] = (parameters, self.members())

    def take(self):
        return self.tokens.pop(0)

    def expect(self, word):
        found = self.take()
        assert found == word, f"{found} where {word} should be"

    def members(self):
        """(a: type, ...) as a dict, (a, b) as a set."""
        self.expect("(")
        fields, values = {}, set()
        while self.tokens[0] != ")":
            name = self.take()
            if self.tokens[0] == ":":
                self.take()
                fields[name] = self.type()
            else:
                values.add(name)
            if self.tokens[0] == ",":
                self.take()
        self.take()
        return values or fields

    def type(self):
        if self.tokens[0] == "(":
            return self.members()
        word = self.take()
        return (word, self.type()) if word in ("?", "[]", "[string]") else word

    def faults(self, value, kind, place="reply"):
        """What in VALUE is not of this type, as sentences."""
        if isinstance(kind, tuple):
            outer, inner = kind
            if outer == "?":
                return [] if value is None else self.faults(value, inner, place)
            if outer == "[]" and isinstance(value, list):
                return [f for i, v in enumerate(value) for f in self.faults(v, inner, f"{place}[{i}]")]
            if outer == "[string]" and isinstance(value, dict):
                return [f for k, v in value.items() for f in self.faults(v, inner, f"{place}[{k}]")]
            return [f"{place} is {value!r}, no {outer}"]
        if isinstance(kind, set):
            return [] if value in kind else [f"{place} is {value!r}, none of {sorted(kind)}"]
        if isinstance(kind, dict):
            return self.object_faults(value, kind, place)
        known = {"string": str, "int": int, "bool": bool, "float": (int, float), "object": dict}
        if kind not in known:
            return self.faults(value, self.types[kind], place)
        right = isinstance(value, known[kind]) and isinstance(value, bool) == (kind == "bool")
        return [] if right else [f"{place} is {value!r}, no {kind}"]

    def object_faults(self, value, fields, place):
        if not isinstance(value, dict):
            return [f"{place} is {value!r}, no object"]
        result = [f"{place}.{name} is not declared" for name in value if name not in fields]
        for name, kind in fields.items():
            result += self.faults(value.get(name), kind, f"{place}.{name}")
        return result
