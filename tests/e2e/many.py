# SPDX-License-Identifier: LGPL-2.1-or-later
"""Thousands of connections, held open by processes of many.c."""

import subprocess

from weft import BUILD


class Many:
    """A process of many.c that holds connections open."""

    def __init__(self, ns, address, port, count):
        self.count = count
        self.process = ns.start(BUILD / "tests/e2e/many", "hold", address, port, count,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def opened(self):
        return self.answer("open", "failed")

    def alive(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer("alive", "dead")

    def answer(self, good, bad):
        words = self.process.stdout.readline().split()
        assert words[::2] == [good, bad], words
        return int(words[1])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve_many(ns, port):
    process = ns.start(BUILD / "tests/e2e/many", "serve", port, stdout=subprocess.PIPE, text=True)
    for _ in range(4):
        assert process.stdout.readline() == "ready\n"
