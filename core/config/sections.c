/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "config/nearest.h"
#include "config/option.h"
#include "config/sections.h"
#include "config/values.h"
#include "util.h"

/* Identities are 24 bits. 0, 1, 2 and 6 are unknown, host, world and remote node. */
#define IDENTITY_MAX 0xffffff
#define PEER_IDENTITY_MIN 3

#define AFFINITY_MAX (366ULL * 86400 * 1000) /* milliseconds */

/* ---- values that no type fits ------------------------------------------------------------- */

static bool is_plain_name(const char *name)
{
        for (const char *c = name; *c != '\0'; c++)
                if (!isalnum((unsigned char) *c) && !strchr("._-", *c))
                        return false;

        return isalnum((unsigned char) *name);
}

/* What another node's [peer NAME] could not say is no name of a node. */
static int check_node_name(const char *value, struct weft_error *reterr)
{
        if (is_plain_name(value))
                return 0;

        return weft_fail(reterr, -EINVAL,
                         "is no name of a node: write letters, digits, \".\", \"_\" and \"-\", "
                         "beginning with a letter or digit, without quotes");
}

static int check_pod_cidr_item(void *data, const char *item, struct weft_error *reterr)
{
        static const struct {
                const char *prefix, *what;
        } others[] = {
                { "0.0.0.0/8", "no host's addresses" },  /* RFC 1122 3.2.1.3 */
                { "127.0.0.0/8", "loopback" },           /* the same */
                { "169.254.0.0/16", "link-local" },      /* RFC 3927 */
                { "224.0.0.0/4", "multicast" },          /* RFC 5771 */
                { "::/127", "no address and loopback" }, /* RFC 4291 2.5 */
                { "fe80::/10", "link-local" },           { "ff00::/8", "multicast" },
        };
        struct weft_prefix pods, other;

        (void) data;
        if (parse_prefix(item, &pods) < 0)
                return 0; /* whoever reads the value says what is wrong */

        for (size_t i = 0; i < ELEMENTS(others); i++)
                if (parse_prefix(others[i].prefix, &other) == 0 && prefixes_overlap(&pods, &other))
                        return weft_fail(reterr, -EINVAL,
                                         "\"%s\" overlaps %s (%s): pods need addresses that other "
                                         "hosts reach, such as 10.244.1.0/24 or fd00:1::/64",
                                         item, others[i].prefix, others[i].what);

        return 0;
}

static int check_pod_cidr(const char *value, struct weft_error *reterr)
{
        return each_item(value, check_pod_cidr_item, NULL, reterr);
}

static int check_listen(const char *value, struct weft_error *reterr)
{
        struct weft_addr addr;
        uint16_t port;

        return parse_address_port(value, &addr, &port) == 0
                       ? 0
                       : weft_fail(reterr, -EINVAL,
                                   "must be an address and a port: 127.0.0.1:9964 or [::1]:9964");
}

static int set_flow_table_size(const struct key *k, void *field, const char *value,
                               struct weft_error *reterr)
{
        uint64_t size;

        (void) k;
        if (*value == '\0' || strcmp(value, "auto") == 0) {
                *(uint64_t *) field = 0;
                return 0;
        }

        if (parse_size(value, &size) < 0)
                return weft_fail(reterr, -EINVAL,
                                 "must be auto or a number of entries such as 512K");
        if (size < 1024 || size > 256 << 20)
                return weft_fail(reterr, -ERANGE, "must be from 1K to 256M entries");

        *(uint64_t *) field = size;
        return 0;
}

static int check_ifname(const char *value, struct weft_error *reterr)
{
        bool dots = strcmp(value, ".") == 0 || strcmp(value, "..") == 0;

        if (strlen(value) >= IF_NAMESIZE || dots || strpbrk(value, "/: \t"))
                return weft_fail(
                        reterr, -EINVAL,
                        "\"%s\" is no name of an interface: at most 15 characters, without "
                        "\"/\", \":\" and blanks",
                        value);

        return 0;
}

