# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other people's eBPF programs: small ones that count packets, written by hand and attached by bpf(2)."""

import ctypes
import os
import socket
import struct

from packets import SYS_BPF, TCX_EGRESS, TCX_INGRESS, libc

MAP_CREATE, MAP_LOOKUP, PROG_LOAD, OBJ_PIN, LINK_CREATE = 0, 1, 5, 6, 28
SCHED_CLS, XDP, ARRAY = 3, 6, 2
BEFORE, AFTER = 1 << 3, 1 << 4
TC_ACT_UNSPEC, TC_ACT_SHOT, XDP_PASS = -1, 2, 2


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 144)
    result = libc.syscall(SYS_BPF, command, buffer, 144)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command}): {os.strerror(error)}")
    return result


def address_of(data):
    return ctypes.addressof(data)


def insn(code, target=0, source=0, offset=0, value=0):
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)


class Program:
    """Counts packets and gives the verdict."""

    def __init__(self, name, kind=SCHED_CLS, verdict=TC_ACT_UNSPEC):
        self.name = name
        self.map = bpf(MAP_CREATE, struct.pack("<5I", ARRAY, 4, 8, 1, 0))
        code = b"".join((
            insn(0x62, 10, offset=-4),  # *(u32 *)(r10 - 4) = 0
            insn(0xBF, 2, 10), insn(0x07, 2, value=-4),  # r2 = r10 - 4
            insn(0x18, 1, 1, value=self.map), insn(0),  # r1 = map
            insn(0x85, value=1),  # bpf_map_lookup_elem
            insn(0x15, 0, offset=2),  # if (r0 == 0) skip the count
            insn(0xB7, 1, value=1), insn(0xDB, 0, 1),  # lock *(u64 *)r0 += 1
            insn(0xB7, 0, value=verdict), insn(0x95)))
        self.code, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
        self.fd = bpf(PROG_LOAD, struct.pack("<IIQQIIQII16s", kind, len(code) // 8, address_of(self.code),
                                             address_of(licence), 0, 0, 0, 0, 0, name.encode()))
        self.links = []

    def attach_tcx(self, ns, device, ingress, flags=0):
        """By a link that lives until close()."""
        with ns.inside():
            index = socket.if_nametoindex(device)
            kind = TCX_INGRESS if ingress else TCX_EGRESS
            self.links.append(bpf(LINK_CREATE, struct.pack("<4I", self.fd, index, kind, flags)))

    def pin(self, path):
        name = ctypes.create_string_buffer(str(path).encode())
        bpf(OBJ_PIN, struct.pack("<QI", address_of(name), self.fd))

    def count(self):
        """Packets that it has seen."""
        key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
        bpf(MAP_LOOKUP, struct.pack("<IIQQQ", self.map, 0, address_of(key), address_of(value), 0))
        return struct.unpack("<Q", value.raw[:8])[0]

    def id(self):
        with open(f"/proc/self/fdinfo/{self.fd}") as info:
            return int(next(line for line in info if line.startswith("prog_id")).split()[1])

    def close(self):
        for fd in (*self.links, self.fd, self.map):
            os.close(fd)
