/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/nearest.h"
#include "config/values.h"
#include "util.h"

/* A unit behind a number and how much of the base unit it is. */
struct unit {
        const char *name;
        uint64_t factor;
};

int parse_bool(const char *s, bool *ret)
{
        static const char *const words[] = { "no", "yes", "off", "on", "false", "true", "0", "1" };

        for (size_t i = 0; i < ELEMENTS(words); i++)
                if (strcmp(s, words[i]) == 0) {
                        *ret = i & 1;
                        return 0;
                }

        return -EINVAL;
}

/* strtoull() takes signs and blanks, which are no part of a number here. */
static int parse_digits(const char *s, int base, uint64_t *ret, const char **ret_end)
{
        const char *digits = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";
        uint64_t v;

        if (*s == '\0' || !strchr(digits, *s))
                return -EINVAL;

        errno = 0;
        v = strtoull(s, (char **) ret_end, base);
        if (errno > 0)
                return -errno;

        *ret = v;
        return 0;
}

int parse_number(const char *s, uint64_t *ret)
{
        bool hex = s[0] == '0' && s[1] == 'x';
        const char *end;
        uint64_t v;
        int r;

        r = parse_digits(hex ? s + 2 : s, hex ? 16 : 10, &v, &end);
        if (r < 0)
                return r;
        if (*end != '\0')
                return -EINVAL;

        *ret = v;
        return 0;
}

static int parse_with_unit(const char *s, const struct unit *units, size_t n, uint64_t *ret)
{
        const char *end;
        uint64_t v;
        int r;

        r = parse_digits(s, 10, &v, &end);
        if (r < 0)
                return r;

        if (v == 0 && *end == '\0') {
                *ret = 0;
                return 0;
        }

        for (size_t i = 0; i < n; i++)
                if (strcmp(end, units[i].name) == 0)
                        return __builtin_mul_overflow(v, units[i].factor, ret) ? -ERANGE : 0;

        return -EINVAL;
}

int parse_size(const char *s, uint64_t *ret)
{
        static const struct unit units[] = {
                { "", 1 },
                { "K", 1 << 10 },
                { "M", 1 << 20 },
                { "G", 1 << 30 },
        };
        uint64_t v;
        int r;

        r = parse_with_unit(s, units, ELEMENTS(units), &v);
        if (r < 0)
                return r;

        *ret = v;
        return 0;
}

int parse_time(const char *s, uint64_t *ret)
{
        static const struct unit units[] = {
                { "ms", 1 },
                { "s", 1000 },
                { "min", 60 * 1000 },
                { "h", 3600 * 1000 },
        };
        uint64_t v;
        int r;

        r = parse_with_unit(s, units, ELEMENTS(units), &v);
        if (r < 0)
                return r;

        *ret = v;
        return 0;
}

int parse_choice(const char *s, const char *const *choices, uint32_t *ret)
{
        for (uint32_t i = 0; choices[i]; i++)
                if (strcmp(s, choices[i]) == 0) {
                        *ret = i;
                        return 0;
                }

        return -EINVAL;
}

/* ---- addresses ---------------------------------------------------------------------------- */

bool address_is_ipv4(const struct weft_addr *a)
{
        return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == htonl(0xffff);
}

bool address_is_zero(const struct weft_addr *a)
{
        return (a->w[0] | a->w[1] | a->w[2] | a->w[3]) == 0;
}

bool address_equal(const struct weft_addr *a, const struct weft_addr *b)
{
        return memcmp(a, b, sizeof(*a)) == 0;
}

bool address_is_unicast(const struct weft_addr *a)
{
        uint32_t first = ntohl(a->w[3]) >> 24;

        if (address_is_ipv4(a)) /* 0.0.0.0/8 and 127.0.0.0/8: RFC 1122; 224.0.0.0/4 is multicast */
                return first > 0 && first != 127 && first < 224;

        return !address_is_zero(a) && !IN6_IS_ADDR_LOOPBACK((const struct in6_addr *) a) &&
               ntohl(a->w[0]) >> 24 != 0xff;
}

int parse_address(const char *s, struct weft_addr *ret)
{
        struct weft_addr a = { .w = { 0, 0, htonl(0xffff), 0 } };

        if (inet_pton(AF_INET, s, &a.w[3]) == 1) {
                *ret = a;
                return 0;
        }

        /* The long way of writing an IPv4 address would give one thing two names. */
        if (inet_pton(AF_INET6, s, &a) != 1 || address_is_ipv4(&a))
                return -EINVAL;

        *ret = a;
        return 0;
}