struct uplinks {
        struct strings *all;
        size_t earlier; /* of other lines */
};

static int add_uplink(void *data, const char *item, struct weft_error *reterr)
{
        const struct uplinks *u = data;
        int r = check_ifname(item, reterr);

        if (r < 0)
                return r;
        for (size_t i = u->earlier; i < u->all->n; i++)
                if (strcmp(u->all->items[i], item) == 0)
                        return weft_fail(reterr, -EEXIST,
                                         "%s is given twice: name each interface once", item);

        r = strings_add(u->all, item);
        return r < 0 ? weft_fail(reterr, r, "out of memory") : 0;
}

static int set_uplink(const struct key *k, void *field, const char *value,
                      struct weft_error *reterr)
{
        struct uplinks u = { .all = field, .earlier = ((struct strings *) field)->n };

        (void) k;
        if (*value == '\0') {
                strings_done(field);
                return 0;
        }

        return each_item(value, add_uplink, &u, reterr);
}

static int check_identity(const char *value, struct weft_error *reterr)
{
        uint64_t n;

        if (parse_number(value, &n) == 0 && (n == 1 || n == 2 || n == 6))
                return weft_fail(reterr, -EINVAL,
                                 "is reserved (1 host, 2 world, 6 remote node): choose another");

        return 0;
}

static int check_netns(const char *value, struct weft_error *reterr)
{
        if (*value != '/')
                return weft_fail(reterr, -EINVAL,
                                 "must be a whole path such as /run/netns/web-1, from / on");

        return 0;
}

static int set_port(const struct key *k, void *field, const char *value, struct weft_error *reterr)
{
        struct config_service *s = field;

        (void) k;
        if (*value == '\0') {
                s->port = 0;
                return 0;
        }

        if (parse_port_proto(value, &s->port, &s->proto) < 0)
                return weft_fail(reterr, -EINVAL,
                                 "must be a port from 1 to 65535 and a protocol, "
                                 "such as 80/tcp, 53/udp or 9/sctp");

        return 0;
}

/* "17", or "17 started=4711" as weftd stores it: after a restart the number may be another
 * process's. */
static int set_pid(const struct key *k, void *field, const char *value, struct weft_error *reterr)
{
        struct config_endpoint *e = field;
        char number[16] = "", started[32] = "";
        uint64_t pid = 0, start = 0;

        (void) k;
        if (*value != '\0' &&
            (sscanf(value, "%15s started=%31s", number, started) < 1 ||
             (!*started && strchr(value, ' ')) || parse_number(number, &pid) < 0 || pid < 1 ||
             pid > 1 << 22 || (*started && parse_number(started, &start) < 0)))
                return weft_fail(reterr, -EINVAL, "must be from 1 to %d: the number of a process",
                                 1 << 22);

        e->pid = (uint32_t) pid;
        e->started = start;
        return 0;
}

static const char *const backend_states[] = { "active", "draining", "maintenance", NULL };

static const struct key backend_keys[] = {
        { WEFT_OPT_U32(struct config_backend, weight, "weight", "1", 0, 1000, "") },
        { WEFT_OPT_ENUM(struct config_backend, state, "state", "active", backend_states, "") },
        { WEFT_OPT_STRING(struct config_backend, node, "node", NULL, ""),
          .check = check_node_name },
        {},
};

static int set_backend_word(struct config_backend *b, const char *word, struct weft_error *reterr)
{
        _cleanup_free_ char *key = strdup(word);
        char *value = key;
        int r;

        if (!key)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        (void) strsep(&value, "=");
        if (!value || *value == '\0')
                return weft_fail(reterr, -EINVAL,
                                 "\"%s\" is no option of a backend: write weight=2, "
                                 "state=draining or node=n1 after it",
                                 word);

        r = keys_set(backend_keys, b, key, value, reterr);
        return r < 0 ? weft_fail_in(reterr, r, "%s=%s", key, value) : 0;
}

static void backend_done(struct config_backend *b)
{
        keys_clear(backend_keys, b);
}

