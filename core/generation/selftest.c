/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "config/values.h"
#include "generation/maps.h"
#include "generation/object.h"
#include "generation/selftest.h"
#include "module/api.h"
#include "util.h"

#define FRAME_MAX 2048
#define BACKENDS_MAX 8
#define COPY_MAX 65536 /* elements of one map */

struct run {
        const struct dry_network *network;
        struct tables *tables;
        struct generation *generation;
        struct instance *const *modules;
        size_t n_modules, n_run;
        const struct weft_test *served; /* whose services are in the tables */
};

/* ---- the tables --------------------------------------------------------------------------- */

static int fill_endpoint(const struct run *run, struct weft_error *reterr)
{
        struct weft_addr addrs[2];
        struct table_endpoint e = { .addrs = addrs,
                                    .n_addrs = 2,
                                    .ifindex = run->network->endpoint,
                                    .identity = 1,
                                    .has_peer = true };

        (void) parse_address(DRY_ENDPOINT4, &addrs[0]);
        (void) parse_address(DRY_ENDPOINT6, &addrs[1]);
        memcpy(e.mac, dry_endpoint_mac, 6);
        memcpy(e.gateway_mac, dry_gateway_mac, 6);
        return tables_set_endpoint(run->tables, "endpoint", &e, reterr);
}

/* The peer that tests of a tunnel carry packets to. */
static int fill_tunnel(const struct run *run, struct weft_error *reterr)
{
        struct weft_overlay overlay = { .ifindex = run->network->uplink, .mtu = 1450 };
        struct weft_peer peer = { .identity = WEFT_IDENTITY_REMOTE_NODE,
                                  .flags = WEFT_PEER_TUNNEL };
        struct weft_prefix pods;
        struct weft_addr own;
        int r;

        (void) parse_address(DRY_ADDRESS4, &own);
        (void) parse_address(DRY_PEER4, &peer.node);
        (void) parse_prefix(DRY_PEER_PODS4, &pods);
        tunnel_mac(&own, overlay.mac);
        tables_set_overlay(run->tables, generation_number(run->generation), &overlay);
        r = tables_set_node(run->tables, &peer.node, &peer.remote);
        if (r == 0)
                r = tables_set_peer(run->tables, &pods, &peer);

        return r < 0 ? weft_fail(reterr, r, "peers table: %s", strerror(-r)) : 0;
}

/* Its own address, from which it sends. */
static int fill_node(const struct run *run)
{
        struct weft_peer peer = { .identity = WEFT_IDENTITY_REMOTE_NODE, .flags = WEFT_PEER_NODE };
        struct weft_prefix own = { .len = 128 };

        (void) parse_address(DRY_PEER4, &own.addr);
        peer.node = own.addr;
        return tables_set_peer(run->tables, &own, &peer);
}

static int fill_tables(const struct run *run, struct weft_error *reterr)
{
        struct weft_link link = { .flags = WEFT_NEXTHOP_MARK, .mtu = 1500 };
        int r;

        (void) parse_address(DRY_ADDRESS4, &link.addr4);
        (void) parse_address(DRY_ADDRESS6, &link.addr6);
        r = tables_set_link(run->tables, run->network->uplink, &link);
        if (r == 0)
                r = fill_node(run);
        if (r == 0 && generation_tunnel(run->generation))
                r = fill_tunnel(run, reterr);

        return r < 0 ? weft_fail(reterr, r, "links table: %s", strerror(-r))
                     : fill_endpoint(run, reterr);
}

static bool is_endpoint(const struct weft_addr *a)
{
        struct weft_addr four, six;

        (void) parse_address(DRY_ENDPOINT4, &four);
        (void) parse_address(DRY_ENDPOINT6, &six);
        return memcmp(a, &four, sizeof(four)) == 0 || memcmp(a, &six, sizeof(six)) == 0;
}

static int set_service(const struct run *run, const char *name, const struct weft_test_service *s,
                       struct weft_error *reterr)
{
        struct config_backend backends[BACKENDS_MAX] = { 0 };
        struct weft_addr external, node[2];
        struct config_service c = { .name = (char *) name,
                                    .port = s->port,
                                    .node_port = s->node_port,
                                    .proto = s->proto,
                                    .backends = backends };
        bool valid = true;

