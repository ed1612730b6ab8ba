/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <libgen.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>

#include "config/values.h"
#include "daemon/daemon.h"
#include "log.h"
#include "util.h"

/* Microseconds. */
#define MILLISECOND 1000ull
#define SECOND 1000000ull
#define CHANGES_DELAY (100 * MILLISECOND) /* the world epoch moves at most ten times a second */
#define CHANGES_SHARE 10                  /* looking takes a tenth of the time at most */
#define COLLECT_DELAY (10 * MILLISECOND)  /* between two pieces of a pass */
#define COLLECT_PASS (10 * SECOND)        /* between two passes */
#define RETRY_FIRST (20 * MILLISECOND)
#define RETRY_LAST (2 * SECOND)

enum { CONFLICT_PASSES = 6 }; /* of collection, between two looks */
enum { COLLECT_PIECE = 4096, CHANGED_MAX = 64 };

int daemon_timer_arm(sd_event_source *timer, uint64_t delay)
{
        int r = sd_event_source_set_time_relative(timer, delay);

        return r < 0 ? r : sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

static bool is_armed(sd_event_source *timer)
{
        return sd_event_source_get_enabled(timer, NULL) > 0;
}

/* ---- does a route matter? ----------------------------------------------------------------- */

struct flow_search {
        const struct weft_prefix *prefixes;
        size_t n;
};

static int flow_goes_there(void *data, const struct flow_view *v)
{
        const struct flow_search *s = data;

        return !v->expired && any_prefix_contains(s->prefixes, s->n, &v->new_daddr);
}

/* Through a tunnel: flows go where the peers are. */
static bool leads_to_a_peer(struct daemon *d, const struct flow_search *s)
{
        const struct config *c = d->build->config;

        for (size_t i = 0; generation_tunnel(d->build->generation) && i < c->n_peers; i++) {
                struct weft_addr a = peer_underlay_address(c, &c->peers[i]);

                if (any_prefix_contains(s->prefixes, s->n, &a))
                        return true;
        }

        return false;
}

/* Whether a changed route covers the destination of any flow. The default routes cover so much that
 * nobody needs to look. */
static bool routes_matter(struct daemon *d)
{
        struct flow_search s = { .prefixes = d->changed, .n = d->n_changed };

        for (size_t i = 0; i < s.n; i++)
                if (s.prefixes[i].len == 0 || s.prefixes[i].len == 96)
                        return true;

        return s.n > 0 &&
               (leads_to_a_peer(d, &s) || tables_each_flow(d->tables, flow_goes_there, &s) != 0);
}

static uint64_t now(void)
{
        struct timespec t;

        (void) clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * SECOND + t.tv_nsec / 1000;
}

/* Events come in bursts; what they ask for is done once for all of them. */
static void schedule_changes(struct daemon *d)
{
        uint64_t time = now(), rest = d->rest_until > time ? d->rest_until - time : 0;

        if (!is_armed(d->changes))
                (void) daemon_timer_arm(d->changes, rest > CHANGES_DELAY ? rest : CHANGES_DELAY);
}

static void look_at_uplinks(struct daemon *d)
{
        struct weft_addr before[NODE_ADDRESSES_MAX], after[NODE_ADDRESSES_MAX];
        size_t n_before = node_addresses(d, before, NODE_ADDRESSES_MAX), n_after;
        uint32_t mtu = endpoint_mtu(d);
        struct weft_error why = { 0 };

        if (daemon_uplinks_refresh(d, &why) < 0 || daemon_overlay_apply(d, &why) < 0)
                log_warning("%s", why.text);
        host_routes_again(d->host, NULL, NULL);
        if (endpoint_mtu(d) != mtu)
                daemon_endpoints_repair(d);
        build_event(d->build, WEFT_LINK_CHANGED);

        n_after = node_addresses(d, after, NODE_ADDRESSES_MAX);
        (void) daemon_own_addresses_refresh(d);
        if (!d->own_addresses_changed && n_before == n_after &&
            memcmp(before, after, n_after * sizeof(*after)) == 0)
                return;

        d->own_addresses_changed = false;

        daemon_services_apply(d);
        daemon_health_apply(d);
        daemon_ports_look(d);
        build_event(d->build, WEFT_ADDRESS_CHANGED);
}

static int on_changes(sd_event_source *timer, uint64_t time, void *data)
{
        struct daemon *d = data;
        uint64_t begin = now();

        (void) timer;
        (void) time;
        if (d->look_at_uplinks) {
                d->look_at_uplinks = false;
                look_at_uplinks(d);
        }

        if (d->look_at_endpoints) {
                d->look_at_endpoints = false;
                daemon_endpoints_look(d);
        }
        if (d->look_at_settings || d->route_gone)
                daemon_repair(d);
        d->look_at_settings = false;

        if (d->move_epoch || routes_matter(d))
                tables_move_epoch(d->tables);
        d->move_epoch = false;
        d->n_changed = 0;
        d->rest_until = now() + CHANGES_SHARE * (now() - begin);

        return 0;
}

/* ---- netlink ------------------------------------------------------------------------------ */

/* Somebody else's, perhaps, that kept weft from making its own. */
static bool led_to_a_peers_pods(const struct daemon *d, const struct weft_prefix *dst)
{
        const struct config *c = d->build->config;

        for (size_t i = 0; i < c->n_peers; i++)
                for (size_t k = 0; k < c->peers[i].pod_cidr.n; k++)
                        if (c->peers[i].pod_cidr.items[k].len == dst->len &&
                            address_equal(&c->peers[i].pod_cidr.items[k].addr, &dst->addr))
                                return true;

        return false;
}

static void on_route(struct daemon *d, const struct net_event *event)
{
        if (event->gone && (event->dst.len == 0 || host_holds_route(d->host, &event->dst))) {
                d->route_gone = true;
                schedule_changes(d);
        } else if (event->gone && led_to_a_peers_pods(d, &event->dst)) {
                d->look_at_uplinks = true;
                schedule_changes(d);
        }

        /* An endpoint's own route is weft's, and its table entry has a number of its own. */
        if (event->dst.len == 128 && endpoint_has_address(d, &event->dst.addr))
                return;

        if (event->dst.len == 0 || event->dst.len == 96)
                d->look_at_uplinks = true;
        if (d->n_changed == CHANGED_MAX ||
            list_grow(&d->changed, d->n_changed, sizeof(*d->changed)) < 0)
                d->move_epoch = true;
        else
                d->changed[d->n_changed++] = event->dst;
        schedule_changes(d);
}

static bool is_uplink_name(const struct daemon *d, const char *name)
{
        for (size_t i = 0; i < d->n_uplinks; i++)
                if (strcmp(d->uplinks[i].name, name) == 0)
                        return true;

        return false;
}

static void on_link(struct daemon *d, const struct net_event *event, bool gone)
{
        struct endpoint *e = endpoint_by_index(d, event->link.ifindex);

        if (gone)
                daemon_endpoints_link_gone(d, event->link.ifindex);
        else if (e) {
                e->look = d->look_at_endpoints = true;
                schedule_changes(d);
                return;
        }

        if (!is_uplink_name(d, event->link.name) && !uplink_by_index(d, event->link.ifindex) &&
            !daemon_overlay_is(d, event->link.ifindex)) {
                if (!gone)
                        daemon_events_wait_for_endpoints(d); /* perhaps an interface = of theirs */
                return;
        }

        d->look_at_uplinks = true;
        schedule_changes(d);
}

void daemon_events_look(struct daemon *d)
{
        d->look_at_uplinks = true;
        schedule_changes(d);
}

void daemon_events_net(void *data, const struct net_event *event)
{
        struct daemon *d = data;

        if (!d->hooks_on)
                return;

        switch (event->kind) {
        case NET_LINK_NEW:
        case NET_LINK_GONE:
                on_link(d, event, event->kind == NET_LINK_GONE);
                break;
        case NET_ADDRESS:
                if (endpoint_by_index(d, event->ifindex))
                        break;
                daemon_addresses_changed(d);
                d->look_at_uplinks = d->move_epoch = true;
                schedule_changes(d);
                break;
        case NET_ROUTE:
                on_route(d, event);
                break;
        case NET_SETTING:
                d->look_at_settings = true;
                schedule_changes(d);
                break;
        case NET_NEIGHBOUR:
                tables_neighbour(d->tables, event->ifindex, &event->addr, event->mac);
                if (!daemon_endpoints_neighbour(d, event->ifindex, &event->addr, event->mac))
                        break;
                d->move_epoch = true;
                schedule_changes(d);
                break;
        }
}

/* ---- pending endpoints -------------------------------------------------------------------- */

static bool any_pending(const struct daemon *d)
{
        for (size_t i = 0; i < d->n_endpoints; i++)
                if (!d->endpoints[i].ready)
                        return true;

        return false;
}

/* A namespace appears as a file that is mounted over a moment later, without an event for that: so
 * the first tries come quickly. */
void daemon_events_wait_for_endpoints(struct daemon *d)
{
        if (!d->retry || !any_pending(d))
                return;

        d->retry_delay = RETRY_FIRST;
        (void) daemon_timer_arm(d->retry, d->retry_delay);
}

static int on_retry(sd_event_source *timer, uint64_t time, void *data)
{
        struct daemon *d = data;

        (void) time;
        daemon_events_watch_namespaces(d); /* the directory may have come by now */
        if (daemon_endpoints_retry(d))
                return 0;

        d->retry_delay = d->retry_delay * 2 > RETRY_LAST ? RETRY_LAST : d->retry_delay * 2;
        (void) daemon_timer_arm(timer, d->retry_delay);

        return 0;
}

static int on_directory(sd_event_source *source, const struct inotify_event *event, void *data)
{
        const char *directory;

        if (event->len > 0 && sd_event_source_get_description(source, &directory) >= 0)
                daemon_endpoints_appeared(data, directory, event->name);

        return 0;
}

static bool is_watched(const struct daemon *d, const char *directory)
{
        for (size_t i = 0; i < d->n_watches; i++) {
                const char *name;

                if (sd_event_source_get_description(d->watches[i], &name) >= 0 &&
                    strcmp(name, directory) == 0)
                        return true;
        }

        return false;
}

/* Directories that are not there yet are left to the timer. */
static void watch_directory(struct daemon *d, const char *directory)
{
        sd_event_source *source = NULL;

        if (is_watched(d, directory) || list_grow(&d->watches, d->n_watches, sizeof(source)) < 0)
                return;
        if (sd_event_add_inotify(d->loop, &source, directory, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR,
                                 on_directory, d) < 0)
                return;

        (void) sd_event_source_set_description(source, directory);
        d->watches[d->n_watches++] = source;
}

void daemon_events_watch_namespaces(struct daemon *d)
{
        for (size_t i = 0; i < d->build->config->n_endpoints; i++) {
                const char *netns = d->build->config->endpoints[i].netns;
                _cleanup_free_ char *copy = netns ? strdup(netns) : NULL;

                if (copy)
                        watch_directory(d, dirname(copy));
        }
}

/* ---- collection --------------------------------------------------------------------------- */

static int on_collect(sd_event_source *timer, uint64_t time, void *data)
{
        struct daemon *d = data;
        bool done = false;

        (void) time;
        d->collected += tables_collect(d->tables, COLLECT_PIECE, &done);
        d->collection_passes += done;
        if (done) {
                daemon_metrics_apply(d);
                daemon_health_apply(d);
                daemon_ports_look(d);
                daemon_pressure_look(d);
                daemon_repair(d);
                if (++d->passes == CONFLICT_PASSES)
                        daemon_conflicts_look(d);
        }
        (void) daemon_timer_arm(timer, done ? COLLECT_PASS : COLLECT_DELAY);

        return 0;
}

/* ---- drops of the last minute ------------------------------------------------------------- */

static void remember_drop(void *data, const struct count_view *v)
{
        recent_add(data, v);
}

static int on_look(sd_event_source *timer, uint64_t time, void *data)
{
        struct daemon *d = data;

        (void) time;
        recent_begin(&d->recent, monotonic_now());
        tables_each_drop(d->tables, remember_drop, &d->recent);
        (void) daemon_timer_arm(timer, RECENT_STEP_SECONDS * 1000 * MILLISECOND);

        return 0;
}

/* ---- start and stop ----------------------------------------------------------------------- */

int daemon_timer_add(struct daemon *d, sd_event_source **ret, sd_event_time_handler_t f)
{
        int r = sd_event_add_time_relative(d->loop, ret, CLOCK_MONOTONIC, 0, MILLISECOND, f, d);

        return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

int daemon_events_start(struct daemon *d, struct weft_error *reterr)
{
        int r = daemon_timer_add(d, &d->changes, on_changes);

        if (r >= 0)
                r = daemon_timer_add(d, &d->retry, on_retry);
        if (r >= 0)
                r = daemon_timer_add(d, &d->collect, on_collect);
        if (r >= 0)
                r = daemon_timer_arm(d->collect, COLLECT_PASS);
        if (r >= 0)
                r = daemon_timer_add(d, &d->look, on_look);
        if (r >= 0)
                r = daemon_timer_arm(d->look, 0);
        if (r < 0)
                return weft_fail(reterr, r, "cannot set up timers: %s", strerror(-r));

        return 0;
}

void daemon_events_stop(struct daemon *d)
{
        for (size_t i = 0; i < d->n_watches; i++)
                sd_event_source_disable_unref(d->watches[i]);
        free(d->watches);
        free(d->changed);
        sd_event_source_disable_unref(d->changes);
        sd_event_source_disable_unref(d->retry);
        sd_event_source_disable_unref(d->collect);
        sd_event_source_disable_unref(d->look);
        recent_done(&d->recent);
}