static int parse_backend(char *text, struct config_backend *ret, struct weft_error *reterr)
{
        _cleanup_(backend_done) struct config_backend b = {};
        char *next, *word = strtok_r(text, " \t", &next);
        int r;

        r = keys_default(backend_keys, &b, reterr);
        if (r < 0)
                return r;
        if (!word || parse_address_port(word, &b.addr, &b.port) < 0)
                return weft_fail(reterr, -EINVAL,
                                 "\"%s\" is no backend: write 10.0.0.1:8080 or "
                                 "[fd00::1]:8080",
                                 word ?: "");
        if (!address_is_unicast(&b.addr))
                return weft_fail(reterr, -EINVAL, "\"%s\" is no address that other hosts reach",
                                 word);

        while ((word = strtok_r(NULL, " \t", &next))) {
                r = set_backend_word(&b, word, reterr);
                if (r < 0)
                        return r;
        }

        b.given = b.state;
        *ret = b;
        b = (struct config_backend) {};
        return 0;
}

static int add_backend(void *data, const char *item, struct weft_error *reterr)
{
        _cleanup_free_ char *text = strdup(item);
        struct config_service *s = data;
        int r;

        if (!text || list_grow(&s->backends, s->n_backends, sizeof(*s->backends)) < 0)
                return weft_fail(reterr, -ENOMEM, "out of memory");

        r = parse_backend(text, &s->backends[s->n_backends], reterr);
        if (r < 0)
                return r;

        s->n_backends++;
        return 0;
}

static void backends_clear(struct config_service *s)
{
        for (size_t i = 0; i < s->n_backends; i++)
                backend_done(&s->backends[i]);
        free(s->backends);
        s->backends = NULL;
        s->n_backends = 0;
}

static int set_backend(const struct key *k, void *field, const char *value,
                       struct weft_error *reterr)
{
        (void) k;
        if (*value == '\0') {
                backends_clear(field);
                return 0;
        }

        return each_item(value, add_backend, field, reterr);
}

/* ---- the tables --------------------------------------------------------------------------- */

static const char *const modes[] = { "probe", "strict", "partial", NULL };
static const char *const xdp_modes[] = { "auto", "off", "best-effort", "native", NULL };
static const char *const underlays[] = { "auto", "ipv4", "ipv6", NULL };
static const char *const tcx_orders[] = { "last", "first", NULL };
static const char *const attach_modes[] = { "auto", "tcx", "clsact", NULL };
static const char *const no_backend_ways[] = { "reject", "drop", NULL };
static const char *const routings[] = { "auto", "native", "tunnel", NULL };
static const char *const algorithms[] = { "random", "maglev", "least-connections", NULL };
#define TEXT(size) #size,
static const char *const maglev_sizes[] = { CONFIG_MAGLEV_SIZES(TEXT) NULL };
static const char *const forwardings[] = { "auto", "snat", "dsr", NULL };
static const char *const traffic_policies[] = { "cluster", "local", NULL };

