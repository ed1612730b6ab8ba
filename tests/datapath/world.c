/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "util.h"
#include "world-internal.h"

const char *variant_directory(enum variant v, char path[64])
{
        snprintf(path, 64, WORLD_BPFFS "/%d", v);
        return path;
}

const char *variant_program(enum variant v, uint32_t hook, char path[64])
{
        snprintf(path, 64, WORLD_BPFFS "/%d/hook%u", v, hook);
        return path;
}

uint32_t machine_hz(void)
{
        struct timespec tick;

        clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
        return (1000000000 + tick.tv_nsec / 2) / tick.tv_nsec;
}

int object_read(const char *variable, struct blob *ret)
{
        const char *path = getenv(variable) ?: "(not set)";
        _cleanup_fclose_ FILE *f = fopen(path, "re");
        long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;

        if (size <= 0) {
                fprintf(stderr, "world: %s: cannot read %s\n", variable, path);
                return -EINVAL;
        }
        rewind(f);
        ret->size = size;
        ret->data = malloc(size);
        return ret->data && fread(ret->data, size, 1, f) == 1 ? 0 : -EIO;
}

void blob_done(struct blob *b)
{
        free(b->data);
}

const char *tables_directory(enum variant v, char path[64])
{
        bool own = v == SMALL || v >= MODULES_2;

        return variant_directory(own ? v : FULL, path);
}

int variant_tables(enum variant v, struct tables **ret, struct weft_error *reterr)
{
        _cleanup_(blob_done) struct blob object = {};
        bool few = getenv("WEFT_TABLES") != NULL;
        char path[64];
        struct tables_settings settings = {
                .bpffs = tables_directory(v, path),
                .hz = machine_hz(),
                .flow_table_size = v == SMALL ? SMALL_TABLE
                                   : few      ? 16384
                                              : 65536,
                .small = few,
        };
        int r = object_read(few ? "WEFT_TABLES" : "WEFT_ENGINE", &object);

        return r < 0 ? r : tables_open(&settings, object.data, object.size, ret, reterr);
}

/* ---- every test begins with nothing ------------------------------------------------------- */

/* In one pass: to find the first key is to search all buckets of a table that is nearly empty. */
static void delete_all(int fd, size_t key_size)
{
        uint8_t key[64], next[64];
        bool more;

        assert(key_size <= sizeof(key));
        more = bpf_map_get_next_key(fd, NULL, key) == 0;
        while (more) {
                more = bpf_map_get_next_key(fd, key, next) == 0;
                (void) bpf_map_delete_elem(fd, key);
                memcpy(key, next, sizeof(key));
        }
}

static void zero_mapped(int fd, const struct bpf_map_info *info)
{
        size_t size = (size_t) ((info->value_size + 7) / 8 * 8) * info->max_entries;
        void *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        assert(m != MAP_FAILED);
        memset(m, 0, size);
        munmap(m, size);
}

static void zero_elements(int fd, const struct bpf_map_info *info)
{
        _cleanup_free_ void *zeros =
                calloc(libbpf_num_possible_cpus(), (info->value_size + 7) / 8 * 8);

        for (uint32_t i = 0; i < info->max_entries; i++)
                bpf_map_update_elem(fd, &i, zeros, 0);
}

static void wipe(enum variant v, const char *name)
{
        _cleanup_close_ int fd = -1;
        struct bpf_map_info info = {};
        uint32_t size = sizeof(info);
        char path[128], directory[64];

        snprintf(path, sizeof(path), "%s/maps/%s", tables_directory(v, directory), name);
        fd = bpf_obj_get(path);
        if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
                abort();
        if (info.map_flags & BPF_F_MMAPABLE)
                zero_mapped(fd, &info);
        else if (info.type == BPF_MAP_TYPE_PERCPU_ARRAY || info.type == BPF_MAP_TYPE_ARRAY)
                zero_elements(fd, &info);
        else
                delete_all(fd, info.key_size);
}

/* Not the half-open rings, which have most elements of all: only a flow that opened in the same
 * tick is what their places speak of. */
static void wipe_all(enum variant v)
{
        static const char *const maps[] = {
                "flows4",   "flows6", "nexthops",  "endpoints", "services", "service_slots",
                "backends", "maglev", "affinity",  "members",   "placed",   "source_ranges",
                "peers",    "links",  "fragments", "filter",    "world",    "forwards",
                "drops",    "events", "ring_next", "nodes",     "remotes",  "overlays",
        };

        for (size_t i = 0; i < ELEMENTS(maps); i++)
                wipe(v, maps[i]);
}

/* ---- filling the tables ------------------------------------------------------------------- */

