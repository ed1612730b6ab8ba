/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* weftd's own state, between the files of this folder. One thread, one event loop. What is here is
 * the user-space side only: programs, maps and host changes outlive the process.
 *
 *   daemon.c            start, reload, stop: the order of things
 *   build.c             configuration -> modules, plan, instances, generation
 *   choose.c            the same where no module is named
 *   uplinks.c           interfaces to the network outside, and the hooks on them
 *   endpoints.c         local workloads
 *   removals.c          those on their way out
 *   overlay.c           the tunnel to the peers
 *   objects.c           peers and services
 *   health.c            services' health-check node ports
 *   http.c              HTTP servers in the loop, for those and for the metrics
 *   metrics.c           what the node counts, for Prometheus
 *   ports.c             services' ports of the node's own addresses
 *   conflicts.c         who else on the node does what weft does
 *   conntrack.c         what the host's connection tracking missed
 *   repair.c            what others changed is set again
 *   states.c            backends drained or activated at run time
 *   change.c            objects set and removed at run time
 *   methods.c           lists of objects, states of backends
 *   addresses.c         addresses of the host that go
 *   pressure.c          what runs out
 *   events.c            what the kernel reports, and the timers
 *   status.c            the methods of io.weft.Node
 *   flows.c             flows as they are told to a client
 *   flow-filter.c       which of them it wants
 *   notify.c            what the service manager is told */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "config/config.h"
#include "control/control.h"
#include "error.h"
#include "generation/generation.h"
#include "daemon/leases.h"
#include "daemon/recent.h"
#include "module/module.h"
#include "net/net.h"
#include "paths.h"
#include "plan/plan.h"
#include "tables/tables.h"

enum { NODE_ADDRESSES_MAX = 64, PRESSURES = 2, NOTIFY_STATUS = 512, BACKEND_STATES = 3 };

struct daemon;
struct health;
struct http;

/* Everything that is made out of one reading of the configuration. The next one is built beside it
 * and takes its place, or is freed. */
struct build {
        struct daemon *daemon;
        const struct build
                *running; /* whose files and instances may go on; NULL at a start, and afterwards */
        struct config *config;
        struct module_set modules; /* every file opened */
        struct plan_row *rows;     /* which run, and why not */
        size_t n_rows;
        struct instance **instances;   /* of the rows that are on, in their order */
        enum instance_change *changes; /* of each, against the build that ran before */
        size_t n_instances;
        struct generation *generation;
        struct selftest *selftest;     /* of it, until it was run; NULL: there is none */
        struct core_services services; /* for the instances */
        const struct module *barred; /* a module that something of others' keeps out; NULL: none */
        struct weft_error why_barred;
};

struct uplink {
        char name[16];
        struct net_link link;          /* ifindex 0: not there now */
        struct weft_addr addr4, addr6; /* the node's; all zero: none */
        bool hooked, forwarding, xdp, missed;
};

/* The tunnel of the running build, as far as it is on the host. */
struct overlay {
        struct net_link link;  /* its device, which forwards; ifindex 0: none */
        struct net_link next;  /* a new one, which forwards; its build does not run yet */
        uint32_t gateways[32]; /* uplinks that have one, where the engine encapsulates */
        size_t n_gateways;
        struct weft_prefixes routes; /* held; items owned */
        bool routed;                 /* peers' pods are to have them */
};

struct endpoint {
        char *name;
        const struct config_endpoint *section; /* in the running build's config */
        struct weft_addresses addrs;           /* configured or lent; owned */
        struct wire wire;                      /* as far as it is there */
        bool wired;                            /* by weft, to be taken down by it */
        bool forwarding;                       /* held for a device that weft did not make */
        bool has_peer;
        bool hooked; /* perhaps not ready any more, but to be switched */
        bool ready;
        bool look, down;  /* its device changed; was down at the last look */
        char reason[256]; /* why it is pending; or, ready, what it goes without */
};

struct removal;

/* Endpoints whose devices are still to go. */
struct removals {
        struct removal *items;
        size_t n;
        uint64_t last; /* number of the latest */
        sd_event_source *timer;
};

/* A service that could not be put into the tables; others are as configured. */
struct pending_service {
        char *name;
        char reason[256];
};