static const struct key weft_keys[] = {
        { WEFT_OPT_ENUM(struct config, mode, "mode", "probe", modes,
                        "What to do where the kernel lacks something that a module needs. probe: "
                        "the module is left out, and its traffic goes the kernel's way. strict: "
                        "weftd refuses to start, or the reload is refused. partial: as strict, and "
                        "exactly the modules that are named run, with what they need.") },
        { WEFT_OPT_ENUM(struct config, xdp, "xdp", "auto", xdp_modes,
                        "Where known flows are replayed in XDP already. auto: on uplinks whose "
                        "driver runs XDP itself, veth, tun, bridge and macvlan left out. "
                        "best-effort: on those, too. native: on every uplink, or refuse. off: "
                        "nowhere.") },
        { WEFT_OPT_SIZE(struct config, flow_table_size, "flow-table-size", NULL, 0, 0,
                        "Entries of the flow table of each IP family. auto: a share of the "
                        "machine's memory. A table that is there already keeps its size until "
                        "weftctl cleanup takes it away."),
          .set = set_flow_table_size, .is = "auto, or a number from 1K to 256M", .def = "auto" },
        { WEFT_OPT_U32(struct config, mark_mask, "mark-mask", "0x0100", 1, UINT32_MAX,
                       "Bit of the packet mark by which the exit hooks know packets that have "
                       "been decided.") },
        { WEFT_OPT_ENUM(struct config, underlay, "underlay", "auto", underlays,
                        "IP family of the packets that carry tunnels between nodes. auto: IPv4 if "
                        "nodes have both.") },
        { WEFT_OPT_STRING(struct config, metrics_listen, "metrics-listen", "127.0.0.1:9964",
                          "Address and port that metrics are served at (HTTP, GET /metrics) where "
                          "the service manager passes no socket in. Empty: nowhere."),
          .check = check_listen, .is = "address and port", .keeps_empty = true },
        { WEFT_OPT_ENUM(struct config, tcx_order, "tcx-order", "last", tcx_orders,
                        "Place among other people's tcx programs of an interface, taken when weft "
                        "comes to the interface and kept from then on. last: they see packets as "
                        "they come and may keep them from weft; first: they see what weft leaves "
                        "to the stack. By clsact weft's filters have priority 30565.") },
        { WEFT_OPT_ENUM(struct config, attach, "debug-attach", "auto", attach_modes,
                        "How programs are attached to tc hooks, for tests. auto: by tcx where the "
                        "kernel has it.") },
        {},
};

static const struct key node_keys[] = {
        { WEFT_OPT_STRING(struct config_node, name, "name", NULL,
                          "Name of this node; by default the machine's host name."),
          .check = check_node_name, .is = "name" },
        { WEFT_OPT_ADDRESSES(struct config_node, address, "address", "",
                             "The node's addresses, one of each IP family at most; by default "
                             "those of the uplinks.") },
        { WEFT_OPT_PREFIXES(struct config_node, pod_cidr, "pod-cidr", "",
                            "Prefixes of this node's endpoints. The first address of each is the "
                            "endpoints' gateway."),
          .check = check_pod_cidr },
        { .o = { .key = "uplink",
                 .offset = offsetof(struct config_node, uplink),
                 .help = "Interfaces to the network outside; by default those of the default "
                         "routes." },
          .set = set_uplink,
          .is = "list of interfaces",
          .list = true },
        {},
};

static const struct key peer_keys[] = {
        { WEFT_OPT_ADDRESSES(struct config_peer, address, "address", "",
                             "The node's addresses, one of each IP family at most. Required.") },
        { WEFT_OPT_PREFIXES(struct config_peer, pod_cidr, "pod-cidr", "",
                            "Prefixes of its endpoints."),
          .check = check_pod_cidr },
        { WEFT_OPT_U32(struct config_peer, identity, "identity", "6", PEER_IDENTITY_MIN,
                       IDENTITY_MAX,
                       "Security identity of the node itself. Reserved: 0 unknown, 1 host, 2 "
                       "world; 6 is any remote node.") },
        { WEFT_OPT_ENUM(struct config_peer, routing, "routing", "auto", routings,
                        "Whether its endpoints are reached by the network outside or by the "
                        "tunnel. auto: by the tunnel where a module makes one, but where another "
                        "routes natively too and the peer is on the same link, by the network.") },
        {},
};

static const char *const endpoint_kinds[] = { "veth", "netkit", NULL };

