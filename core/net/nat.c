/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Rules of others in nftables that translate addresses, read from libnftables' JSON
 * (libnftables-json(5)). Rules that iptables-nft made are there as well: their targets are "xt". */

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <strings.h>

#include "config/values.h"
#include "net/nat.h"
#include "net/nft.h"
#include "util.h"

enum { JUMPS_MAX = 8 }; /* deeper than that everything is taken to be reached */

#define OWN_TABLES "weft-"

static void json_freep(json_t **j)
{
        json_decref(*j);
}

static const char *text(const json_t *j, const char *key)
{
        return json_string_value(json_object_get(j, key)) ?: "";
}

bool nat_is_kind(const struct nat_search *s, const char *statement)
{
        static const char *const words[][3] = {
                [NAT_SOURCE] = { "masquerade", "snat", "netmap" },
                [NAT_DESTINATION] = { "dnat", "redirect", "netmap" },
        };

        for (size_t i = 0; i < ELEMENTS(words[0]); i++)
                if (strcasecmp(statement, words[s->kind][i]) == 0)
                        return true;

        return false;
}

bool nat_meets_pods(const struct nat_search *s, const struct weft_prefix *p)
{
        for (size_t i = 0; i < s->n; i++)
                if (s->pods[i].len > p->len ? prefix_contains(p, &s->pods[i].addr)
                                            : prefix_contains(&s->pods[i], &p->addr))
                        return true;

        return s->n == 0;
}

/* ---- one rule ----------------------------------------------------------------------------- */

/* Does an address, a prefix or a set of them meet the pods? What else there is may. */
static bool value_meets(const struct nat_search *s, const json_t *value)
{
        const json_t *prefix = json_object_get(value, "prefix"),
                     *set = json_object_get(value, "set"), *one;
        struct weft_prefix p;
        char buf[64];
        size_t i;

        if (json_is_array(set)) {
                json_array_foreach (set, i, one)
                        if (value_meets(s, one))
                                return true;
                return false;
        }
        if (prefix)
                (void) snprintf(buf, sizeof(buf), "%s/%lld", text(prefix, "addr"),
                                (long long) json_integer_value(json_object_get(prefix, "len")));
        else
                (void) snprintf(buf, sizeof(buf), "%s", json_string_value(value) ?: "");

        return parse_prefix(buf, &p) < 0 || nat_meets_pods(s, &p);
}

/* A match on the source that no pod meets. */
static bool leaves_pods_out(const struct nat_search *s, const json_t *expression)
{
        const json_t *match = json_object_get(expression, "match"),
                     *payload = json_object_get(json_object_get(match, "left"), "payload");

        return strcmp(text(payload, "field"), "saddr") == 0 &&
               (strcmp(text(payload, "protocol"), "ip") == 0 ||
                strcmp(text(payload, "protocol"), "ip6") == 0) &&
               strcmp(text(match, "op"), "==") == 0 &&
               !value_meets(s, json_object_get(match, "right"));
}

/* The statement's own name, or the target of a rule of iptables. */
static bool translates(const struct nat_search *s, const json_t *expression)
{
        const json_t *xt = json_object_get(expression, "xt"), *to;
        const char *name;
        json_t *value;

        if (xt)
                return strcmp(text(xt, "type"), "target") == 0 && nat_is_kind(s, text(xt, "name"));

        json_object_foreach ((json_t *) expression, name, value) {
                if (!nat_is_kind(s, name))
                        continue;
                to = s->kind == NAT_DESTINATION ? json_object_get(value, "addr") : NULL;
                if (!to || value_meets(s, to))
                        return true;
        }

        return false;
}

static bool jumps_to(const json_t *expression, const char *chain)
{
        const json_t *jump =
                json_object_get(expression, "jump") ?: json_object_get(expression, "goto");

        return jump && strcmp(text(jump, "target"), chain) == 0;
}

/* Does one of the rule's expressions hold, before which none leaves the pods out? */
static bool reaches(const struct nat_search *s, const json_t *rule, const char *chain)
{
        const json_t *expression;
        size_t i;

        json_array_foreach (json_object_get(rule, "expr"), i, expression) {
                if (s->kind == NAT_SOURCE && leaves_pods_out(s, expression))
                        return false;
                if (chain ? jumps_to(expression, chain) : translates(s, expression))
                        return true;
        }

        return false;
}

/* ---- all of them -------------------------------------------------------------------------- */

static bool same(const json_t *a, const json_t *b, const char *key)
{
        return strcmp(text(a, key), text(b, key)) == 0;
}

/* May a pod's packet come to this rule's chain? A chain that nobody jumps to by name is reached by
 * a hook, or by a map. */
static bool is_reached(const struct nat_search *s, const json_t *ruleset, const json_t *rule,
                       int jumps)
{
        const json_t *entry;
        bool jumped = false;
        size_t i;

        json_array_foreach (ruleset, i, entry) {
                const json_t *by = json_object_get(entry, "rule");
                const struct nat_search any = { .kind = NAT_DESTINATION };

                if (!by || !same(by, rule, "family") || !same(by, rule, "table") ||
                    !reaches(&any, by, text(rule, "chain")))
                        continue;
                jumped = true;
                if (jumps == JUMPS_MAX ||
                    (reaches(s, by, text(rule, "chain")) && is_reached(s, ruleset, by, jumps + 1)))
                        return true;
        }

        return !jumped;
}

static int search(const struct nat_search *s, const json_t *ruleset, char *ret, size_t size)
{
        const json_t *entry;
        size_t i;

        json_array_foreach (ruleset, i, entry) {
                const json_t *rule = json_object_get(entry, "rule");

                if (!rule || strncmp(text(rule, "table"), OWN_TABLES, strlen(OWN_TABLES)) == 0 ||
                    !reaches(s, rule, NULL) || !is_reached(s, ruleset, rule, 0))
                        continue;
                (void) snprintf(ret, size, "table %s %s, chain %s, handle %lld",
                                text(rule, "family"), text(rule, "table"), text(rule, "chain"),
                                (long long) json_integer_value(json_object_get(rule, "handle")));
                return 1;
        }

        return 0;
}

int nat_of_others(enum nat_kind kind, const struct weft_prefix *pods, size_t n, char *ret,
                  size_t size)
{
        const struct nat_search s = { .kind = kind, .pods = pods, .n = n };
        _cleanup_(json_freep) json_t *j = NULL;
        _cleanup_free_ char *listing = NULL;
        struct weft_error why;
        int r = nft_run("list ruleset", true, &listing, &why);

        if (r == -EOPNOTSUPP)
                return nat_legacy(&s, ret, size);
        if (r < 0)
                return r;

        j = json_loads(listing, 0, NULL);
        r = j ? search(&s, json_object_get(j, "nftables"), ret, size) : -EBADMSG;

        return r == 0 ? nat_legacy(&s, ret, size) : r;
}
