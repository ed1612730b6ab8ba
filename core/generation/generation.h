/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A generation: one complete, verified set of modules and chains. Building has no effect on traffic
 * and may fail freely; attaching switches each hook by one link update; dropping waits for a grace
 * period first. */

#include <stdbool.h>
#include <stdint.h>

#include <weft/module.h>

#include "config/config.h"
#include "error.h"
#include "module/module.h"
#include "tables/tables.h"

struct bpf_object;
struct generation;

struct generation_settings {
        uint32_t number; /* 1, 2, … over restarts too */
        uint32_t hz;     /* jiffies per second */
        uint32_t mark_mask;
        bool count_lookups; /* tests: the event LOOKUP counts every one */
        bool can_cast;      /* kernel has bpf_cast_to_kern_ctx */
        bool can_decap;     /* bpf_skb_adjust_room() changes the protocol when it shrinks */
        uint16_t host_ports_low, host_ports_high; /* the node's ephemeral range */
        const char *bpffs;  /* for the modules' maps that outlive it; NULL: none does */
        const void *engine; /* bytes of engine.bpf.o */
        size_t engine_size;
        bool dry; /* for a self-test: no instance is given maps, no map is shared or outlives it */
};

/* One row of a computed chain. */
struct chain_row {
        uint32_t hook, phase;       /* enums of types.h; WEFT_PHASES: the engine's entry program */
        const char *module, *stage; /* module "engine" for the engine's own programs */
        bool engine;                /* it is one of these */
        uint32_t prog_id;
        uint64_t run_count; /* 0 where the kernel does not count */
};

/* Opens, sizes, fills constants and loads the engine's programs and one program for each stage and
 * hook, in the computed order, into a fresh prog array. modules: in plan order, instance_load()
 * done, owned by the caller and outliving the generation. */
int generation_build(struct tables *t, const struct generation_settings *s,
                     struct instance *const *modules, size_t n_modules, struct generation **ret,
                     struct weft_error *reterr);
/* Closes programs and prog array. Call after attach_switch() to another and grace_period(). */
struct generation *generation_free(struct generation *g);
/* After build: fills maps of another version from what is pinned, then the new instances prepare.
 */
int generation_prepare(struct generation *g, struct weft_error *reterr);
/* After the switch: each instance becomes the owner of what it prepared for. */
void generation_takeover(struct generation *g);
uint32_t generation_number(const struct generation *g);
/* How its packets are carried to other nodes; NULL: not at all. */
const struct weft_tunnel_spec *generation_tunnel(const struct generation *g);
/* Exit program of the tunnel's device; -ENOENT where there is no device. */
int generation_overlay_fd(const struct generation *g);
/* Program for a hook (enum weft_hook); -ENOENT where the hook needs none. */
int generation_hook_fd(const struct generation *g, uint32_t hook);
/* Does a stage of phase early stand in the hook? */
bool generation_sees_all(const struct generation *g, uint32_t hook);
/* False: an early stage sees what passes the uplinks, and the program of WEFT_XDP_UPLINK is one
 * that does nothing. */
bool generation_replays_in_xdp(const struct generation *g);
/* Does a stage of phase service stand in the hook? */
bool generation_serves(const struct generation *g, uint32_t hook);
size_t generation_chain(const struct generation *g, struct chain_row *rows, size_t max);
/* Name of a module id as flows and drops carry it; "engine" for 0, NULL where unknown. */
const char *generation_module_name(const struct generation *g, uint16_t id);
/* Waits until no CPU runs a program that was replaced before the call. */
void grace_period(void);

/* The prog array; owned by the generation. */
int generation_chain_fd(const struct generation *g);
/* Keeps the prog array filled while no daemon runs: pinned as BPFFS/chain-NUMBER, and the modules'
 * maps that outlive it (maps.h). Call it before the first hook is switched; a generation that is
 * never switched to is unpinned by the next. */
int generation_pin(const struct generation *g, const char *bpffs, struct weft_error *reterr);
/* After all hooks are switched to g and grace_period(): lets go of its predecessors' prog arrays
 * and of modules' maps that it does not use. */
void generation_unpin_others(const struct generation *g, const char *bpffs);
/* For pins.c. */
int generation_pin_maps(const struct generation *g, const char *bpffs, struct weft_error *reterr);
bool generation_has_pin(const struct generation *g, const char *module, const char *pin);
void generation_unpin_all(const char *bpffs); /* for cleanup, after everything is detached */
/* Greatest number pinned there, by whichever daemon; 0: none. The next generation is one more. */
uint32_t generation_last(const char *bpffs);

/* An object of the generation's i-th module, with its maps; NULL where it has none. */
const struct bpf_object *generation_object(const struct generation *g, size_t i);

/* ---- attaching ---------------------------------------------------------------------------- */

struct attachments;

/* Links pinned in BPFFS/links/IFNAME-HOOK (tcx), filters of weft's handle and priority (clsact), or
 * pinned XDP links. mode: enum config_attach; ATTACH_AUTO is tcx where the kernel has it. Takes
 * over the links that a predecessor left. */
int attach_open(const char *bpffs, uint32_t mode, struct attachments **ret,
                struct weft_error *reterr);
struct attachments *attach_close(struct attachments *a); /* links stay */
/* enum config_tcx_order: where new links go; those that are there keep their places. */
void attach_tcx_order(struct attachments *a, uint32_t order);
/* While many: hooks of endpoints that nothing hangs on yet get clsact filters where they would get
 * tcx links. A new tcx link waits for an RCU grace period, some 10 ms, under the lock of all of
 * networking; for hundreds that is seconds in which nothing else is done. */
void attach_many(struct attachments *a, bool many);
bool attach_uses_tcx(const struct attachments *a);

/* Makes HOOK of the interface run the program: a link update where weft is attached there already,
 * a new link otherwise; foreign programs keep their places. */
int attach_hook(struct attachments *a, uint32_t ifindex, const char *ifname, uint32_t hook,
                int prog_fd, struct weft_error *reterr);
/* False: somebody detached one of weft's; which is "IFNAME" of the first such. */
bool attach_is_whole(const struct attachments *a, char ret_ifname[static 16]);
void attach_remove(struct attachments *a, const char *ifname); /* all hooks of the interface */
/* Hangs anything there by a link? */
bool attach_has_link(const struct attachments *a, const char *ifname);
/* Hangs anything of that hook there? */
bool attach_has_hook(const struct attachments *a, const char *ifname, uint32_t hook);
/* Of an interface that is about to go: attach_is_whole() does not miss it. */
void attach_unwant(struct attachments *a, const char *ifname);
/* The interface is gone, and what hung there with it: the books follow. */
void attach_forget(struct attachments *a, const char *ifname);
void attach_remove_hook(struct attachments *a, const char *ifname, uint32_t hook);
/* Removes attachments that attach_hook() was not called for since open. */
void attach_settle(struct attachments *a);
/* Removes all; says what through f. */
void attach_cleanup(struct attachments *a, void (*f)(void *data, const char *what), void *data);