        for (; valid && s->backends && s->backends[c.n_backends]; c.n_backends++) {
                struct config_backend *b = &backends[c.n_backends];

                b->weight = 1;
                valid = c.n_backends < BACKENDS_MAX - 1 &&
                        parse_address_port(s->backends[c.n_backends], &b->addr, &b->port) >= 0;
                b->local = is_endpoint(&b->addr);
        }
        if (s->external_ip) {
                valid = valid && parse_address(s->external_ip, &external) >= 0;
                c.external_ip = (struct weft_addresses) { &external, 1 };
        }
        if (!valid)
                return weft_fail(reterr, -EINVAL, "a service of the test is not valid");

        (void) parse_address(DRY_ADDRESS4, &node[0]);
        (void) parse_address(DRY_ADDRESS6, &node[1]);
        return tables_set_service(run->tables, &c, node, 2, reterr);
}

/* Sets the services of a test, or takes them out. */
static int set_services(const struct run *run, const struct weft_test *t, bool there,
                        struct weft_error *reterr)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && t->services && t->services[i].proto; i++) {
                char name[32];

                (void) snprintf(name, sizeof(name), "service %zu", i);
                if (there)
                        r = set_service(run, name, &t->services[i], reterr);
                else
                        tables_del_service(run->tables, name);
        }

        return r;
}

/* ---- the modules' maps -------------------------------------------------------------------- */

/* What the module filled in attach. State of the live traffic stays out of it. */
static bool is_copied(const struct bpf_object *o, const struct bpf_map *m)
{
        struct map_tag tag;

        if (object_map_is_constants(m) || map_tag_read(o, bpf_map__name(m), &tag, NULL) < 0 ||
            tag.class != MAP_CONFIG)
                return false;

        switch (bpf_map__type(m)) {
        case BPF_MAP_TYPE_HASH:
        case BPF_MAP_TYPE_LRU_HASH:
        case BPF_MAP_TYPE_LPM_TRIE:
        case BPF_MAP_TYPE_ARRAY:
                return true;
        default:
                return false; /* counters of each CPU, and what holds no data of its own */
        }
}

static int copy_map(const struct bpf_map *m, int from, int to)
{
        size_t key_size = bpf_map__key_size(m);
        _cleanup_free_ char *room = calloc(1, 2 * key_size + bpf_map__value_size(m));
        char *key = room, *value = key ? key + 2 * key_size : NULL;
        const char *last = NULL;

        if (!room)
                return -ENOMEM;

        for (uint32_t n = 0; n < COPY_MAX && bpf_map_get_next_key(from, last, key) == 0; n++) {
                int r = bpf_map_lookup_elem(from, key, value);

                if (r == 0)
                        r = bpf_map_update_elem(to, key, value, BPF_ANY);
                if (r < 0 && r != -ENOENT)
                        return r;
                last = memcpy(key + key_size, key, key_size);
        }

        return 0;
}

/* From the instance's own into those of its dry load. The core's tables and the engine's maps stay.
 */
static int copy_maps(const struct run *run, const struct instance *i, const struct bpf_object *dry,
                     struct weft_error *reterr)
{
        struct bpf_map *m;

        bpf_object__for_each_map (m, dry) {
                const char *name = bpf_map__name(m);
                int from, r;

                if (!is_copied(dry, m) || tables_fd(run->tables, name) >= 0)
                        continue;

                from = bpf_object__find_map_fd_by_name(i->object, name);
                r = from < 0 ? 0 : copy_map(m, from, bpf_map__fd(m));
                if (r < 0)
                        return weft_fail(
                                reterr, r,
                                "module %s, map %s: cannot be copied for the self-test: %s",
                                i->module->desc.name, name, strerror(-r));
        }

        return 0;
}

static int copy_all_maps(const struct run *run, struct weft_error *reterr)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < run->n_modules; i++) {
                const struct bpf_object *dry = generation_object(run->generation, i);

                if (dry && run->modules[i]->object)
                        r = copy_maps(run, run->modules[i], dry, reterr);
        }

        return r;
}

