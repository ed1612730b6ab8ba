/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <assert.h>

#include "world.h"

static const struct {
        const char *four, *six;
        struct mac mac;
} people[WHO] = {
        [NODE] = { "192.0.2.11", "2001:db8:1::11", { { 2, 0, 0, 0, 1, 0x11 } } },
        [ROUTER] = { "192.0.2.1", "2001:db8:1::1", { { 2, 0, 0, 0, 1, 0x01 } } },
        [NODE2] = { "192.0.2.12", "2001:db8:1::12", { { 2, 0, 0, 0, 1, 0x12 } } },
        [CLIENT] = { "198.51.100.5", "2001:db8:c::5", { { 2, 0, 0, 0, 1, 0x01 } } },
        [WORLD] = { "198.51.100.80", "2001:db8:c::80", { { 2, 0, 0, 0, 1, 0x01 } } },
        [PRIVATE] = { "198.18.0.9", "2001:db8:18::9", { { 2, 0, 0, 0, 1, 0x01 } } },
        [EXTERNAL] = { "203.0.113.7", "2001:db8:f::7", {} },
        [SECOND] = { "203.0.113.8", "2001:db8:f::8", {} },
        [CLUSTER] = { "10.96.0.10", "fd00:96::10", {} },
        [POD] = { "10.244.1.10", "fd00:1::10", { { 2, 0, 0, 0, 2, 0x10 } } },
        [POD2] = { "10.244.1.20", "fd00:1::20", { { 2, 0, 0, 0, 2, 0x20 } } },
        [REMOTE_POD] = { "10.244.2.10", "fd00:2::10", { { 2, 0, 0, 0, 1, 0x12 } } },
        [NOBODY] = { "10.244.1.99", "fd00:1::99", {} },
};

struct weft_addr at(int family, enum who who)
{
        struct weft_addr a = {};

        if (family == AF_INET6) {
                if (inet_pton(AF_INET6, people[who].six, &a) != 1)
                        assert(!"IPv6 address");
                return a;
        }
        a.w[2] = htonl(0xffff);
        if (inet_pton(AF_INET, people[who].four, &a.w[3]) != 1)
                assert(!"IPv4 address");
        return a;
}

struct mac mac_of(enum who who)
{
        return people[who].mac;
}

struct mac gateway_mac(enum who pod)
{
        struct mac m = people[pod].mac;

        m.b[4] = 3;
        return m;
}