/* The state of a backend as it was set at run time, whatever its service's section says. */
struct state_setting {
        char *service;
        struct weft_addr addr;
        uint16_t port;
        uint32_t state; /* enum backend_state */
};

/* Drops for one thing that ran out. */
struct pressure {
        uint64_t told;        /* packets that the log has told of */
        uint64_t quiet_until; /* CLOCK_MONOTONIC microseconds */
};

/* A sign of somebody who does what weft does. */
struct conflict {
        char what[256];
        char remedy[256];
};

/* Where the metrics are served. */
struct metrics {
        struct http *server; /* NULL: nowhere */
        char *listen;        /* [weft] metrics-listen as it was opened, or tried */
        bool passed;         /* the service manager gave the socket */
        char reason[160];    /* why it could not be opened */
};

struct daemon {
        sd_event *loop;
        struct paths paths;
        const char **module_dirs; /* ended by NULL */
        int lock, pins_lock;

        struct net *net;
        struct host *host;
        struct tables *tables;
        struct attachments *attachments;
        struct control *control;
        struct build *build; /* running */
        struct leases leases;
        bool leases_changed;           /* since they were saved */
        struct strings module_numbers; /* every module loaded so far; number = index + 1 */

        struct uplink *uplinks;
        size_t n_uplinks;
        struct overlay overlay;
        struct endpoint *endpoints;
        size_t n_endpoints;
        struct removals removals;
        struct pending_service *pending_services;
        size_t n_pending_services;
        struct state_setting *states;
        size_t n_states;
        struct weft_addresses own_addresses; /* every one of the host's but link-local ones */
        struct weft_ports *node_ports;       /* kept from the node's own programs */
        size_t n_node_ports;
        struct net_listener *intruders; /* programs of the node on services' node ports */
        size_t n_intruders;
        struct health **health; /* health-check node ports */
        size_t n_health;
        struct conflict *conflicts;
        size_t n_conflicts;
        unsigned passes;        /* of collection, since conflicts were looked for */
        bool listeners_unknown; /* the kernel does not tell them */

        struct dry_network dry; /* where test packets run; ns -1: not made yet */

        struct metrics metrics;
        int passed_control;                    /* socket from the service manager; -1: none */
        int n_passed;                          /* all that it passed, from SD_LISTEN_FDS_START on */
        uint64_t reloads, reloads_refused;     /* of this process, as are */
        uint64_t collection_passes, collected; /* whole passes, entries freed */

        char refused[256];          /* why the last reload was; empty: it was not */
        char status[NOTIFY_STATUS]; /* as the service manager knows it */
        sd_event_source *turn;

        uint32_t hz;
        bool can_cast, can_decap;
        bool hooks_on; /* the tables are filled: what appears gets its hooks at once */

        struct recent recent; /* drops of the last minute */

        /* events.c */
        sd_event_source *changes;  /* timer: what events left to do */
        sd_event_source *retry;    /* timer: pending endpoints */
        sd_event_source *collect;  /* timer: pieces of collection */
        sd_event_source *look;     /* timer: snapshots of the drops */
        sd_event_source **watches; /* inotify: directories of pending namespaces */
        size_t n_watches;
        uint64_t retry_delay; /* microseconds */
        uint64_t rest_until;  /* CLOCK_MONOTONIC microseconds: no looking at changes before */
        struct weft_addresses host_addresses; /* as of the last look of addresses.c */
        sd_event_source *addresses;           /* timer: one changed */
        struct pressure pressures[PRESSURES];
        bool look_at_uplinks, look_at_endpoints, look_at_settings, move_epoch;
        bool own_addresses_changed; /* and the services have not followed yet */
        bool route_gone;            /* one of weft's may be missing */
        unsigned repairs;           /* in this period */
        uint64_t repairs_since;
        struct weft_prefix *changed; /* routes that changed since the last look */
        size_t n_changed;
};

/* ---- daemon.c ----------------------------------------------------------------------------- */

/* Starts everything; 0, or the reason is logged already. -EBADMSG: the configuration has errors,
 * and another try would find the same ones. */
int daemon_start(struct daemon *d);
/* Reads the configuration again and switches; what came of it is logged. The running generation is
 * untouched on failure. caller: who asks. diagnostics: the caller's, for -EINVAL. */