static const struct key endpoint_keys[] = {
        { WEFT_OPT_STRING(struct config_endpoint, netns, "netns", NULL,
                          "The workload's network namespace: weft makes the device pair, "
                          "addresses and routes, and waits for a namespace that is not there yet. "
                          "An endpoint has exactly one of netns, pid and interface."),
          .check = check_netns, .is = "path" },
        { .o = { .key = "pid", .help = "A process in that namespace, in place of netns." },
          .set = set_pid,
          .is = "number 1-4194304" },
        { WEFT_OPT_STRING(struct config_endpoint, interface, "interface", NULL,
                          "A device on the host's side that exists already: weft only attaches to "
                          "it, and needs address."),
          .check = check_ifname, .is = "interface" },
        { WEFT_OPT_ADDRESSES(struct config_endpoint, address, "address", "",
                             "The endpoint's addresses; by default one of each pod-cidr of the "
                             "node, which is kept as long as the endpoint is configured.") },
        { WEFT_OPT_STRING(struct config_endpoint, device, "device", "eth0",
                          "Name of the device inside the namespace."),
          .check = check_ifname, .is = "interface" },
        { WEFT_OPT_ENUM(struct config_endpoint, kind, "kind", "veth", endpoint_kinds,
                        "The device pair that weft makes. netkit: where the kernel has it (Linux "
                        "6.7), else veth.") },
        { WEFT_OPT_U32(struct config_endpoint, identity, "identity", "0", 0, IDENTITY_MAX,
                       "Security identity of the workload; 1, 2 and 6 are reserved."),
          .check = check_identity },
        {},
};

static const struct key service_keys[] = {
        { .o = { .key = "port",
                 .help = "Port and protocol of the service's addresses: tcp, udp or sctp. "
                         "Required." },
          .set = set_port,
          .is = "PORT/PROTOCOL" },
        { WEFT_OPT_ADDRESSES(struct config_service, cluster_ip, "cluster-ip", "",
                             "Addresses that endpoints reach the service by.") },
        { WEFT_OPT_U16(struct config_service, node_port, "node-port", NULL, 1, UINT16_MAX,
                       "Port of every address of the node that the service is reached by from "
                       "outside."),
          .origin_at = offsetof(struct config_service, node_port_origin) },
        { WEFT_OPT_ADDRESSES(struct config_service, external_ip, "external-ip", "",
                             "Addresses that the network outside routes to the nodes.") },
        { WEFT_OPT_ADDRESSES(struct config_service, load_balancer_ip, "load-balancer-ip", "",
                             "Addresses of an outer load balancer, or announced by one.") },
        { .o = { .key = "backend",
                 .help = "What stands behind the service: ADDRESS:PORT or [ADDRESS]:PORT, then "
                         "options between blanks: weight=0-1000 (1), state=active, draining or "
                         "maintenance (active), node=NAME." },
          .set = set_backend,
          .is = "list of backends",
          .list = true },
        { WEFT_OPT_ENUM(struct config_service, no_backend, "no-backend", "reject", no_backend_ways,
                        "What happens to packets while there is no backend to take them. reject: "
                        "answered with ICMP unreachable or TCP RST. drop: in silence.") },
        { WEFT_OPT_ENUM(struct config_service, algorithm, "algorithm", "random", algorithms,
                        "How a new connection gets its backend. random: by chance and weight. "
                        "maglev: by a hash of the client's address and port, the same on every "
                        "node. least-connections: the one with the fewest connections for its "
                        "weight, as far as this node knows them.") },
        { WEFT_OPT_ENUM(struct config_service, maglev_size, "maglev-table-size", "16381",
                        maglev_sizes,
                        "Entries of the table of algorithm maglev, the same on every node; a "
                        "hundred for each backend or more.") },
        { WEFT_OPT_TIME(struct config_service, affinity, "affinity", "0", 0, AFFINITY_MAX,
                        "How long a client's connections keep going to the backend of the last "
                        "one; 0: not at all.") },
        { WEFT_OPT_ENUM(struct config_service, forwarding, "forwarding", "auto", forwardings,
                        "How packets from outside reach a backend on another node. auto: as the "
                        "loaded modules do. snat: with the node's address. dsr: with the client's, "
                        "and the backend's node answers it directly.") },
        { WEFT_OPT_ENUM(struct config_service, external, "external-traffic", "cluster",
                        traffic_policies,
                        "Backends for clients outside the cluster: all, or those of the node that "
                        "was asked.") },
        { WEFT_OPT_ENUM(struct config_service, internal, "internal-traffic", "cluster",
                        traffic_policies,
                        "Backends for endpoints: all, or those of their own node.") },
        { WEFT_OPT_PREFIXES(struct config_service, source_range, "source-range", "",
                            "Clients outside the cluster that are let in; empty: all.") },
        { WEFT_OPT_U16(struct config_service, health_check_node_port, "health-check-node-port",
                       NULL, 1, UINT16_MAX,
                       "Port of the node's own addresses where an HTTP server says whether this "
                       "node has a backend: 200 or 503."),
          .origin_at = offsetof(struct config_service, health_check_origin) },
        {},
};

