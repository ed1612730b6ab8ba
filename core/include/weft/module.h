/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The module ABI: everything that the user-space half of a module may use, and nothing else.
 *
 * A module is one .so that exports one symbol, a const struct weft_module made by WEFT_MODULE().
 * Rules that keep old binaries loading:
 *   - fields are only ever appended, never moved, never retyped;
 *   - the core copies min(the author's size, its own size) into a zeroed struct;
 *   - zero or NULL always means "not given", never something else;
 *   - WEFT_ABI_MAJOR moves only when one of these had to be broken; another major is refused.
 *
 * What the core offers is the table of functions struct weft_api, handed to every callback through
 * the instance; a module links against nothing of weft.
 *
 * Callbacks return 0 or a negative errno and, on failure, say why with weft_api.fail(). None of
 * them logs an error: the core logs it once, with the module and the phase. All run in the daemon's
 * only thread, and none may block. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <weft/types.h>

#define WEFT_ABI_MAJOR 1u
#define WEFT_ABI_MINOR 0u
#define WEFT_ABI (WEFT_ABI_MAJOR << 16 | WEFT_ABI_MINOR)

#define WEFT_MODULE_SYMBOL "weft_module_v1"

struct weft_instance; /* one module in one generation; opaque to the module */
struct weft_error;    /* where a failing callback says why, see weft_api.fail() */

/* ---- needs -------------------------------------------------------------------------------- */

/* What a module wants from the kernel or from other modules. A table and not code, so that "why is
 * it off?" is answered without running the module. */
enum weft_need_kind {
        WEFT_NEED_MODULE = 1, /* another module, by name: brought in with this one */
        WEFT_NEED_ROLE,       /* some module that provides the role */
        WEFT_NEED_HELPER,     /* eBPF helper of tc programs, by name without "bpf_" */
        WEFT_NEED_FEATURE,    /* a named probe of the core: "tcx", "redirect-peer", … */
        WEFT_NEED_LINK_KIND,  /* kind of network device, by rtnetlink's name */
        WEFT_NEED_HOST,       /* what nobody else may do on the host: "masquerade-free",
                                 "redirect-free"; looked at anew by each reload */
};

struct weft_need {
        enum weft_need_kind kind;
        const char *name;
        uint32_t soft;   /* 1: works without it and does less */
        const char *why; /* shown to the administrator */
};

#define WEFT_NEEDS(k, n, w)                                                                        \
        {                                                                                          \
                .kind = WEFT_NEED_##k, .name = n, .why = w                                         \
        }
#define WEFT_WANTS(k, n, w)                                                                        \
        {                                                                                          \
                .kind = WEFT_NEED_##k, .name = n, .soft = 1, .why = w                              \
        }

/* ---- options ------------------------------------------------------------------------------ */

struct weft_prefix {
        struct weft_addr addr; /* IPv4: mapped */
        uint32_t len;          /* over 128 bits: an IPv4 /24 is 120 */
};

struct weft_prefixes {
        struct weft_prefix *items; /* owned by the core, valid as long as the config struct */
        size_t n;
};

struct weft_addresses {
        struct weft_addr *items; /* as above */
        size_t n;
};

struct weft_ports {
        uint16_t low, high; /* host order, inclusive; 0, 0: not given */
};

enum weft_option_type {
        WEFT_TYPE_BOOL = 1,  /* bool: yes no on off true false 1 0 */
        WEFT_TYPE_U16,       /* uint16_t */
        WEFT_TYPE_U32,       /* uint32_t */
        WEFT_TYPE_SIZE,      /* uint64_t, bytes or entries: K M G */
        WEFT_TYPE_TIME,      /* uint64_t, milliseconds: ms s min h */
        WEFT_TYPE_ENUM,      /* uint32_t: index into choices */
        WEFT_TYPE_STRING,    /* char *, owned by the core */
        WEFT_TYPE_PORTS,     /* struct weft_ports: "30000-32767"; "auto" is 0, 0 */
        WEFT_TYPE_PREFIXES,  /* struct weft_prefixes */
        WEFT_TYPE_ADDRESSES, /* struct weft_addresses */
};

/* One option. This row is the only place that knows it: parser, range check, default, sample file
 * and manual are made from it. Where the module's eBPF object has a `const volatile` of the same
 * name ('-' becomes '_') and size, the core fills it. */
struct weft_option {
        const char *key; /* as written in the file */
        enum weft_option_type type;
        uint32_t offset; /* in the module's config struct */
        const char
                *def; /* in the file's own syntax, read by the same parser; "" is an empty list */
        uint64_t min, max;          /* numbers: the range; max 0: no limit */
        const char *const *choices; /* WEFT_TYPE_ENUM: names of 0, 1, 2 … ended by NULL */
        const char *help;           /* one sentence, ended by a full stop */
};

/* offsetof() that also refuses, when compiled, a field of another C type. */
#define WEFT_FIELD(t, f, ctype)                                                                    \
        (uint32_t)(offsetof(t, f) +                                                                \
                   0 * sizeof(struct {                                                             \
                           _Static_assert(                                                         \
                                   __builtin_types_compatible_p(__typeof__(((t *) 0)->f), ctype),  \
                                   "option " #f " is not a " #ctype);                              \
                           char c;                                                                 \
                   }))

#define WEFT_OPT_(T, ctype, t, f, k, d, h, ...)                                                    \
        {                                                                                          \
                .key = k, .type = WEFT_TYPE_##T, .offset = WEFT_FIELD(t, f, ctype), .def = d,      \
                .help = h, __VA_ARGS__                                                             \
        }
#define WEFT_OPT_BOOL(t, f, k, d, h) WEFT_OPT_(BOOL, bool, t, f, k, d, h)
#define WEFT_OPT_U16(t, f, k, d, lo, hi, h)                                                        \
        WEFT_OPT_(U16, uint16_t, t, f, k, d, h, .min = lo, .max = hi)
#define WEFT_OPT_U32(t, f, k, d, lo, hi, h)                                                        \
        WEFT_OPT_(U32, uint32_t, t, f, k, d, h, .min = lo, .max = hi)
#define WEFT_OPT_SIZE(t, f, k, d, lo, hi, h)                                                       \
        WEFT_OPT_(SIZE, uint64_t, t, f, k, d, h, .min = lo, .max = hi)
#define WEFT_OPT_TIME(t, f, k, d, lo, hi, h)                                                       \
        WEFT_OPT_(TIME, uint64_t, t, f, k, d, h, .min = lo, .max = hi)
#define WEFT_OPT_ENUM(t, f, k, d, c, h) WEFT_OPT_(ENUM, uint32_t, t, f, k, d, h, .choices = c)
#define WEFT_OPT_STRING(t, f, k, d, h) WEFT_OPT_(STRING, char *, t, f, k, d, h)
#define WEFT_OPT_PORTS(t, f, k, d, h) WEFT_OPT_(PORTS, struct weft_ports, t, f, k, d, h)
#define WEFT_OPT_PREFIXES(t, f, k, d, h) WEFT_OPT_(PREFIXES, struct weft_prefixes, t, f, k, d, h)
#define WEFT_OPT_ADDRESSES(t, f, k, d, h) WEFT_OPT_(ADDRESSES, struct weft_addresses, t, f, k, d, h)

/* ---- tunnels ------------------------------------------------------------------------------ */

/* How packets are carried to other nodes; see weft_api.tunnel(). Outer IP, UDP, the header, an
 * Ethernet frame. */
struct weft_tunnel_spec {
        const char *kind; /* of the kernel's device, as rtnetlink calls it */
        /* Attributes of such a device, IFLA_…: UDP port, flow-based, zero checksums over IPv6 are
         * received. external_is_flag: it has no value. */
        uint16_t port_attribute, external_attribute, sums_attribute, external_is_flag;
        struct weft_tunnel_header header; /* types.h; options: without, it takes none along */
        uint32_t mode; /* enum weft_tunnel_mode; NONE: the device where the kernel has the kind,
                          else the engine */
        uint32_t mtu;  /* of the packets carried; 0: what the uplinks' MTU leaves */
};

/* ---- what the core offers ----------------------------------------------------------------- */

/* A peer, as events and weft_api.peers() show it. */
struct weft_peer_info {
        const char *name;
        struct weft_addr node4, node6;       /* all zero: none */
        const struct weft_prefix *pod_cidrs; /* valid during the call */
        size_t n_pod_cidrs;
        uint32_t tunnelled; /* 1: a tunnel leads there, and no route is to be made */
};

/* Functions of the core. Append-only like struct weft_module: `size` says what is there. `self` is
 * always the instance that the callback was given. */
struct weft_api {
        uint32_t size, abi;

        /* Says why and returns r, so that a callback can end with it. printf format. */
        int (*fail)(struct weft_error *reterr, int r, const char *format, ...)
                __attribute__((format(printf, 3, 4)));

        /* One line to the log, with the module's name. level: LOG_INFO … of <syslog.h>. */
        void (*log)(struct weft_instance *self, int level, const char *format, ...)
                __attribute__((format(printf, 3, 4)));

        /* The config struct of the instance, filled from its section; constant. */
        const void *(*config)(struct weft_instance *self);

        /* In load: fills the `const volatile` NAME of the module's object. -ENOENT: no such
         * constant; -EINVAL: it has another size. */
        int (*constant)(struct weft_instance *self, const char *name, const void *value,
                        size_t size);

        /* In load: the module gives out source ports low..high (host order) of the node's own
         * addresses. Where they overlap the node's ephemeral range, the engine tracks the node's
         * own connections from them. */
        void (*give_out_ports)(struct weft_instance *self, uint16_t low, uint16_t high);

        /* The ports above the node's ephemeral range (ip_local_port_range), for snat defaults. */
        void (*free_ports)(struct weft_instance *self, uint16_t *ret_low, uint16_t *ret_high);

        /* In attach or event: route PREFIX via GATEWAY in the main table with weft's protocol
         * number, held until detach. -EEXIST: somebody else's route is there; -ENETUNREACH: the
         * gateway is not on the same link-layer network. */
        int (*route)(struct weft_instance *self, const struct weft_prefix *prefix,
                     const struct weft_addr *gateway, struct weft_error *reterr);

        /* Gives such a route back before detach. */
        void (*unroute)(struct weft_instance *self, const struct weft_prefix *prefix);

        /* Calls f for each peer. */
        void (*peers)(struct weft_instance *self,
                      void (*f)(void *data, const struct weft_peer_info *peer), void *data);

        /* File descriptor of a map of the module's own object, by name; owned by the core.
         * -ENOENT. */
        int (*map)(struct weft_instance *self, const char *name);

        /* Adds the prefixes that never leave the cluster: all pod CIDRs of this node and its peers
         * and the peers' node addresses. f as in peers(). */
        void (*cluster_prefixes)(struct weft_instance *self,
                                 void (*f)(void *data, const struct weft_prefix *prefix),
                                 void *data);

        /* The module's own state, for its callbacks. */
        void *(*data)(struct weft_instance *self);
        void (*set_data)(struct weft_instance *self, void *data);

        /* In load: the module serves services' node ports, and they lie in low..high (host order);
         * called again, the range grows to hold both. A service whose node port lies outside is
         * refused; those in use are kept from the node's own programs, and one that such a program
         * listens on is reported. Where no module calls this, node ports mean nothing. */
        void (*node_ports)(struct weft_instance *self, uint16_t low, uint16_t high);

        /* Version of the module that an instance is of: what `old` says in prepare and takeover may
         * have another layout. */
        const char *(*version)(struct weft_instance *self);

        /* In attach or event: the module's own table of nftables, "weft-" and its name, of family
         * inet, with `body` in it (sets, chains, rules, in nft's own words), until detach. Asked
         * for again, or by a module that takes over, the table is replaced as a whole. -EOPNOTSUPP:
         * the kernel has no nftables; -EINVAL: it refused, with its reason. */
        int (*nft_table)(struct weft_instance *self, const char *body, struct weft_error *reterr);

        /* In load: prefixes to which the network outside routes packets as they are, without
         * tunnel and masquerade. Copied. */
        void (*set_native_prefixes)(struct weft_instance *self,
                                    const struct weft_prefixes *prefixes);

        /* Those that the modules have set that this one needs by name, whose load comes before its
         * own: where one of them is replaced, so is this instance. f as in peers(). */
        void (*native_prefixes)(struct weft_instance *self,
                                void (*f)(void *data, const struct weft_prefix *prefix),
                                void *data);

        /* In load: packets to peers are carried by this tunnel, wherever a stage plans so with
         * weft_plan_tunnel(). The core makes the device or has the engine write the headers,
         * routes the peers' pods there and gives endpoints the MTU. One tunnel for a generation. */
        void (*tunnel)(struct weft_instance *self, const struct weft_tunnel_spec *spec);

        /* Is the module NAME part of the generation that is being built? */
        int (*runs)(struct weft_instance *self, const char *name);

        /* In load: the module's stages plan WEFT_DSR_IPIP. The engine wraps such packets, and
         * unwraps what peers wrapped for endpoints of this node. Not beside a tunnel. */
        void (*wrap)(struct weft_instance *self);

        /* In `applies` of a self-test: did a module of the generation call wrap()? */
        int (*wraps)(struct weft_instance *self);

        /* append here */
};

/* ---- self-tests --------------------------------------------------------------------------- */

/* Packets that a module ships as data. Before a generation is switched to, the core loads it a
 * second time with maps of its own (copies of the modules' CONFIG maps, all others empty) and runs
 * them with BPF_PROG_TEST_RUN; one that comes out otherwise refuses the generation. So they must
 * hold for every setting and beside every other module: `applies` and `with` leave out what does
 * not.
 *
 * The world of a test is the core's, in a network namespace without any wire:
 *
 *     uplink      192.0.2.11/24 and 2001:db8::11/64, MAC 02:00:00:00:01:00; the default route goes
 *                 to 192.0.2.1 and 2001:db8::1, MAC 02:00:00:00:02:00
 *     endpoint    10.244.1.10 and fd00:244:1::10, MAC 02:00:00:00:03:00; the host's side of its
 *                 device 02:00:00:00:04:00
 *     10.244.2.0/24 and fd00:244:2::/64 are behind 192.0.2.12 and 2001:db8::12, same MAC
 *     10.244.3.0/24 are the pods of the peer 192.0.2.12, where there is a tunnel; a peer it is
 * always
 *
 * Before each test the flow tables are empty and the services its own; one that `goes_on` finds
 * what the test before it left. */

/* A service of a test; what it does not say is as in the INI files. */
struct weft_test_service {
        const char *external_ip;  /* NULL: none */
        uint16_t port, node_port; /* host order; node_port 0: none */
        uint8_t proto;
        const char *const *backends; /* "10.244.2.10:8080", ended by NULL */
};

enum weft_test_verdict {
        WEFT_TEST_NEXT = -1, /* to the stack and other programs */
        WEFT_TEST_DROP = 2,
        WEFT_TEST_REDIRECT = 7, /* to a wire or an endpoint */
};

struct weft_test_bytes {
        const uint8_t *data; /* a whole Ethernet frame; NULL: not given */
        uint32_t size;
};

/* Bytes of the expected frame that may be anything: a port out of a range, say. */
struct weft_test_range {
        uint32_t from, size; /* size 0 ends the list */
};

/* What whoever gives out source ports, or masquerades, may choose in a frame without IP options:
 * the source port (_PORT), or address and port (_SOURCE), and the checksums over them. For .any. */
#define WEFT_TEST_RANGES(...)                                                                      \
        {                                                                                          \
                __VA_ARGS__                                                                        \
        }
#define WEFT_TEST_TCP4_PORT WEFT_TEST_RANGES({ 34, 2 }, { 50, 2 })
#define WEFT_TEST_UDP4_PORT WEFT_TEST_RANGES({ 34, 2 }, { 40, 2 })
#define WEFT_TEST_TCP6_PORT WEFT_TEST_RANGES({ 54, 2 }, { 70, 2 })
#define WEFT_TEST_TCP4_SOURCE WEFT_TEST_RANGES({ 24, 2 }, { 26, 4 }, { 34, 2 }, { 50, 2 })
#define WEFT_TEST_TCP6_SOURCE WEFT_TEST_RANGES({ 22, 16 }, { 54, 2 }, { 70, 2 })

struct weft_test {
        const char *name; /* a sentence without a full stop; NULL ends the table */
        uint32_t hook;    /* enum weft_hook; the device is the endpoint's or the uplink */
        uint32_t goes_on; /* 1: with the flows and the modules' STATE of the test before, which
                             must have been run */
        struct weft_test_bytes packet;
        const struct weft_test_service *services; /* ended by proto 0; NULL: none */
        int verdict;                              /* enum weft_test_verdict */
        struct weft_test_bytes expected;          /* not given: any */
        struct weft_test_range any[4];
        const char *with, *without; /* run only where this module is in the generation, or is not */
        /* Does it hold under the instance's settings? NULL: under all. Changes nothing. */
        bool (*applies)(struct weft_instance *self, const struct weft_api *api);
};

#define WEFT_TEST_BYTES(array)                                                                     \
        {                                                                                          \
                (array), sizeof(array)                                                             \
        }

/* ---- what it counts ----------------------------------------------------------------------- */

struct weft_named {
        const char *name; /* reasons: TOO_MANY, in capitals; counters: too_many */
        const char *help; /* one line, no full stop */
};

/* ---- the module --------------------------------------------------------------------------- */

enum weft_event_kind {
        WEFT_PEER_ADDED = 1,
        WEFT_PEER_REMOVED,
        WEFT_ADDRESS_CHANGED, /* of the node */
        WEFT_LINK_CHANGED,
};

struct weft_module_event {
        enum weft_event_kind kind;
        const struct weft_peer_info *peer; /* peer events; else NULL */
};

/* What reconfigure answers. */
enum weft_reconfigured {
        WEFT_REPLACE_ME, /* a new instance is made, and takes over from this one */
        WEFT_DONE_LIVE,  /* this instance goes on */
};

/* What must hold for a module to be chosen, besides what it needs. */
enum weft_condition {
        WEFT_ALWAYS,
        WEFT_PEERS_SHARE_L2, /* every peer is on the same link-layer network as this node */
        WEFT_PEERS_APART,    /* one is not */
};

struct weft_module {
        /* Filled by WEFT_MODULE(). */
        uint32_t size, abi;

        const char *name;    /* [a-z][a-z0-9-]*; = file name, section name */
        const char *summary; /* one line, no full stop */
        const char *version; /* the module's own; NULL: that of weft */

        const char *const *provides;       /* roles, ended by NULL */
        const char *exclusive;             /* role that only one loaded module may fill */
        const char *const *conflicts;      /* modules that cannot be loaded with this one */
        const struct weft_need *needs;     /* ended by kind 0 */
        const struct weft_option *options; /* ended by key NULL */
        uint32_t config_size;
        uint32_t tracks_replies; /* 1: every endpoint connection must be remembered (TRACK) */

        /* The eBPF object, from WEFT_OBJECT(). Stages, their order and the maps are read from its
         * BTF. NULL: the module has no stages. */
        const void *object, *object_end;

        /* Check across options; types and ranges are checked already. NULL: nothing to check. */
        int (*configure)(struct weft_instance *self, const struct weft_api *api,
                         struct weft_error *reterr);

        /* Set constants before the programs are loaded. Nothing outside may be changed. */
        int (*load)(struct weft_instance *self, const struct weft_api *api,
                    struct weft_error *reterr);

        /* Programs and maps are there: fill maps, add routes and devices. Undone by detach. */
        int (*attach)(struct weft_instance *self, const struct weft_api *api,
                      struct weft_error *reterr);

        /* Something changed. A failure is logged, and the module is shown as degraded. */
        int (*event)(struct weft_instance *self, const struct weft_api *api,
                     const struct weft_module_event *event, struct weft_error *reterr);

        /* Undo attach; cannot fail; must accept a half-made instance. Routes and the like that came
         * through the api are given back by the core after this. */
        void (*detach)(struct weft_instance *self, const struct weft_api *api);

        /* Free what data() holds. */
        void (*unload)(struct weft_instance *self, const struct weft_api *api);

        /* Programs and maps of all modules are there, nothing is attached. Look at and copy what
         * will be taken over from the instance this one replaces, which runs on and may be of
         * another version (weft_api.version()); take nothing yet. old NULL: there is none. Called
         * with old as `self`, the functions config, data and map of weft_api tell about it. */
        int (*prepare)(struct weft_instance *self, const struct weft_api *api,
                       struct weft_instance *old, struct weft_error *reterr);

        /* Every hook runs the new programs: become the owner. Cannot fail. old is detached and
         * unloaded after this; NULL: there is none. An instance that was reconfigured (see there)
         * is called with itself as old, and config() is the new one. */
        void (*takeover)(struct weft_instance *self, const struct weft_api *api,
                         struct weft_instance *old);

        /* The file is the same, the options are others: can this instance go on with `config`,
         * which is laid out like its own? Answers and changes nothing, because the reload may yet
         * fail; what is to be done is done in takeover. Programs are loaded anew, with the
         * constants that come from options; those from load stay as they are. NULL: WEFT_REPLACE_ME
         * always. */
        int (*reconfigure)(
                struct weft_instance *self, const struct weft_api *api, const void *config,
                struct weft_error *reterr); /* enum weft_reconfigured, or negative errno */

        /* Fills new_fd, the empty map of class STATE or STATS, from old_fd, which another build of
         * the module left with another version or layout and which its programs go on writing until
         * the switch: what they write after this is lost. Called before prepare. from_version: 0
         * for STATS. NULL: such a build is refused. */
        int (*migrate)(struct weft_instance *self, const struct weft_api *api, const char *map,
                       unsigned from_version, int old_fd, int new_fd, struct weft_error *reterr);

        const struct weft_test *tests; /* ended by name NULL */

        /* Where no section names any module, the core chooses: for each role the module of the
         * highest rank whose condition holds and whose needs are met. NULL: only where it is named.
         */
        const char *role;
        int32_t rank;
        enum weft_condition condition;
        const char *const *chosen_options; /* pairs of key and value it then gets, ended by NULL */

        /* 1: packets may tell this node, by DSR, which service's address an answer comes from; the
         * engine takes that out of them. */
        uint32_t takes_dsr;

        /* An exclusive role that those modules which this one needs by name may fill together,
         * because it divides the work between them. NULL: none. */
        const char *divides;

        /* What two modules that fill this one's exclusive role lack to run together, said where
         * they are refused: "add [module NAME]". NULL: they cannot. */
        const char *remedy;

        /* The module's own reasons to drop: WEFT_DROP_OWN(n) of a stage is the n-th. At most
         * WEFT_OWN_REASONS, ended by name NULL. They are counted as all drops are, with the
         * module's name. */
        const struct weft_named *reasons;
        /* What else it counts: the elements of its map "counters", a per-CPU array of 64-bit words
         * of class STATS, which weftctl modules and the metrics show. Ended by name NULL. */
        const struct weft_named *counters;

        /* What weftctl modules says of a running instance, beside what the core knows itself
         * (source and node ports, tunnel, native prefixes, routes, nft table): some words without a
         * full stop, written to buf as by snprintf; none: leave it empty. Called whenever somebody
         * looks, changes nothing. NULL: there is nothing to say. */
        void (*status)(struct weft_instance *self, const struct weft_api *api, char *buf,
                       size_t size);

        /* append here */
};

/* The one exported symbol of a module. */
#define WEFT_MODULE(...)                                                                           \
        __attribute__((visibility("default"))) const struct weft_module weft_module_v1 = {         \
                .size = sizeof(struct weft_module), .abi = WEFT_ABI, __VA_ARGS__                   \
        }

/* Puts the bytes of the object FILE (found through the assembler's include path) between
 * weft_object and weft_object_end. */
#define WEFT_OBJECT(file)                                                                          \
        __asm__(".pushsection .rodata\n.balign 8\n.globl weft_object\n.hidden weft_object\n"       \
                "weft_object:\n.incbin \"" file "\"\n.globl weft_object_end\n"                     \
                ".hidden weft_object_end\nweft_object_end:\n.byte 0\n.popsection\n");              \
        extern const char weft_object[], weft_object_end[]