/* Bits of word i that a prefix length covers, in network order. */
static uint32_t prefix_mask(uint32_t len, uint32_t i)
{
        uint32_t bits = len <= i * 32 ? 0 : len - i * 32;

        return bits == 0 ? 0 : bits >= 32 ? ~0u : htonl(~0u << (32 - bits));
}

bool prefix_contains(const struct weft_prefix *p, const struct weft_addr *a)
{
        for (uint32_t i = 0; i < 4; i++)
                if ((p->addr.w[i] ^ a->w[i]) & prefix_mask(p->len, i))
                        return false;

        return true;
}

bool any_prefix_contains(const struct weft_prefix *prefixes, size_t n, const struct weft_addr *a)
{
        for (size_t i = 0; i < n; i++)
                if (prefix_contains(&prefixes[i], a))
                        return true;

        return false;
}

/* They nest or are apart. */
bool prefixes_overlap(const struct weft_prefix *a, const struct weft_prefix *b)
{
        return prefix_contains(a, &b->addr) || prefix_contains(b, &a->addr);
}

void prefix_trim(struct weft_prefix *p)
{
        for (uint32_t i = 0; i < 4; i++)
                p->addr.w[i] &= prefix_mask(p->len, i);
}

int pod_gateway(const struct weft_prefix *cidr, struct weft_addr *ret)
{
        if (cidr->len > 126)
                return -ERANGE;

        *ret = cidr->addr;
        ret->w[3] = htonl(ntohl(ret->w[3]) + 1);
        return 0;
}

static int parse_prefix_len(const char *s, bool ipv4, uint32_t *ret)
{
        const char *end;
        uint64_t len;
        int r;

        r = parse_digits(s, 10, &len, &end);
        if (r < 0)
                return r;
        if (*end != '\0' || len > (ipv4 ? 32 : 128))
                return -EINVAL;

        *ret = (uint32_t) len + (ipv4 ? 96 : 0);
        return 0;
}

int parse_network(const char *s, struct weft_prefix *ret)
{
        const char *slash = strchrnul(s, '/');
        struct weft_prefix p = { .len = 128 };
        char addr[ADDRESS_TEXT];
        int r;

        if ((size_t) (slash - s) >= sizeof(addr))
                return -EINVAL;
        (void) snprintf(addr, sizeof(addr), "%.*s", (int) (slash - s), s);

        r = parse_address(addr, &p.addr);
        if (r < 0)
                return r;

        if (*slash != '\0') {
                r = parse_prefix_len(slash + 1, address_is_ipv4(&p.addr), &p.len);
                if (r < 0)
                        return r;
        }

        prefix_trim(&p);
        *ret = p;
        return 0;
}

int parse_prefix(const char *s, struct weft_prefix *ret)
{
        const struct weft_addr any4 = { .w = { 0, 0, htonl(0xffff), 0 } };
        char addr[ADDRESS_TEXT];
        struct weft_addr written;
        struct weft_prefix p;
        int r;

        r = parse_network(s, &p);
        if (r < 0)
                return r;

        (void) snprintf(addr, sizeof(addr), "%.*s", (int) (strchrnul(s, '/') - s), s);
        r = parse_address(addr, &written);
        if (r < 0)
                return r;
        if (!address_equal(&p.addr, &written))
                return -EINVAL;
        if (!address_is_ipv4(&p.addr) && prefix_contains(&p, &any4))
                return -EINVAL;

        *ret = p;
        return 0;
}

char *address_format(const struct weft_addr *a, char *buf, size_t size)
{
        bool ipv4 = address_is_ipv4(a);

        if (!inet_ntop(ipv4 ? AF_INET : AF_INET6, ipv4 ? &a->w[3] : a->w, buf, (socklen_t) size) &&
            size > 0)
                buf[0] = '\0';

        return buf;
}

char *prefix_format(const struct weft_prefix *p, char *buf, size_t size)
{
        char addr[ADDRESS_TEXT];
        bool ipv4 = address_is_ipv4(&p->addr) && p->len >= 96;

        (void) snprintf(buf, size, "%s/%u", address_format(&p->addr, addr, sizeof(addr)),
                        ipv4 ? p->len - 96 : p->len);

        return buf;
}

/* ---- ports -------------------------------------------------------------------------------- */

/* A port that can be spoken to: 1 to 65535, host order. */
static int parse_port(const char *s, char stop, uint16_t *ret, const char **ret_end)
{
        uint64_t v;
        int r;

        r = parse_digits(s, 10, &v, ret_end);
        if (r < 0)
                return r;
        if (**ret_end != stop)
                return -EINVAL;
        if (v < 1 || v > UINT16_MAX)
                return -ERANGE;

        *ret = (uint16_t) v;
        return 0;
}