static void must(int r, const struct weft_error *e)
{
        if (r >= 0)
                return;
        fprintf(stderr, "world: %s: %s\n", strerror(-r), e ? e->text : "");
        abort();
}

void world_set_link(struct world *w, bool with4, bool with6, uint32_t mtu)
{
        struct weft_link link = { .flags = WEFT_NEXTHOP_MARK, .mtu = mtu };

        if (with4)
                link.addr4 = at(AF_INET, NODE);
        if (with6)
                link.addr6 = at(AF_INET6, NODE);
        must(tables_set_link(w->tables, w->ifindex[UPLINK], &link), NULL);
}

static const char *pod_name(enum who pod)
{
        return pod == POD ? "pod" : "pod2";
}

void world_set_endpoint(struct world *w, enum who pod)
{
        struct weft_addr addrs[] = { at(AF_INET, pod), at(AF_INET6, pod) };
        struct table_endpoint e = {
                .addrs = addrs, .n_addrs = 2, .identity = 1000, .has_peer = true
        };
        struct mac mac = mac_of(pod), gateway = gateway_mac(pod);
        struct weft_error error = {};

        e.ifindex = w->ifindex[pod == POD ? EP0 : EP1];
        memcpy(e.mac, mac.b, 6);
        memcpy(e.gateway_mac, gateway.b, 6);
        must(tables_set_endpoint(w->tables, pod_name(pod), &e, &error), &error);
}

void world_set_service(struct world *w, int family, const struct service *s)
{
        struct weft_addr external[2], node = at(family, NODE), cluster = at(family, CLUSTER);
        struct config_backend backends[2];
        char name[64];
        struct config_service c = {
                .name = name,
                .port = s->port,
                .proto = s->proto,
                .node_port = s->node_port,
                .external_ip = { external, s->n_external },
                .cluster_ip = { &cluster, s->cluster },
                .backends = backends,
                .n_backends = s->n_backends,
                .forwarding = s->forwarding,
                .no_backend = s->drop_empty ? NO_BACKEND_DROP : NO_BACKEND_REJECT,
        };
        struct weft_error error = {};

        snprintf(name, sizeof(name), "%s-%s", s->name, family == AF_INET ? "4" : "6");
        for (size_t i = 0; i < s->n_external; i++)
                external[i] = at(family, s->external[i]);
        for (size_t i = 0; i < s->n_backends; i++)
                backends[i] = (struct config_backend) {
                        .addr = at(family, s->backends[i]),
                        .port = BACKEND_PORT,
                        .weight = 1,
                        .local = s->backends[i] == POD || s->backends[i] == POD2,
                };
        must(tables_set_service(w->tables, &c, &node, 1, &error), &error);
}

void world_set_services(struct world *w)
{
        static const struct service list[] = {
                { .name = "remote",
                  .port = SERVICE_PORT,
                  .node_port = NODE_PORT,
                  .external = { EXTERNAL, SECOND },
                  .n_external = 2,
                  .cluster = true,
                  .backends = { REMOTE_POD },
                  .n_backends = 1 },
                { .name = "local",
                  .port = LOCAL_SERVICE_PORT,
                  .node_port = LOCAL_PORT,
                  .external = { EXTERNAL },
                  .n_external = 1,
                  .cluster = true,
                  .backends = { POD },
                  .n_backends = 1 },
                { .name = "empty", .port = 82, .node_port = EMPTY_PORT, .cluster = true },
                { .name = "silent", .port = 83, .node_port = SILENT_PORT, .drop_empty = true },
                { .name = "socket",
                  .port = SOCKET_SERVICE_PORT,
                  .cluster = true,
                  .backends = { NODE },
                  .n_backends = 1 },
        };
        static const struct {
                uint8_t proto;
                const char *suffix;
        } protocols[] = { { IPPROTO_TCP, "tcp" }, { IPPROTO_UDP, "udp" } };
        char name[32];

        for (size_t i = 0; i < ELEMENTS(list) * ELEMENTS(protocols); i++) {
                struct service s = list[i / 2];

                snprintf(name, sizeof(name), "%s-%s", s.name, protocols[i % 2].suffix);
                s.name = name;
                s.proto = protocols[i % 2].proto;
                world_set_service(w, AF_INET, &s);
                world_set_service(w, AF_INET6, &s);
        }
}

