/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The nat tables of iptables before nftables, which nothing but their own socket options tells. The
 * rules lie one behind the other, and each says where its target and the next rule are. */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <string.h>
#include <sys/socket.h>

#include "config/values.h"
#include "net/nat.h"
#include "util.h"

/* Both families' structs, told apart by what differs. */
struct legacy {
        const char *command, *names;
        int family, level, info, entries;
        size_t info_size, header, rule; /* of the structs; of the rules in the answer */
        size_t target, next;            /* offsets in a rule */
        size_t source, mask, address;   /* the same, and the length of an address */
};

static const struct legacy families[] = {
        { "iptables", "/proc/thread-self/net/ip_tables_names", AF_INET, SOL_IP, IPT_SO_GET_INFO,
          IPT_SO_GET_ENTRIES, sizeof(struct ipt_getinfo),
          offsetof(struct ipt_get_entries, entrytable), sizeof(struct ipt_entry),
          offsetof(struct ipt_entry, target_offset), offsetof(struct ipt_entry, next_offset),
          offsetof(struct ipt_entry, ip.src), offsetof(struct ipt_entry, ip.smsk), 4 },
        { "ip6tables", "/proc/thread-self/net/ip6_tables_names", AF_INET6, SOL_IPV6,
          IP6T_SO_GET_INFO, IP6T_SO_GET_ENTRIES, sizeof(struct ip6t_getinfo),
          offsetof(struct ip6t_get_entries, entrytable), sizeof(struct ip6t_entry),
          offsetof(struct ip6t_entry, target_offset), offsetof(struct ip6t_entry, next_offset),
          offsetof(struct ip6t_entry, ipv6.src), offsetof(struct ip6t_entry, ipv6.smsk), 16 },
};

/* Asking for a table that is not there would make it. */
static bool has_nat(const struct legacy *l)
{
        _cleanup_fclose_ FILE *f = fopen(l->names, "re");
        char name[64];

        while (f && fgets(name, sizeof(name), f))
                if (strcmp(name, "nat\n") == 0)
                        return true;

        return false;
}

/* The whole answer to GET_ENTRIES; caller frees. NULL: the kernel gives none. */
static unsigned char *read_rules(const struct legacy *l, uint32_t *ret_size)
{
        struct ipt_getinfo info = { .name = "nat" }; /* of one layout in both families */
        _cleanup_close_ int fd = socket(l->family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
        _cleanup_free_ unsigned char *answer = NULL;
        socklen_t n = (socklen_t) l->info_size;

        if (fd < 0 || getsockopt(fd, l->level, l->info, &info, &n) < 0)
                return NULL;

        n = (socklen_t) (l->header + info.size);
        answer = calloc(1, n);
        if (!answer)
                return NULL;
        (void) snprintf((char *) answer, sizeof(info.name), "nat");
        memcpy(answer + offsetof(struct ipt_get_entries, size), &info.size, sizeof(info.size));
        if (getsockopt(fd, l->level, l->entries, answer, &n) < 0)
                return NULL;

        *ret_size = info.size;
        return TAKE(answer);
}

static struct weft_prefix source_of(const struct legacy *l, const unsigned char *rule)
{
        struct weft_prefix p = { .len = 128 - 8 * (uint32_t) l->address };
        unsigned char *to = (unsigned char *) &p.addr;

        if (l->family == AF_INET)
                p.addr.w[2] = htonl(0xffff);
        memcpy(to + sizeof(p.addr) - l->address, rule + l->source, l->address);
        for (size_t i = 0; i < l->address; i++)
                p.len += (uint32_t) __builtin_popcount(rule[l->mask + i]);

        return p;
}

static bool is_inverted(const struct legacy *l, const unsigned char *rule)
{
        return l->family == AF_INET
                       ? ((const struct ipt_entry *) rule)->ip.invflags & IPT_INV_SRCIP
                       : ((const struct ip6t_entry *) rule)->ipv6.invflags & IP6T_INV_SRCIP;
}

static bool concerns(const struct nat_search *s, const struct legacy *l, const unsigned char *rule,
                     uint32_t left)
{
        const struct xt_entry_target *target;
        struct weft_prefix from = source_of(l, rule);
        uint16_t at;

        memcpy(&at, rule + l->target, sizeof(at));
        if (at + sizeof(*target) > left)
                return false;
        target = (const void *) (rule + at);

        return nat_is_kind(s, target->u.user.name) &&
               (s->kind == NAT_DESTINATION || is_inverted(l, rule) || nat_meets_pods(s, &from));
}

static int look(const struct nat_search *s, const struct legacy *l, char *ret, size_t size)
{
        uint32_t all = 0;
        _cleanup_free_ unsigned char *answer = has_nat(l) ? read_rules(l, &all) : NULL;
        uint16_t next;

        for (uint32_t at = 0; answer && at + l->rule <= all; at += next) {
                const unsigned char *rule = answer + l->header + at;

                memcpy(&next, rule + l->next, sizeof(next));
                if (concerns(s, l, rule, all - at)) {
                        (void) snprintf(ret, size, "the nat table of %s-legacy", l->command);
                        return 1;
                }
                if (next < l->rule)
                        break;
        }

        return 0;
}

int nat_legacy(const struct nat_search *s, char *ret, size_t size)
{
        for (size_t i = 0; i < ELEMENTS(families); i++)
                if (look(s, &families[i], ret, size) > 0)
                        return 1;

        return 0;
}

/* A chain begins with a rule whose target is called ERROR and bears the chain's name. */
static const char *chain_name(const struct legacy *l, const unsigned char *rule, uint32_t left)
{
        const struct xt_error_target *target;
        uint16_t at;

        memcpy(&at, rule + l->target, sizeof(at));
        if (at + sizeof(*target) > left)
                return NULL;
        target = (const void *) (rule + at);

        return strcmp(target->target.u.user.name, XT_ERROR_TARGET) == 0 ? target->errorname : NULL;
}

static void each_chain(const struct legacy *l,
                       void (*f)(void *data, const char *table, const char *name), void *data)
{
        uint32_t all = 0;
        _cleanup_free_ unsigned char *answer = has_nat(l) ? read_rules(l, &all) : NULL;
        uint16_t next;
        char table[64];

        (void) snprintf(table, sizeof(table), "the nat table of %s-legacy", l->command);
        for (uint32_t at = 0; answer && at + l->rule <= all; at += next) {
                const unsigned char *rule = answer + l->header + at;
                const char *name = chain_name(l, rule, all - at);

                if (name)
                        f(data, table, name);
                memcpy(&next, rule + l->next, sizeof(next));
                if (next < l->rule)
                        return;
        }
}

void legacy_chains(void (*f)(void *data, const char *table, const char *name), void *data)
{
        for (size_t i = 0; i < ELEMENTS(families); i++)
                each_chain(&families[i], f, data);
}
