# SPDX-License-Identifier: LGPL-2.1-or-later
"""Raw frames in and out of a namespace, and the kernel's view of attached eBPF."""

import ctypes
import fcntl
import os
import platform
import random
import select
import socket
import struct
import time

ETH_P_ALL = 0x0003
SIOCGIFHWADDR = 0x8927
SO_RCVBUFFORCE = 33
SYS_BPF = 321
BPF_PROG_QUERY = 16
TCX_INGRESS, TCX_EGRESS = 46, 47

libc = ctypes.CDLL(None, use_errno=True)


def raw_socket(ns, device="eth0"):
    with ns.inside():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        s.bind((device, ETH_P_ALL))
        return s


def send_frame(ns, frame, device="eth0"):
    with raw_socket(ns, device) as s:
        s.send(bytes(frame))


def mac(ns, device="eth0"):
    with ns.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return fcntl.ioctl(s, SIOCGIFHWADDR, struct.pack("256s", device.encode()))[18:24]


class Sniffer:
    """Collects the frames that pass a device, from the moment it is made."""

    def __init__(self, ns, device="eth0"):
        self.socket = raw_socket(ns, device)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def frames(self):
        """What has come since the last call."""
        result = []
        while select.select([self.socket], [], [], 0)[0]:
            result.append(self.socket.recv(1 << 17))
        return result


def icmp_errors(frames):
    """Addresses from which destination-unreachable messages came."""
    result = set()
    for frame in frames:
        if frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 3:
            result.add(socket.inet_ntop(socket.AF_INET, frame[26:30]))
        elif frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 1:
            result.add(socket.inet_ntop(socket.AF_INET6, frame[22:38]))
    return result


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def syn(source_mac, target_mac, source, target, source_port, target_port, sequence):
    """An Ethernet frame with a TCP SYN. Addresses are 4 bytes."""
    tcp = struct.pack("!HHIIBBHHH", source_port, target_port, sequence, 0, 5 << 4, 2, 64240, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + source + target
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return target_mac + source_mac + b"\x08\x00" + ip + tcp


def syn_flood(ns, target_mac, target, target_port, count, seed=7):
    """Sends COUNT SYNs, each from another address of 100.64.0.0/10 and port; the seconds it took."""
    dice = random.Random(seed)
    own, goal = mac(ns), socket.inet_aton(target)
    started = time.monotonic()
    with raw_socket(ns) as s:
        for n in range(count):
            source = struct.pack("!I", 0x64400000 + (n * 2654435761 & 0x3FFFFF))
            frame = syn(own, target_mac, source, goal, dice.randrange(1024, 65536), target_port, n)
            try:
                s.send(frame)
            except OSError:  # the device's queue is full
                time.sleep(0.001)
    return time.monotonic() - started


def has_tcx():
    return tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 6)


class Query(ctypes.Structure):
    """The part of union bpf_attr that BPF_PROG_QUERY uses (linux/bpf.h)."""

    _fields_ = [
        ("target_ifindex", ctypes.c_uint32), ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32), ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64), ("count", ctypes.c_uint32), ("pad", ctypes.c_uint32 * 16),
    ]


def tcx_programs(ns, device, attach_type):
    """Ids of the programs that tcx runs at one side of a device, in order."""
    ids = (ctypes.c_uint32 * 64)()
    with ns.inside():
        query = Query(target_ifindex=socket.if_nametoindex(device), attach_type=attach_type,
                      prog_ids=ctypes.addressof(ids), count=len(ids))
        if libc.syscall(SYS_BPF, BPF_PROG_QUERY, ctypes.byref(query), ctypes.sizeof(query)) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    return list(ids[: query.count])


def clsact_programs(ns, device, side):
    """How many eBPF filters hang at one side ("ingress", "egress") of a device."""
    listing = ns.run("tc", "filter", "show", "dev", device, side, check=False).stdout
    return listing.count(" bpf ") and sum("handle 0x" in line and " bpf " in line
                                          for line in listing.splitlines())


def attached(ns, device):
    """Programs at the two sides of a device, by whichever way they were attached."""
    result = []
    for attach_type, side in ((TCX_INGRESS, "ingress"), (TCX_EGRESS, "egress")):
        count = clsact_programs(ns, device, side)
        if has_tcx():
            count += len(tcx_programs(ns, device, attach_type))
        result.append(count)
    return result
