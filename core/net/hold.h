/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a struct host holds, shared by the files of host_*() and wire_*(). Inside core/net only.
 *
 * A hold with count 0 is one that a predecessor made (or that a route with weft's protocol number
 * bears witness to) and nobody has asked for yet. */

#include <stdbool.h>
#include <stdint.h>

#include "net/rtnl.h"

struct sysctl_hold {
        char *path;   /* below /proc/sys */
        char *before; /* what was there */
        char *value;  /* what weft wrote */
        unsigned count;
};

struct route_hold {
        struct route route;
        unsigned count;
};

struct port_hold {
        uint16_t low, high;
        unsigned count;
};

struct table_hold {
        char *name;    /* of family inet */
        char **bodies; /* the last one is in force; none: the predecessor's */
        size_t n;
};

struct port_set {
        uint64_t bits[65536 / 64];
};

/* What the wiring of one endpoint asked for, to be given back. */
struct wire_hold {
        char *name;
        struct weft_addresses addrs; /* owned */
};

struct host {
        struct net *net;
        char *path; /* of the record */
        int record;
        size_t lines; /* in the record */
        struct sysctl_hold *sysctls;
        struct route_hold *routes;
        struct port_hold *ports;
        struct wire_hold *wires;
        struct table_hold *tables;
        size_t n_sysctls, n_routes, n_ports, n_wires, n_tables;
        struct port_set own_ports;       /* reserved by weft, not found reserved */
        struct port_set inherited_ports; /* the predecessor's, until host_settle() */
        unsigned forwarding6;            /* interfaces that forward IPv6 for weft */
};

/* ---- record.c: a line is appended before a change is made and after it is undone ---------- */

/* Reads what the predecessor left into the holds, all with count 0, and writes the file anew. */
int record_open(struct host *h, struct weft_error *reterr);
int record_add(struct host *h, struct weft_error *reterr, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
/* Writes the file anew when most of its lines are history. */
void record_trim(struct host *h);

/* ---- sysctl.c ----------------------------------------------------------------------------- */

/* Value without its line end, tabs as blanks; caller frees. */
int sysctl_read(const char *path, char **ret);
int sysctl_write(const char *path, const char *value);
struct sysctl_hold *sysctl_find(struct host *h, const char *path);
struct sysctl_hold *sysctl_add(struct host *h, const char *path, const char *before,
                               const char *value);
/* Restores what was there, unless somebody wrote another value since, and forgets the hold. */
void sysctl_undo(struct host *h, struct sysctl_hold *s);
void sysctl_hold_done(struct sysctl_hold *s);
/* An interface's accept_ra: goes back last (forwarding.c). */
bool sysctl_keeps_advertisements(const struct sysctl_hold *s);

/* ---- ports.c ------------------------------------------------------------------------------ */

/* "30080,30100-30110" as ip_local_reserved_ports has it. */
bool ports_parse(const char *text, struct port_set *ret);
char *ports_format(const struct port_set *set); /* caller frees; NULL when out of memory */
/* Makes the reserved ports follow the holds; 1 if they did not. */
int ports_apply(struct host *h, struct weft_error *reterr);

/* ---- routes of weft on the host (host-route.c) -------------------------------------------- */

struct route_hold *route_find(struct host *h, const struct weft_prefix *dst);
struct route_hold *route_hold_add(struct host *h, const struct route *r);
void route_undo(struct host *h, struct route_hold *r);

/* ---- tables of nftables (nft.c) ----------------------------------------------------------- */

struct table_hold *table_find(struct host *h, const char *name);
struct table_hold *table_hold_add(struct host *h, const char *name);
/* Deletes the table, if no body is held, and forgets the hold. */
void table_undo(struct host *h, struct table_hold *t);
/* Those that somebody deleted are made again, and told by f (may be NULL). */
void tables_again(struct host *h, void (*f)(void *data, const char *what), void *data);
/* Nobody holds it any more. */
void table_release(struct table_hold *t);
void table_hold_done(struct table_hold *t);

/* ---- wire.c ------------------------------------------------------------------------------- */

void wire_hold_done(struct wire_hold *w);
/* Deletes every device that wire_up() made, saying so. */
void wires_cleanup(struct net *n, void (*f)(void *data, const char *what), void *data);
