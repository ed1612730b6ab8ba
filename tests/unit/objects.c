/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Objects set at run time: the store, and the configuration as they come and go. */

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#include "config/check.h"
#include "config/edit.h"
#include "config/index.h"
#include "config/store.h"
#include "config/values.h"
#include "paths.h"
#include "util.h"

#define FILES                                                                                      \
        "[node]\nname = n1\naddress = 192.0.2.11\npod-cidr = 10.244.1.0/24\n"                      \
        "[peer n2]\naddress = 192.0.2.12\npod-cidr = 10.244.2.0/24\n"                              \
        "[service web]\nport = 80/tcp\nnode-port = 30080\nexternal-ip = 198.51.100.7\n"            \
        "[endpoint far]\nnetns = /run/netns/far\naddress = 10.7.0.1\n"

struct site {
        char root[64];
        struct config *config;
        struct diagnostics diagnostics;
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        (void) st;
        (void) flag;
        (void) ftw;
        return remove(path);
}

static void write_file(const struct site *s, const char *name, const char *text)
{
        char path[256], dir[256];
        FILE *f;

        (void) snprintf(path, sizeof(path), "%s/%s", s->root, name);
        (void) snprintf(dir, sizeof(dir), "%.*s", (int) (strrchr(path, '/') - path), path);
        cr_assert_eq(make_directories(dir, 0755, NULL), 0);
        f = fopen(path, "we");
        cr_assert_not_null(f);
        cr_assert_geq(fputs(text, f), 0);
        cr_assert_eq(fclose(f), 0);
}

static void read_again(struct site *s)
{
        s->config = config_free(s->config);
        diagnostics_done(&s->diagnostics);
        (void) config_load(s->root, &s->config, &s->diagnostics);
}

static struct site site_new(void)
{
        struct site s = { .root = "/tmp/weft-test-objects-XXXXXX" };

        cr_assert_not_null(mkdtemp(s.root));
        write_file(&s, "etc/weft/weft.conf", FILES);
        read_again(&s);
        cr_assert_not_null(s.config);
        return s;
}