/* NODE2 and its pods. remote 0: without a tunnel. */
static void set_peer(struct world *w, int family, const struct weft_addr *node, uint32_t remote)
{
        struct weft_prefix pods = { at(family, REMOTE_POD), family == AF_INET ? 120 : 64 },
                           itself = { at(family, NODE2), 128 };
        struct weft_peer peer = { .node = *node,
                                  .identity = 6,
                                  .number = 1,
                                  .remote = remote,
                                  .flags = remote ? WEFT_PEER_TUNNEL : 0 };

        if (family == AF_INET)
                pods.addr.w[3] &= htonl(0xffffff00);
        else
                pods.addr.w[2] = pods.addr.w[3] = 0;
        must(tables_set_peer(w->tables, &pods, &peer), NULL);
        peer.flags |= WEFT_PEER_NODE;
        must(tables_set_peer(w->tables, &itself, &peer), NULL);
}

void world_set_tunnel(struct world *w, int underlay)
{
        const struct weft_addr own = at(underlay, NODE), other = at(underlay, NODE2);
        struct weft_overlay overlay = { .mtu = underlay == AF_INET ? 1450 : 1430 };
        uint32_t remote;

        tunnel_mac(&own, overlay.mac);
        tables_set_overlay(w->tables, w->variant + 1, &overlay);
        must(tables_set_node(w->tables, &other, &remote), NULL);
        set_peer(w, AF_INET, &other, remote);
        set_peer(w, AF_INET6, &other, remote);
}

/* ---- opening ------------------------------------------------------------------------------ */

static void open_programs(struct world *w)
{
        char path[64];

        if (access(variant_program(w->variant, WEFT_FROM_UPLINK, path), F_OK) < 0 &&
            !variant_ask(w->variant))
                abort();
        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                w->programs[hook] = bpf_obj_get(variant_program(w->variant, hook, path));
        w->to_overlay = bpf_obj_get(variant_program(w->variant, WEFT_HOOKS, path));
}

struct world *world_open(enum variant variant)
{
        struct world *w = calloc(1, sizeof(*w));
        struct weft_error error = {};

        assert(w);
        w->variant = variant;
        w->hz = machine_hz();
        open_programs(w);
        wipe_all(variant);
        must(variant_tables(variant, &w->tables, &error), &error);
        for (size_t i = 0; i < DEVICES; i++)
                w->ifindex[i] = if_nametoindex(device_names[i]);
        world_set_link(w, true, true, 1500);
        world_set_endpoint(w, POD);
        world_set_endpoint(w, POD2);
        for (int i = 0; i < 2; i++) {
                int family = i == 0 ? AF_INET : AF_INET6;
                struct weft_addr node = at(family, NODE2);

                set_peer(w, family, &node, 0);
        }
        world_set_services(w);
        return w;
}

struct world *world_close(struct world *w)
{
        if (!w)
                return NULL;
        for (uint32_t hook = 0; hook < WEFT_HOOKS; hook++)
                closep(&w->programs[hook]);
        closep(&w->to_overlay);
        tables_close(w->tables);
        free(w);
        return NULL;
}

void world_closep(struct world **w)
{
        world_close(*w);
}

/* ---- running ------------------------------------------------------------------------------ */

static struct outcome run_tc(struct world *w, enum weft_hook hook, const struct skb *skb,
                             const struct packet *in)
{
        struct __sk_buff ctx = {
                .ifindex = w->ifindex[skb->device],
                .mark = skb->mark,
                .gso_size = skb->gso_size,
                .gso_segs = skb->gso_segs,
        };
        struct outcome o = {};
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->data, .data_size_in = in->len,
                    .data_out = o.out.data, .data_size_out = PACKET_MAX, .ctx_in = &ctx,
                    .ctx_size_in = sizeof(ctx), .ctx_out = &ctx, .ctx_size_out = sizeof(ctx),
                    .repeat = 1);

        o.error = bpf_prog_test_run_opts(w->programs[hook], &opts) < 0 ? -errno : 0;
        o.verdict = (int) opts.retval;
        o.mark = ctx.mark;
        o.out.len = opts.data_size_out;
        return o;
}

/* A run of an XDP program is not told the interface on every kernel: it is the loopback. */
static struct outcome run_xdp(struct world *w, const struct packet *in)
{
        struct outcome o = {};
        LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->data, .data_size_in = in->len,
                    .data_out = o.out.data, .data_size_out = PACKET_MAX, .repeat = 1);

        o.error = bpf_prog_test_run_opts(w->programs[WEFT_XDP_UPLINK], &opts) < 0 ? -errno : 0;
        o.verdict = (int) opts.retval;
        o.out.len = opts.data_size_out;
        return o;
}

struct outcome world_run(struct world *w, enum weft_hook hook, const struct skb *skb,
                         const struct packet *in)
{
        return hook == WEFT_XDP_UPLINK ? run_xdp(w, in) : run_tc(w, hook, skb, in);
}