int daemon_reload(struct daemon *d, const char *caller, struct diagnostics *diagnostics,
                  struct weft_error *reterr);
/* Frees what the process holds. The datapath stays. */
void daemon_stop(struct daemon *d);
/* What a reload would do; changes nothing. f is called for each module that is or would be there.
 */
int daemon_reload_dry(struct daemon *d,
                      void (*f)(void *data, const char *module, enum instance_change change),
                      void *data, struct diagnostics *diagnostics, struct weft_error *reterr);
/* For tests of what a daemon that dies leaves behind: with WEFTD_DEBUG_SWITCH="kill STEP" in the
 * environment weftd kills itself at that step of a reload, with "stop STEP" it stops there until
 * SIGCONT. Steps: planned, built, prepared, attached, tested, pinned, exit-hooks, switched,
 * taken-over, applied, settled. */
void debug_switch(const char *step);
void daemon_log_diagnostics(const struct diagnostics *diagnostics);

/* ---- notify.c ----------------------------------------------------------------------------- */

/* Tells the service manager that everything runs, and from here on how it is. */
int daemon_notify_ready(struct daemon *d, struct weft_error *reterr);
/* Between two steps of a start or a reload, during which the loop does not run. */
void daemon_notify_alive(void);
void daemon_notify_stop(struct daemon *d);

/* ---- build.c ------------------------------------------------------------------------------ */

/* Configuration and modules, up to a loaded generation. Needs the tables. */
int build_config(struct daemon *d, struct build **ret, struct diagnostics *diagnostics,
                 struct weft_error *reterr);
/* running: whose instances may go on (NULL: a start). */
int build_modules(struct build *b, const struct build *running, struct diagnostics *diagnostics,
                  struct weft_error *reterr);
int build_generation(struct build *b, struct weft_error *reterr);
/* New instances look at those they replace; maps are migrated. */
int build_prepare(struct build *b, struct weft_error *reterr);
/* The modules' test packets, on a second load. */
int build_selftest(struct build *b, struct weft_error *reterr);
/* After the switch: the instances are b's from here on. */
void build_takeover(struct build *b);
/* Tells the instances that went on how the peers differ from those of the configuration before. */
void build_peer_events(struct build *b, const struct config *before);
/* Tells all instances of one. */
void build_peer_event(struct build *b, enum weft_event_kind kind, const struct config_peer *peer);
/* Instances in plan order, without those that go on; undone in reverse order on failure. */
int build_attach(struct build *b, struct weft_error *reterr);
struct build *build_free(struct build *b);
/* Tells each instance; a failure is logged and the module is shown as degraded. */
void build_event(struct build *b, enum weft_event_kind kind);
int engine_tables_open(struct daemon *d, const struct config *c, struct weft_error *reterr);

/* ---- choose.c ----------------------------------------------------------------------------- */

/* Nothing is named, so the plan chooses. */
bool build_chooses(const struct build *b);
/* Opens every module file there is; one that cannot be is logged and left out. */
int build_open_installed(struct build *b,
                         int (*open)(struct build *b, const char *name, struct weft_error *reterr),
                         struct weft_error *reterr);
/* Bit for each enum weft_condition that holds. */
uint32_t build_conditions(const struct build *b);

/* What the plan chose gets the section that would have named it, with the options for that case:
 * from here on it is as if it had been there. */
int build_add_sections(struct build *b, struct weft_error *reterr);

/* ---- uplinks.c ---------------------------------------------------------------------------- */

/* Looks for the configured uplinks (or those of the default routes) and makes table, forwarding
 * and, once hooks are on, hooks follow. Goes on after a failure; the first one is returned. */
int daemon_uplinks_refresh(struct daemon *d, struct weft_error *reterr);
/* Puts the generation's programs into every hook of every uplink and endpoint, exit hooks first. */
int daemon_hooks_switch(struct daemon *d, const struct build *b, struct weft_error *reterr);
/* Puts b's programs back, in reverse order; goes on after a failure, the first one is returned. */
int daemon_hooks_undo(struct daemon *d, const struct build *b, struct weft_error *reterr);
/* The same for some hooks of one interface; a hook that the generation does not need is left out.
 */