static void site_done(struct site *s)
{
        config_free(s->config);
        diagnostics_done(&s->diagnostics);
        (void) nftw(s->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct edit begin(struct site *s)
{
        diagnostics_done(&s->diagnostics);
        return (struct edit) { .config = s->config, .root = s->root, .uid = 1000 };
}

/* text: "KEY=VALUE|KEY=VALUE" */
static int set(struct site *s, struct edit *e, const char *kind, const char *name, const char *text,
               struct weft_error *reterr)
{
        _cleanup_free_ char *copy = strdup(text);
        struct setting settings[8];
        size_t n = 0;

        for (char *rest = copy, *word; (word = strsep(&rest, "|")) && *word;) {
                settings[n].key = strsep(&word, "=");
                settings[n++].value = word;
        }

        return edit_set(e, section_by_name(kind), name, settings, n, &s->diagnostics, reterr);
}

/* One object, kept. */
static int set_kept(struct site *s, const char *kind, const char *name, const char *text)
{
        struct edit e = begin(s);
        struct weft_error why = { 0 };
        int r = set(s, &e, kind, name, text, &why);

        if (r == 0)
                r = edit_store(&e, &why);
        if (r < 0)
                edit_undo(&e);
        edit_done(&e);
        return r;
}

static int remove_kept(struct site *s, const char *kind, const char *name,
                       struct weft_error *reterr)
{
        struct edit e = begin(s);
        int r = edit_remove(&e, section_by_name(kind), name, reterr);

        if (r == 0)
                r = edit_store(&e, reterr);
        edit_done(&e);
        return r;
}

static const char *stored(const struct site *s, const char *name, char buf[static 4096])
{
        char path[256];
        _cleanup_free_ char *text = NULL;

        (void) snprintf(path, sizeof(path), "%s/var/lib/weft/objects/%s.conf", s->root, name);
        if (file_read(path, &text) < 0)
                return NULL;

        (void) snprintf(buf, 4096, "%s", text);
        return buf;
}

Test(objects, what_is_set_is_there_and_is_read_again_just_so)
{
        struct site s = site_new();
        char buf[4096];

        cr_assert_eq(set_kept(&s, "service", "dns",
                              "port=53/udp|cluster-ip=10.96.0.10|backend=10.0.0.1:53|"
                              "backend=10.0.0.2:53 weight=3"),
                     0);
        cr_expect_str_eq(stored(&s, "service/dns", buf),
                         "# weft object 1, uid 1000\n[service dns]\nport = 53/udp\n"
                         "cluster-ip = 10.96.0.10\nbackend = 10.0.0.1:53\n"
                         "backend = 10.0.0.2:53 weight=3\n");

        for (int i = 0; i < 2; i++) {
                const struct config_service *dns = config_service(s.config, "dns");

                cr_assert_not_null(dns);
                cr_expect_eq(dns->port, 53);
                cr_expect_eq(dns->n_backends, 2);
                cr_expect_eq(dns->backends[1].weight, 3);
                cr_expect(dns->origin.runtime);
                cr_expect_eq(dns->origin.uid, 1000);
                cr_expect_eq(dns->origin.line, 2);
                cr_expect_not(config_service(s.config, "web")->origin.runtime);
                read_again(&s);
                cr_assert_not_null(s.config);
        }

        cr_assert_eq(remove_kept(&s, "service", "dns", NULL), 0);
        cr_expect_null(config_service(s.config, "dns"));
        cr_expect_null(stored(&s, "service/dns", buf));
        site_done(&s);
}

Test(objects, keys_that_are_not_mentioned_stay_and_lists_are_replaced)
{
        struct site s = site_new();
        char buf[4096];

        cr_assert_eq(set_kept(&s, "service", "a", "port=1/tcp|node-port=30001|backend=10.0.0.1:1"),
                     0);
        cr_assert_eq(set_kept(&s, "service", "a", "backend=10.0.0.2:2|backend=10.0.0.3:3"), 0);
        cr_assert_eq(set_kept(&s, "service", "a", "node-port=|external-ip=198.51.100.8"), 0);
        cr_expect_str_eq(
                stored(&s, "service/a", buf),
                "# weft object 1, uid 1000\n[service a]\nport = 1/tcp\n"
                "backend = 10.0.0.2:2\nbackend = 10.0.0.3:3\nexternal-ip = 198.51.100.8\n");
        cr_expect_eq(config_service(s.config, "a")->node_port, 0);
        /* What it had is free again, what it has is not. */
        cr_expect_eq(set_kept(&s, "service", "b", "port=1/tcp|node-port=30001"), 0);
        cr_expect_eq(set_kept(&s, "service", "c", "port=1/tcp|external-ip=198.51.100.8"), -EINVAL);
        site_done(&s);
}

Test(objects, what_is_refused_says_why_and_leaves_everything_as_it_was)
{
        static const struct {
                const char *kind, *name, *text, *why;
        } cases[] = {
                { "service", "x", "port=80/tcp|node-port=30080", "taken by [service web]" },
                { "service", "x", "port=80/tcp|external-ip=198.51.100.7",
                  "taken by [service web]" },
                { "service", "x", "port=80/tcp|external-ip=192.0.2.12", "taken by [peer n2]" },
                { "service", "x", "port=80/tcp|external-ip=192.0.2.11", "taken by [node]" },
                { "service", "x", "port=80/tcp", "cannot be reached" },
                { "service", "x", "prot=80/tcp", "did you mean \"port\"?" },
                { "service", "x", "port=80/tcp|node-port=1|backend=10.0.0.1:1 ; no",
                  "begin a comment" },
                { "service", "x", "port=80/tcp|node-port=1\nport=81/tcp", "one line" },
                { "service", "x", "port=80/tcp|node-port=1|backend=10.0.0.1:1|backend=10.0.0.1:1",
                  "given twice" },
                { "peer", "x", "address=192.0.2.13|pod-cidr=10.244.2.128/25",
                  "overlaps 10.244.2.0/24 of [peer n2]" },
                { "peer", "x", "address=192.0.2.13|pod-cidr=10.0.0.0/8", "of [node]" },
                { "peer", "x", "address=198.51.100.7", "taken by [service web]" },
                { "peer", "x", "address=192.0.2.13|pod-cidr=127.0.0.0/8", "(loopback)" },
                { "peer", "x", "address=192.0.2.13|pod-cidr=10.9.0.0/24|pod-cidr=10.9.0.0/25",
                  "overlaps 10.9.0.0/24 of [peer x]" },
                { "peer", "x", "address=192.0.2.13|pod-cidr=10.7.0.0/16",
                  "[endpoint far] address = 10.7.0.1: is in pod-cidr 10.7.0.0/16 of [peer x]" },
                { "endpoint", "x", "netns=/run/netns/x|address=10.244.2.9",
                  "is in pod-cidr 10.244.2.0/24 of [peer n2]" },
                { "service", "x", "port=80/tcp|node-port=1|backend=10.0.0.1:1 node=\"n1\"",
                  "is no name of a node" },
                { "peer", "n1", "address=192.0.2.13", "has the name of this node" },
                { "endpoint", "x", "netns=/run/netns/x|pid=1", "exactly one of" },
                { "endpoint", "x", "interface=veth0", "add address" },
        };
        struct site s = site_new();

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                cr_expect_eq(set_kept(&s, cases[i].kind, cases[i].name, cases[i].text), -EINVAL,
                             "%s", cases[i].text);
                cr_assert_geq(s.diagnostics.n, 1);
                cr_expect(strstr(s.diagnostics.items[0].text, cases[i].why), "%s: %s",
                          cases[i].text, s.diagnostics.items[0].text);
        }

        cr_expect_eq(s.config->n_services, 1);
        cr_expect_eq(s.config->n_peers, 1);
        cr_expect_eq(s.config->n_endpoints, 1);
        cr_expect_eq(set_kept(&s, "service", "x", "port=81/tcp|node-port=30081"), 0);
        cr_expect_eq(set_kept(&s, "peer", "x", "address=192.0.2.13|pod-cidr=10.244.3.0/24"), 0);
        site_done(&s);
}

Test(objects, what_an_operator_wrote_is_not_changed_and_the_place_is_said)
{
        struct site s = site_new();
        struct weft_error why = { 0 };
        struct edit e = begin(&s);

        cr_expect_eq(set(&s, &e, "service", "web", "port=81/tcp", &why), -EROFS);
        cr_expect(strstr(why.text, "weft.conf:8"), "%s", why.text);
        cr_expect_eq(edit_remove(&e, section_by_name("peer"), "n2", &why), -EROFS);
        cr_expect(strstr(why.text, "weft.conf:5"), "%s", why.text);
        cr_expect_eq(edit_remove(&e, section_by_name("peer"), "n9", &why), -ENOENT);
        edit_done(&e);
        site_done(&s);
}

Test(objects, a_batch_that_is_undone_leaves_objects_claims_and_names_as_they_were)
{
        struct site s = site_new();
        struct weft_error why = { 0 };
        struct edit e;

        cr_assert_eq(set_kept(&s, "service", "a", "port=1/tcp|node-port=30001"), 0);
        cr_assert_eq(set_kept(&s, "service", "b", "port=2/tcp|node-port=30002"), 0);

        e = begin(&s);
        cr_assert_eq(set(&s, &e, "service", "c", "port=3/tcp|node-port=30003", &why), 0);
        cr_assert_eq(set(&s, &e, "service", "a", "node-port=30009", &why), 0);
        cr_assert_eq(edit_remove(&e, section_by_name("service"), "b", &why), 0);
        cr_expect_eq(set(&s, &e, "service", "c", "port=4/tcp", &why), -EINVAL);
        cr_expect(strstr(why.text, "named twice"), "%s", why.text);
        cr_expect_eq(config_service(s.config, "a")->node_port, 30009);
        cr_expect_null(config_service(s.config, "b"));
        edit_undo(&e);
        edit_done(&e);

        cr_expect_eq(s.config->n_services, 3);
        cr_expect_eq(config_service(s.config, "a")->node_port, 30001);
        cr_expect_eq(config_service(s.config, "b")->node_port, 30002);
        cr_expect_null(config_service(s.config, "c"));
        cr_expect_eq(set_kept(&s, "service", "d", "port=1/tcp|node-port=30001"), -EINVAL);
        cr_expect_eq(set_kept(&s, "service", "d", "port=1/tcp|node-port=30002"), -EINVAL);
        cr_expect_eq(set_kept(&s, "service", "d", "port=1/tcp|node-port=30003"), 0);
        cr_expect_eq(set_kept(&s, "service", "e", "port=1/tcp|node-port=30009"), 0);
        site_done(&s);
}

Test(objects, every_one_of_many_is_found_after_others_went)
{
        struct site s = site_new();
        struct weft_error why = { 0 };
        char name[16], text[64];

        for (unsigned i = 0; i < 64; i++) {
                (void) snprintf(name, sizeof(name), "s%u", i);
                (void) snprintf(text, sizeof(text), "port=1/tcp|node-port=%u", 31000 + i);
                cr_assert_eq(set_kept(&s, "service", name, text), 0);
        }
        for (unsigned i = 0; i < 64; i += 3) {
                (void) snprintf(name, sizeof(name), "s%u", i);
                cr_assert_eq(remove_kept(&s, "service", name, &why), 0, "%s", why.text);
        }
        for (unsigned i = 0; i < 64; i++) {
                const struct config_service *found;

                (void) snprintf(name, sizeof(name), "s%u", i);
                found = config_service(s.config, name);
                cr_expect_eq(found != NULL, i % 3 != 0);
                cr_expect(!found ||
                          (found->node_port == 31000 + i && strcmp(found->name, name) == 0));
        }
        read_again(&s);
        cr_assert_not_null(s.config);
        cr_expect_eq(s.config->n_services, 1 + 64 - 22);
        site_done(&s);
}

Test(objects, a_stored_object_and_a_file_of_the_same_name_are_an_error_that_names_both)
{
        struct site s = site_new();

        cr_assert_eq(set_kept(&s, "service", "twice", "port=1/tcp|node-port=30001"), 0);
        write_file(&s, "etc/weft/conf.d/x.conf",
                   "\n[service twice]\nport = 1/tcp\nnode-port = 30002\n");
        read_again(&s);
        cr_assert_null(s.config);
        cr_assert_eq(s.diagnostics.n, 1);
        cr_expect_eq(s.diagnostics.items[0].origin.line, 2);
        cr_expect(strstr(s.diagnostics.items[0].origin.file, "conf.d/x.conf"));
        cr_expect(strstr(s.diagnostics.items[0].text, "objects/service/twice.conf"));
        cr_expect(strstr(s.diagnostics.items[0].text, "weftctl service del twice"));
        site_done(&s);
}

Test(objects, a_batch_is_written_whole_or_not_at_all)
{
        static const struct store_change changes[] = {
                { "service", "a", 0, "[service a]\nport = 2/tcp\n" },
                { "service", "new", 0, "[service new]\nport = 3/tcp\n" },
                { "service", "b", 0, NULL },
                { "peer", "c", 0, "[peer c]\n" }, /* its directory cannot be made */
        };
        struct site s = site_new();
        struct weft_error why = { 0 };
        char buf[4096];

        cr_assert_eq(set_kept(&s, "service", "a", "port=1/tcp|node-port=30001"), 0);
        cr_assert_eq(set_kept(&s, "service", "b", "port=1/tcp|node-port=30002"), 0);
        write_file(&s, "var/lib/weft/objects/peer", "in the way");
        cr_expect_lt(store_apply(s.root, changes, 4, &why), 0);
        cr_expect(strstr(why.text, "objects/peer"), "%s", why.text);
        cr_expect(strstr(stored(&s, "service/a", buf), "port = 1/tcp"));
        cr_expect_not_null(stored(&s, "service/b", buf));
        cr_expect_null(stored(&s, "service/new", buf));
        site_done(&s);
}

Test(objects, what_a_killed_writer_left_is_no_object_and_goes_at_the_next_start)
{
        struct site s = site_new();
        char path[256];

        write_file(&s, "var/lib/weft/objects/service/.half.new", "# weft obj");
        read_again(&s);
        cr_assert_not_null(s.config);
        store_tidy(s.root);
        (void) snprintf(path, sizeof(path), "%s/var/lib/weft/objects/service/.half.new", s.root);
        cr_expect_lt(access(path, F_OK), 0);
        site_done(&s);
}