/* ---- what an object cannot do without ----------------------------------------------------- */

static int peer_complete(const void *object, struct weft_error *reterr)
{
        const struct config_peer *p = object;

        if (p->address.n == 0)
                return weft_fail(reterr, -EINVAL, "has no address: add address = ADDRESS");

        return 0;
}

static int endpoint_complete(const void *object, struct weft_error *reterr)
{
        const struct config_endpoint *e = object;

        if (!!e->netns + !!e->pid + !!e->interface != 1)
                return weft_fail(reterr, -EINVAL,
                                 "must have exactly one of netns, pid and interface");
        if (e->interface && e->address.n == 0)
                return weft_fail(reterr, -EINVAL,
                                 "has an interface and no address: add address = ADDRESS");

        return 0;
}

static int service_complete(const void *object, struct weft_error *reterr)
{
        const struct config_service *s = object;
        size_t addresses = s->cluster_ip.n + s->external_ip.n + s->load_balancer_ip.n;

        if (s->port == 0)
                return weft_fail(reterr, -EINVAL, "has no port: add port = 80/tcp");
        if (addresses == 0 && s->node_port == 0)
                return weft_fail(
                        reterr, -EINVAL,
                        "cannot be reached: add node-port, external-ip, load-balancer-ip or "
                        "cluster-ip");

        return 0;
}