/* ---- one test ----------------------------------------------------------------------------- */

static bool may_be_anything(const struct weft_test *t, uint32_t at)
{
        for (size_t i = 0; i < ELEMENTS(t->any) && t->any[i].size > 0; i++)
                if (at - t->any[i].from < t->any[i].size)
                        return true;

        return false;
}

static int compare(const struct weft_test *t, const uint8_t *frame, uint32_t size,
                   struct weft_error *reterr)
{
        if (!t->expected.data)
                return 0;
        if (size != t->expected.size)
                return weft_fail(reterr, -EBADMSG, "%u bytes came out, and not %u", size,
                                 t->expected.size);

        for (uint32_t i = 0; i < size; i++)
                if (frame[i] != t->expected.data[i] && !may_be_anything(t, i))
                        return weft_fail(reterr, -EBADMSG,
                                         "byte %u came out as 0x%02x, and not as 0x%02x", i,
                                         frame[i], t->expected.data[i]);

        return 0;
}

static const char *verdict_name(int verdict)
{
        switch (verdict) {
        case WEFT_TEST_NEXT:
                return "next";
        case WEFT_TEST_DROP:
                return "drop";
        case WEFT_TEST_REDIRECT:
                return "redirect";
        default:
                return "something else";
        }
}

static void note_drop(void *data, const struct count_view *v)
{
        if (v->packets > 0)
                *(const char **) data = v->help;
}

static int fail_verdict(const struct run *run, int got, int wanted, struct weft_error *reterr)
{
        const char *why = NULL;

        tables_each_drop(run->tables, note_drop, &why);
        return weft_fail(reterr, -EBADMSG, "the verdict is %s (%d)%s%s, and not %s",
                         verdict_name(got), got, why ? ": " : "", why ? why : "",
                         verdict_name(wanted));
}

static int run_packet(const struct run *run, const struct weft_test *t, struct weft_error *reterr)
{
        bool endpoint = t->hook == WEFT_FROM_ENDPOINT || t->hook == WEFT_TO_ENDPOINT;
        struct __sk_buff ctx = { .ifindex =
                                         endpoint ? run->network->endpoint : run->network->uplink };
        uint8_t out[FRAME_MAX];
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = t->packet.data,
                    .data_size_in = t->packet.size, .data_out = out, .data_size_out = sizeof(out),
                    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx), .repeat = 1);
        int fd = generation_hook_fd(run->generation, t->hook), r;

        if (fd < 0 || t->hook == WEFT_XDP_UPLINK)
                return weft_fail(reterr, -EINVAL, "no packet can be tested at hook %u", t->hook);

        r = bpf_prog_test_run_opts(fd, &opts);
        if (r < 0)
                return weft_fail(reterr, r, "the packet cannot be run: %s", strerror(-r));
        if ((int) opts.retval != t->verdict)
                return fail_verdict(run, (int) opts.retval, t->verdict, reterr);

        return compare(t, out, opts.data_size_out, reterr);
}

/* Flows, and what modules remember: one of them may count what another's packets open. */
static void forget(const struct run *run)
{
        tables_forget(run->tables);
        for (size_t i = 0; i < run->n_modules; i++) {
                const struct bpf_object *o = generation_object(run->generation, i);

                if (o)
                        maps_forget(o);
        }
}

/* One that goes on keeps the services too: without them its flows would be others. */
static int run_test(struct run *run, const struct weft_test *t, struct weft_error *reterr)
{
        int r = 0;

        if (!t->goes_on) {
                if (run->served)
                        (void) set_services(run, run->served, false, NULL);
                forget(run);
                run->served = t;
                r = set_services(run, t, true, reterr);
        }

        return r < 0 ? r : run_packet(run, t, reterr);
}

/* ---- which -------------------------------------------------------------------------------- */

static bool has_module(const struct run *run, const char *name)
{
        for (size_t i = 0; i < run->n_modules; i++)
                if (strcmp(run->modules[i]->module->desc.name, name) == 0)
                        return true;

        return false;
}

static bool is_ip6(const struct weft_test_bytes *b)
{
        return b->size > 14 && b->data[12] == 0x86 && b->data[13] == 0xdd;
}