int parse_ports(const char *s, struct weft_ports *ret)
{
        struct weft_ports ports = {};
        const char *dash = strchr(s, '-'), *end;
        int r;

        if (strcmp(s, "auto") == 0) {
                *ret = ports;
                return 0;
        }

        r = parse_port(s, dash ? '-' : '\0', &ports.low, &end);
        if (r < 0)
                return r;

        ports.high = ports.low;
        if (dash) {
                r = parse_port(end + 1, '\0', &ports.high, &end);
                if (r < 0)
                        return r;
        }
        if (ports.low > ports.high)
                return -EINVAL;

        *ret = ports;
        return 0;
}

int parse_address_port(const char *s, struct weft_addr *ret_addr, uint16_t *ret_port)
{
        const char *colon = strrchr(s, ':'), *start = s, *stop = colon, *end;
        char text[ADDRESS_TEXT];
        struct weft_addr a;
        bool bracket = *s == '[';
        int r;

        if (!colon || (bracket && colon[-1] != ']'))
                return -EINVAL;
        if (bracket) {
                start++;
                stop--;
        }
        if (stop < start || (size_t) (stop - start) >= sizeof(text))
                return -EINVAL;
        (void) snprintf(text, sizeof(text), "%.*s", (int) (stop - start), start);

        r = parse_address(text, &a);
        if (r < 0)
                return r;
        if (bracket == address_is_ipv4(&a)) /* brackets around IPv6, and around nothing else */
                return -EINVAL;

        r = parse_port(colon + 1, '\0', ret_port, &end);
        if (r < 0)
                return r;

        *ret_addr = a;
        return 0;
}

int parse_port_proto(const char *s, uint16_t *ret_port, uint8_t *ret_proto)
{
        static const char *const names[] = { "tcp", "udp", "sctp", NULL };
        static const uint8_t protos[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP };
        const char *end;
        uint32_t proto;
        uint16_t port;
        int r;

        r = parse_port(s, '/', &port, &end);
        if (r < 0)
                return r;

        r = parse_choice(end + 1, names, &proto);
        if (r < 0)
                return r;

        *ret_port = port;
        *ret_proto = protos[proto];
        return 0;
}

/* ---- lists -------------------------------------------------------------------------------- */

int list_grow(void *items, size_t n, size_t item_size)
{
        void *old, *grown;

        if (n & (n - 1)) /* not at a power of two: there is room still */
                return 0;

        memcpy(&old, items, sizeof(old)); /* a pointer of any type */
        grown = reallocarray(old, n ? n * 2 : 1, item_size);
        if (!grown)
                return -ENOMEM;

        memcpy(items, &grown, sizeof(grown));
        return 0;
}

bool addresses_have(const struct weft_addresses *list, const struct weft_addr *a)
{
        for (size_t i = 0; i < list->n; i++)
                if (address_equal(&list->items[i], a))
                        return true;

        return false;
}

int addresses_add(struct weft_addresses *list, const struct weft_addr *a)
{
        if (list_grow(&list->items, list->n, sizeof(*a)) < 0)
                return -ENOMEM;

        list->items[list->n++] = *a;
        return 0;
}

int prefixes_add(struct weft_prefixes *list, const struct weft_prefix *p)
{
        if (list_grow(&list->items, list->n, sizeof(*p)) < 0)
                return -ENOMEM;

        list->items[list->n++] = *p;
        return 0;
}

/* Networks that are not part of the internet: RFC 1918, 6598, 6890, 5737, 7526, 2544, 1112. The
 * same eleven are ip-masq-agent's default. */
static const char *const set_rfc1918[] = {
        "10.0.0.0/8",      "172.16.0.0/12",  "192.168.0.0/16", "100.64.0.0/10",
        "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",    NULL,
};

static const struct {
        const char *name;
        const char *const *prefixes;
} prefix_sets[] = {
        { "rfc1918", set_rfc1918 },
};

static const char *const *find_prefix_set(const char *name)
{
        for (size_t i = 0; i < ELEMENTS(prefix_sets); i++)
                if (strcmp(prefix_sets[i].name, name) == 0)
                        return prefix_sets[i].prefixes;

        return NULL;
}

void prefix_sets_near(struct nearest *n)
{
        for (size_t i = 0; i < ELEMENTS(prefix_sets); i++)
                nearest_try(n, prefix_sets[i].name);
}

int prefixes_add_set(struct weft_prefixes *list, const char *name)
{
        const char *const *set = find_prefix_set(name);
        struct weft_prefix p;
        int r;

        if (!set)
                return -ENOENT;

        for (; *set; set++) {
                r = parse_prefix(*set, &p);
                if (r < 0)
                        return r;
                r = prefixes_add(list, &p);
                if (r < 0)
                        return r;
        }

        return 0;
}