#define ARRAY(field, type, k, f)                                                                   \
        .named = true, .keys = k, .at = offsetof(struct config, field),                            \
        .count_at = offsetof(struct config, n_##field), .size = sizeof(struct type),               \
        .origin_at = offsetof(struct type, origin), .complete = f

const struct section sections[] = {
        { .name = "weft", .keys = weft_keys, .help = "Settings of the daemon." },
        { .name = "node",
          .keys = node_keys,
          .at = offsetof(struct config, node),
          .help = "This node." },
        { .name = "peer",
          ARRAY(peers, config_peer, peer_keys, peer_complete),
          .help = "Another node; its name is the section's." },
        { .name = "endpoint",
          ARRAY(endpoints, config_endpoint, endpoint_keys, endpoint_complete),
          .help = "A workload on this node with a network namespace and addresses of its own." },
        { .name = "service",
          ARRAY(services, config_service, service_keys, service_complete),
          .help = "A virtual address and port, and what stands behind it." },
        { .name = "module",
          ARRAY(modules, config_module, NULL, NULL),
          .help = "Loads a module and sets its options. enabled = no switches it off from a later "
                  "file." },
        {},
};

const struct section *section_by_name(const char *name)
{
        for (const struct section *s = sections; s->name; s++)
                if (strcmp(s->name, name) == 0)
                        return s;

        return NULL;
}

void *section_object(const struct section *s, struct config *c, size_t i)
{
        char *items;

        if (!s->named)
                return (char *) c + s->at;

        memcpy(&items, (char *) c + s->at, sizeof(items));
        return items + i * s->size;
}

size_t section_count(const struct section *s, const struct config *c)
{
        return s->named ? *(const size_t *) ((const char *) c + s->count_at) : 1;
}

/* ---- one object --------------------------------------------------------------------------- */

bool is_object_name(const struct section *s, const char *name)
{
        if (s->keys)
                return is_plain_name(name);

        for (const char *c = name; *c != '\0'; c++)
                if (!islower((unsigned char) *c) && !isdigit((unsigned char) *c) && *c != '-')
                        return false;

        return islower((unsigned char) *name);
}

int object_init(const struct section *s, void *object, const char *name,
                const struct origin *origin)
{
        char *copy = strdup(name);

        if (!copy)
                return -ENOMEM;

        memcpy(object, &copy, sizeof(copy));
        memcpy((char *) object + s->origin_at, origin, sizeof(*origin));
        if (!s->keys)
                ((struct config_module *) object)->enabled = true;
        if (!s->keys || keys_default(s->keys, object, NULL) == 0)
                return 0;

        object_done(s, object);
        return -ENOMEM;
}

static void module_done(struct config_module *m)
{
        for (size_t i = 0; i < m->n_assignments; i++) {
                free(m->assignments[i].key);
                free(m->assignments[i].value);
        }
        free(m->assignments);
}

void object_done(const struct section *s, void *object)
{
        char *name;

        if (s->keys)
                keys_clear(s->keys, object);
        else
                module_done(object);
        if (s->named) {
                memcpy(&name, object, sizeof(name));
                free(name);
        }
}

const char *object_name(const struct section *s, const void *object)
{
        const char *name = "";

        if (s->named)
                memcpy(&name, object, sizeof(name));

        return name;
}

struct origin object_origin(const struct section *s, const void *object)
{
        struct origin origin;

        memcpy(&origin, (const char *) object + s->origin_at, sizeof(origin));
        return origin;
}

/* ---- reading ------------------------------------------------------------------------------ */

const struct key *keys_find(const struct key *keys, const char *name, struct weft_error *reterr)
{
        struct nearest near = { .word = name };
        char hint[NEAREST_HINT];

        for (const struct key *k = keys; k->o.key; k++) {
                if (strcmp(k->o.key, name) == 0)
                        return k;
                nearest_try(&near, k->o.key);
        }

        (void) weft_fail(reterr, -ENOENT, "unknown key%s", nearest_hint(&near, hint, sizeof(hint)));
        return NULL;
}

bool key_keeps_empty(const struct key *k)
{
        return k->list || k->keeps_empty ||
               (k->o.type != WEFT_TYPE_STRING && option_keeps_empty(&k->o));
}

int keys_set(const struct key *keys, void *object, const char *key, const char *value,
             struct weft_error *reterr)
{
        const struct key *k = keys_find(keys, key, reterr);
        int r = 0;

        if (!k)
                return -ENOENT;

        if (k->check && *value != '\0')
                r = k->check(value, reterr);
        if (r < 0)
                return r;

        if (k->set)
                return k->set(k, (char *) object + k->o.offset, value, reterr);
        if (k->o.type == 0)
                return 0;
        if (*value == '\0' && !key_keeps_empty(k))
                return option_set_default(&k->o, object, reterr);

        return option_set(&k->o, object, value, reterr);
}

void keys_set_origin(const struct key *keys, void *object, const char *key,
                     const struct origin *origin)
{
        for (const struct key *k = keys; k->o.key; k++)
                if (k->origin_at != 0 && strcmp(k->o.key, key) == 0)
                        memcpy((char *) object + k->origin_at, origin, sizeof(*origin));
}

bool keys_is_list(const struct key *keys, const char *key)
{
        const struct key *k = keys_find(keys, key, NULL);

        return k && (k->list || option_is_list(&k->o));
}

int keys_default(const struct key *keys, void *object, struct weft_error *reterr)
{
        int r;

        for (const struct key *k = keys; k->o.key; k++) {
                if (k->set || k->o.type == 0)
                        continue;
                r = option_set_default(&k->o, object, reterr);
                if (r < 0)
                        return r;
        }

        return 0;
}

void keys_clear(const struct key *keys, void *object)
{
        struct weft_error ignored;

        for (const struct key *k = keys; k->o.key; k++)
                if (k->set)
                        (void) k->set(k, (char *) object + k->o.offset, "", &ignored);
                else if (k->o.type != 0)
                        option_clear(&k->o, object);
}