static bool holds_here(const struct run *run, struct instance *i, const struct weft_test *t)
{
        return (run->network->has6 || !is_ip6(&t->packet)) &&
               (!t->with || has_module(run, t->with)) &&
               (!t->without || !has_module(run, t->without)) &&
               (!t->applies || t->applies((struct weft_instance *) i, &core_api));
}

static int run_tests(struct run *run, struct instance *i, struct weft_error *reterr)
{
        const struct weft_test *t = i->module->desc.tests;
        bool before = false;

        for (; t && t->name; t++) {
                int r;

                before = (before || !t->goes_on) && holds_here(run, i, t);
                r = before ? run_test(run, t, reterr) : 0;
                if (r < 0)
                        return weft_fail_in(reterr, r, "module %s, self-test \"%s\"",
                                            i->module->desc.name, t->name);
                run->n_run += before;
        }

        return 0;
}

static bool any_tests(struct instance *const *modules, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (modules[i]->module->desc.tests)
                        return true;

        return false;
}

static int run_all(struct run *run, struct weft_error *reterr)
{
        int r = dry_network_enter(run->network, reterr);

        if (r < 0)
                return r;

        for (size_t i = 0; r >= 0 && i < run->n_modules; i++)
                r = run_tests(run, run->modules[i], reterr);

        dry_network_leave(run->network);
        return r;
}

/* ---- the dry load ------------------------------------------------------------------------- */

struct selftest {
        struct run run;
        struct generation_settings settings;
        pthread_t thread;
        bool is_loading;
        int r; /* of the load */
        struct weft_error why;
        char *refusal; /* the verifier's */
};

static void load(struct selftest *t)
{
        const struct generation_settings *s = &t->settings;
        const struct tables_settings tables = { .hz = s->hz, .dry = true, .small = true };
        struct run *run = &t->run;

        t->r = tables_open(&tables, s->engine, s->engine_size, &run->tables, &t->why);
        if (t->r >= 0)
                t->r = generation_build(run->tables, s, run->modules, run->n_modules,
                                        &run->generation, &t->why);
}

static void *load_beside(void *data)
{
        struct selftest *t = data;

        load(t);
        t->refusal = object_take_refusal();
        return NULL;
}

/* Two loads that take turns on one CPU would only be in each other's way. */
static bool has_two_cpus(void)
{
        cpu_set_t set;

        return sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) > 1;
}

int selftest_begin(const struct generation_settings *s, struct instance *const *modules,
                   size_t n_modules, struct selftest **ret, struct weft_error *reterr)
{
        struct selftest *t;

        *ret = NULL;
        if (!any_tests(modules, n_modules))
                return 0;

        t = *ret = calloc(1, sizeof(*t));
        if (!t)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        t->run = (struct run) { .modules = modules, .n_modules = n_modules };
        t->settings = *s;
        t->settings.dry = true;
        t->is_loading = has_two_cpus() && pthread_create(&t->thread, NULL, load_beside, t) == 0;
        if (!t->is_loading) /* one after the other, then */
                (void) load_beside(t);

        return 0;
}

void selftest_wait(struct selftest *t)
{
        if (t && t->is_loading)
                (void) pthread_join(t->thread, NULL);
        if (t)
                t->is_loading = false;
}

int selftest_run(struct selftest *t, const struct dry_network *network, size_t *ret_run,
                 struct weft_error *reterr)
{
        struct run *run;
        int r;

        if (!t)
                return 0;

        selftest_wait(t);
        if (t->r < 0) {
                object_put_refusal(TAKE(t->refusal));
                return weft_fail(reterr, t->r, "%s", t->why.text);
        }

        run = &t->run;
        run->network = network;
        r = copy_all_maps(run, reterr);
        if (r >= 0)
                r = fill_tables(run, reterr);
        if (r >= 0)
                r = run_all(run, reterr);
        if (ret_run)
                *ret_run = run->n_run;
        return r;
}

struct selftest *selftest_free(struct selftest *t)
{
        if (!t)
                return NULL;

        selftest_wait(t);
        (void) generation_free(t->run.generation);
        (void) tables_close(t->run.tables);
        free(t->refusal);
        free(t);
        return NULL;
}