int daemon_hooks_attach(struct daemon *d, const struct build *b, uint32_t ifindex,
                        const char *ifname, const uint32_t *hooks, size_t n,
                        struct weft_error *reterr);
extern const uint32_t endpoint_hooks[2];
/* The node's addresses: the configured ones, else those of the uplinks. At most max; the count. */
size_t node_addresses(struct daemon *d, struct weft_addr *ret, size_t max);
/* Largest packet for endpoints' routes: the smallest uplink's MTU. */
uint32_t uplink_mtu(const struct daemon *d);
struct uplink *uplink_by_index(struct daemon *d, uint32_t ifindex);

/* ---- endpoints.c -------------------------------------------------------------------------- */

/* Makes the endpoints be those of the running build: gone ones are taken down, new ones wired. */
int daemon_endpoints_apply(struct daemon *d, struct weft_error *reterr);
/* After objects of the running build's configuration were set, removed, or put back: an endpoint
 * that is not in it any more has no section until daemon_endpoints_changed() drops it. */
void daemon_endpoints_repoint(struct daemon *d);
/* Drops those that are gone and wires the n new ones. */
int daemon_endpoints_changed(struct daemon *d, const struct config_endpoint *const *added, size_t n,
                             struct weft_error *reterr);
/* Makes ready endpoints be as they should once more, with the uplinks' MTU and their addresses. */
void daemon_endpoints_repair(struct daemon *d);
/* Looks at the devices that changed: one that was down and is up has lost its routes. */
void daemon_endpoints_look(struct daemon *d);
/* Makes the way of attaching fit the number of endpoints without hooks (attach_many()). */
void daemon_endpoints_count_new(struct daemon *d);
/* Tries every pending endpoint again; true when none is left. */
bool daemon_endpoints_retry(struct daemon *d);
/* The host-side device went away. */
void daemon_endpoints_link_gone(struct daemon *d, uint32_t ifindex);
/* A new file: perhaps an endpoint's namespace, and another one than before. */
void daemon_endpoints_appeared(struct daemon *d, const char *directory, const char *name);
/* Removes devices of endpoints that nobody knows. */
void daemon_endpoints_settle(struct daemon *d);
void daemon_endpoints_free(struct daemon *d);
struct endpoint *endpoint_by_index(struct daemon *d, uint32_t ifindex);
struct endpoint *endpoint_by_name(const struct daemon *d, const char *name);
/* A neighbour's address: true if it was news about an endpoint, whose flows then decide again. */
bool daemon_endpoints_neighbour(struct daemon *d, uint32_t ifindex, const struct weft_addr *addr,
                                const uint8_t mac[6]);
bool endpoint_has_address(const struct daemon *d, const struct weft_addr *a);
/* Adds the addresses of those that were tried, are pending and are not in the packet path: one
 * whose namespace has lost its name alone is still reached. */
void endpoints_pending_addresses(const struct daemon *d, struct weft_addresses *ret);

/* ---- removals.c ---------------------------------------------------------------------------- */

/* Takes over what E has (its name, its addresses, its device), and takes it away as the loop has
 * time. Nothing is taken over on failure. */
int daemon_removals_add(struct daemon *d, const struct endpoint *e);
/* Ends at once those that an endpoint that is not ready waits for: of the same name, or in the same
 * namespace. */
void daemon_removals_make_way(struct daemon *d);
/* Keeps the call's answer back until what is on its way out by now is gone. */
void daemon_removals_hold(struct daemon *d, struct control_call *call);
int daemon_removals_start(struct daemon *d, struct weft_error *reterr);
/* Ends them all at once. */
void daemon_removals_stop(struct daemon *d);

/* ---- overlay.c ---------------------------------------------------------------------------- */

/* Before a switch: the device of B's tunnel is there, with B's programs if it is a new one, and the
 * engine is told of it. Traffic sees nothing yet. */
int daemon_overlay_prepare(struct daemon *d, const struct build *b, struct weft_error *reterr);
/* Puts B's program into a hook of the tunnel's device: WEFT_TO_UPLINK, WEFT_FROM_OVERLAY. */
int daemon_overlay_switch(struct daemon *d, const struct build *b, uint32_t hook,
                          struct weft_error *reterr);
