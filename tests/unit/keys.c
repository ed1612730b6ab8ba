/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every key of the core's sections: none is ignored in silence, each is explained. */

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "ctl/keys.h"
#include "paths.h"
#include "util.h"

/* Every key there is, with a value that is not its default. */
static const struct {
        const char *section, *key, *value;
} rows[] = {
        { "weft", "mode", "strict" },
        { "weft", "xdp", "off" },
        { "weft", "flow-table-size", "64K" },
        { "weft", "mark-mask", "0x0200" },
        { "weft", "underlay", "ipv6" },
        { "weft", "metrics-listen", "127.0.0.1:9999" },
        { "weft", "tcx-order", "first" },
        { "weft", "debug-attach", "clsact" },
        { "node", "name", "n1" },
        { "node", "address", "192.0.2.11" },
        { "node", "pod-cidr", "10.244.1.0/24" },
        { "node", "uplink", "eth0" },
        { "peer", "address", "192.0.2.12" },
        { "peer", "pod-cidr", "10.244.2.0/24" },
        { "peer", "identity", "77" },
        { "peer", "routing", "tunnel" },
        { "endpoint", "netns", "/run/netns/web-1" },
        { "endpoint", "pid", "4711" },
        { "endpoint", "interface", "veth0" },
        { "endpoint", "address", "10.244.1.10" },
        { "endpoint", "device", "net1" },
        { "endpoint", "kind", "netkit" },
        { "endpoint", "identity", "1001" },
        { "service", "port", "80/tcp" },
        { "service", "cluster-ip", "10.96.0.10" },
        { "service", "node-port", "30080" },
        { "service", "external-ip", "198.51.100.7" },
        { "service", "load-balancer-ip", "203.0.113.10" },
        { "service", "backend", "10.244.1.10:8080 weight=2" },
        { "service", "algorithm", "maglev" },
        { "service", "maglev-table-size", "251" },
        { "service", "affinity", "10s" },
        { "service", "forwarding", "dsr" },
        { "service", "external-traffic", "local" },
        { "service", "internal-traffic", "local" },
        { "service", "source-range", "10.0.0.0/8" },
        { "service", "no-backend", "drop" },
        { "service", "health-check-node-port", "32000" },
};

static const struct section *find_section(const char *name)
{
        for (const struct section *s = sections; s->name; s++)
                if (strcmp(s->name, name) == 0)
                        return s;

        return NULL;
}

static const struct key *find_key(const struct section *s, const char *name)
{
        for (const struct key *k = s->keys; k->o.key; k++)
                if (strcmp(k->o.key, name) == 0)
                        return k;

        return NULL;
}

/* Room for an object of any section. */
union object {
        struct config config;
        char bytes[sizeof(struct config) + 1024];
};

Test(keys, the_keys_of_the_tables_are_those_listed_here)
{
        size_t n = 0;

        for (const struct section *s = sections; s->name; s++)
                for (const struct key *k = s->keys; k && k->o.key; k++)
                        n++;
        cr_expect_eq(n, ELEMENTS(rows));

        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                const struct section *s = find_section(rows[i].section);

                cr_assert_not_null(s, "[%s]", rows[i].section);
                cr_expect_not_null(find_key(s, rows[i].key), "[%s] %s", s->name, rows[i].key);
        }
}

Test(keys, what_is_written_is_kept_and_never_ignored)
{
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                const struct section *s = find_section(rows[i].section);
                union object object = {}, untouched;
                struct weft_error why = {};
                int r;

                cr_assert_eq(keys_default(s->keys, &object, &why), 0, "%s", why.text);
                untouched = object;
                r = keys_set(s->keys, &object, rows[i].key, rows[i].value, &why);
                cr_expect(r == 0 && memcmp(&object, &untouched, sizeof(object)) != 0,
                          "[%s] %s = %s: %s", s->name, rows[i].key, rows[i].value, why.text);
                keys_clear(s->keys, &object);
        }
}

Test(keys, defaults_are_values_and_an_empty_assignment_is_never_an_error)
{
        for (const struct section *s = sections; s->name; s++)
                for (const struct key *k = s->keys; k && k->o.key; k++) {
                        const char *values[] = { "", key_default_text(k) };
                        union object object = {};
                        struct weft_error why = {};

                        cr_assert_eq(keys_default(s->keys, &object, &why), 0);
                        for (size_t i = 0; i < ELEMENTS(values); i++)
                                cr_expect(!values[i] || keys_set(s->keys, &object, k->o.key,
                                                                 values[i], &why) == 0,
                                          "[%s] %s = %s: %s", s->name, k->o.key, values[i],
                                          why.text);
                        keys_clear(s->keys, &object);
                }
}

Test(keys, each_has_a_type_and_a_sentence_of_help)
{
        char type[256];

        for (const struct section *s = sections; s->name; s++) {
                cr_expect_not_null(s->help, "[%s]", s->name);
                for (const struct key *k = s->keys; k && k->o.key; k++) {
                        const char *help = k->o.help ?: "";

                        cr_expect(*help && help[strlen(help) - 1] == '.', "[%s] %s: \"%s\"",
                                  s->name, k->o.key, help);
                        (void) key_type_text(k, type, sizeof(type));
                        cr_expect(type[0] && !strstr(type, "unknown"), "[%s] %s: %s", s->name,
                                  k->o.key, type);
                }
        }
}

Test(keys, the_sample_in_conf_d_is_what_the_tables_say)
{
        _cleanup_free_ char *there = NULL, *made = NULL;
        size_t size;
        FILE *f = open_memstream(&made, &size);

        keys_sample(f);
        (void) fclose(f);
        cr_assert_eq(file_read(SOURCE "/conf.d/weft.conf.sample", &there), 0, "ninja chapters");
        cr_expect_str_eq(made, there, "run ninja chapters");
}