/* Makes everything about the tunnel be as the running build and the uplinks are now: again and
 * again. Where the tunnel cannot be, the routes go. */
int daemon_overlay_apply(struct daemon *d, struct weft_error *reterr);
/* One peer is another than before (NULL: was not there) or gone (now NULL). */
void daemon_overlay_peer_changed(struct daemon *d, const struct config_peer *before,
                                 const struct config_peer *now);
/* Removes every device of weft's that is not the running build's. */
void daemon_overlay_settle(struct daemon *d);
bool daemon_overlay_is(const struct daemon *d, uint32_t ifindex);
/* Whether B, whose modules are loaded, reaches the peer's pods through its tunnel. */
bool build_peer_is_tunnelled(const struct build *b, const struct config_peer *p);
/* Largest packet for endpoints' routes. */
uint32_t endpoint_mtu(struct daemon *d);
void daemon_overlay_free(struct daemon *d);

/* ---- objects.c ---------------------------------------------------------------------------- */

/* Makes peers and services be those of the running build; old: what the tables were made from
 * before (NULL at a start). */
void daemon_objects_apply(struct daemon *d, const struct config *old);
/* The node's addresses changed: node ports move with them. */
void daemon_services_apply(struct daemon *d);
/* Endpoints may have become ready or pending: services with backends there get new flows no sooner
 * than they can be delivered. */
void daemon_services_follow_endpoints(struct daemon *d);
/* One peer or service of the running build is another than before (NULL: was not there) or gone
 * (now NULL). */
void daemon_peer_changed(struct daemon *d, const struct config_peer *before,
                         const struct config_peer *now);
void daemon_service_changed(struct daemon *d, const struct config_service *before,
                            struct config_service *now);
/* The address the node talks to a peer by. */
struct weft_addr peer_underlay_address(const struct config *c, const struct config_peer *p);
const char *service_reason(const struct daemon *d, const char *name);
void daemon_pending_services_free(struct daemon *d);

/* ---- ports.c ------------------------------------------------------------------------------ */

/* Reads every address of the host anew; true where they are others than before. */
bool daemon_own_addresses_refresh(struct daemon *d);
/* Whether the service wants a port of one of them that is no node port: it would take it from the
 * node's own programs, its remote login for one. */
bool service_takes_own_port(const struct build *b, const struct config_service *s,
                            struct weft_error *reterr);
void check_own_addresses(const struct build *b, const struct config_service *s,
                         struct diagnostics *diagnostics);
/* Makes the ports kept from the node's own programs be the running build's, and looks for programs.
 */
void daemon_ports_apply(struct daemon *d);
/* Looks for the node's own programs that listen on a node port; new ones are logged. */
void daemon_ports_look(struct daemon *d);
/* Such a program at a port of this service, or NULL. */
const struct net_listener *daemon_ports_intruder(const struct daemon *d,
                                                 const struct config_service *s);
void daemon_ports_free(struct daemon *d);

/* ---- conflicts.c -------------------------------------------------------------------------- */

/* Looks who else is there; what was not there at the last look is logged. */
void daemon_conflicts_look(struct daemon *d);
void daemon_conflicts_free(struct daemon *d);

/* ---- conntrack.c -------------------------------------------------------------------------- */

/* Before B takes the running build's place: what goes past the host's conntrack, or went, is valid
 * to it all the same. */
void daemon_conntrack_follow(struct daemon *d, const struct build *b);

/* ---- repair.c ----------------------------------------------------------------------------- */

/* Sets again what others changed, unless it had to do so too often. */
void daemon_repair(struct daemon *d);

/* ---- states.c ----------------------------------------------------------------------------- */

/* Reads what was set before. */
int daemon_states_load(struct daemon *d, struct weft_error *reterr);
/* Gives the backends of a configuration that was just read, or of one service, their states. */
void daemon_states_apply(const struct daemon *d, struct config *c);
void daemon_states_apply_service(const struct daemon *d, struct config_service *s);
/* Forgets the states of backends that the running build has no more. */
void daemon_states_prune(struct daemon *d);
/* Sets the state of a backend of S and keeps it; the table is the caller's to change. Nothing has
 * changed on failure. */
int daemon_state_set(struct daemon *d, struct config_service *s, struct config_backend *b,
                     uint32_t state, struct weft_error *reterr);
bool daemon_state_is_set(const struct daemon *d, const struct config_service *s,
                         const struct config_backend *b);
void daemon_states_free(struct daemon *d);

/* ---- addresses.c, pressure.c -------------------------------------------------------------- */

int daemon_addresses_start(struct daemon *d, struct weft_error *reterr);
void daemon_addresses_stop(struct daemon *d);
/* An address changed: in a moment, flows that bear one that went are ended. */
void daemon_addresses_changed(struct daemon *d);
/* Logs what newcomers are dropped for because it ran out. */
void daemon_pressure_look(struct daemon *d);

/* ---- health.c ----------------------------------------------------------------------------- */

/* Makes the health-check node ports that are open be those of the running build. */
void daemon_health_apply(struct daemon *d);
/* Why the service's could not be opened, or NULL. */
const char *daemon_health_reason(const struct daemon *d, const struct config_service *s);
void daemon_health_free(struct daemon *d);

/* ---- metrics.c ---------------------------------------------------------------------------- */

/* The service manager's socket, which serves as long as the process is there. */
void daemon_metrics_take(struct daemon *d, int fd);
/* Where there is none: serves at the running build's metrics-listen. Tries again where it could not
 * before; a reason is logged once. */
void daemon_metrics_apply(struct daemon *d);
void daemon_metrics_stop(struct daemon *d);
json_t *metrics_json(const struct daemon *d);
void get_metrics(void *data, struct control_call *call, json_t *parameters);

/* ---- events.c ----------------------------------------------------------------------------- */

/* A timer that is off, for f(timer, time, d). */
int daemon_timer_add(struct daemon *d, sd_event_source **ret, sd_event_time_handler_t f);
/* Once, in DELAY microseconds. */
int daemon_timer_arm(sd_event_source *timer, uint64_t delay);
int daemon_events_start(struct daemon *d, struct weft_error *reterr);
void daemon_events_stop(struct daemon *d);
void daemon_events_net(void *data, const struct net_event *event);
/* Directories of the running build's endpoints. */
void daemon_events_watch_namespaces(struct daemon *d);
/* The uplinks are looked at soon, whatever was reported or missed. */
void daemon_events_look(struct daemon *d);
/* Pending endpoints are tried soon. */
void daemon_events_wait_for_endpoints(struct daemon *d);

/* ---- status.c, flows.c -------------------------------------------------------------------- */

extern const struct control_method node_methods[];
extern const char *const backend_state_names[BACKEND_STATES + 1]; /* ended by NULL */
/* "on", "off", "degraded" */
const char *module_state(const struct build *b, const struct plan_row *row);
/* Calls f for each counter that the module has of its own. -ENOENT: it has none, or does not run.
 */
int module_each_counter(const struct build *b, const struct weft_module *m,
                        void (*f)(void *data, const struct weft_named *counter, uint64_t value),
                        void *data);
/* A reason that a module has of its own, in the module's words while it is loaded. */
void count_name_reason(const struct build *b, struct count_view *v);
json_t *endpoint_json(const struct endpoint *e);
json_t *peer_json(const struct config_peer *p);
json_t *service_json(const struct daemon *d, const struct config_service *s);
void list_flows(void *data, struct control_call *call, json_t *parameters);

/* ---- methods.c, change.c ------------------------------------------------------------------ */

bool are_strings(const json_t *list);
void list_endpoints(void *data, struct control_call *call, json_t *parameters);
void add_endpoints(void *data, struct control_call *call, json_t *parameters);
void remove_endpoints(void *data, struct control_call *call, json_t *parameters);
void list_peers(void *data, struct control_call *call, json_t *parameters);
void add_peers(void *data, struct control_call *call, json_t *parameters);
void remove_peers(void *data, struct control_call *call, json_t *parameters);
void list_services(void *data, struct control_call *call, json_t *parameters);
void set_services(void *data, struct control_call *call, json_t *parameters);
void remove_services(void *data, struct control_call *call, json_t *parameters);
void set_backend_state(void *data, struct control_call *call, json_t *parameters);
json_t *flow_counts(struct daemon *d);
/* Of small tables as they are now, else as the collection saw them last. */
struct flow_counts daemon_flow_counts(struct daemon *d);
