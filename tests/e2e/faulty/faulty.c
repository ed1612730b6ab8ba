/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A module that fails where it is told to, and tells the log what is done with it. Built several
 * times: VERSION, ABI, MIGRATES, WRONG_TEST, CRASHES: it takes the process with it. */

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <syslog.h>

#include <weft/module.h>

WEFT_OBJECT(OBJECT);

enum {
        FAIL_NOT,
        FAIL_CONFIGURE,
        FAIL_LOAD,
        FAIL_PREPARE,
        FAIL_ATTACH,
        FAIL_RECONFIGURE,
        FAIL_EVENT
};

static const char *const failures[] = { "no",     "configure",   "load",  "prepare",
                                        "attach", "reconfigure", "event", NULL };

struct faulty_config {
        uint32_t fail;
        bool live;
        uint32_t number;
};

static const struct weft_option options[] = {
        WEFT_OPT_ENUM(struct faulty_config, fail, "fail", "no", failures, "The phase that fails."),
        WEFT_OPT_BOOL(struct faulty_config, live, "live", "no",
                      "Whether other options are taken live."),
        WEFT_OPT_U32(struct faulty_config, number, "number", "1", 0, 0, "Any number."),
        {}
};

static int fail_in(uint32_t phase, struct weft_instance *self, const struct weft_api *api,
                   struct weft_error *reterr)
{
        const struct faulty_config *config = api->config(self);

#ifdef CRASHES
        if (config->fail == phase)
                abort();
#endif
        return config->fail == phase ? api->fail(reterr, -EIO, "it was told to fail here") : 0;
}

static int faulty_configure(struct weft_instance *self, const struct weft_api *api,
                            struct weft_error *reterr)
{
        return fail_in(FAIL_CONFIGURE, self, api, reterr);
}

static int faulty_load(struct weft_instance *self, const struct weft_api *api,
                       struct weft_error *reterr)
{
        return fail_in(FAIL_LOAD, self, api, reterr);
}

static int faulty_prepare(struct weft_instance *self, const struct weft_api *api,
                          struct weft_instance *old, struct weft_error *reterr)
{
        api->log(self, LOG_INFO, "prepares, old version %s", old ? api->version(old) : "none");
        return fail_in(FAIL_PREPARE, self, api, reterr);
}

static int faulty_attach(struct weft_instance *self, const struct weft_api *api,
                         struct weft_error *reterr)
{
        api->log(self, LOG_INFO, "attaches");
        return fail_in(FAIL_ATTACH, self, api, reterr);
}

static int faulty_reconfigure(struct weft_instance *self, const struct weft_api *api,
                              const void *next, struct weft_error *reterr)
{
        const struct faulty_config *config = next;

        (void) self;
        if (config->fail == FAIL_RECONFIGURE)
                return api->fail(reterr, -EIO, "it was told to fail here");

        return config->live ? WEFT_DONE_LIVE : WEFT_REPLACE_ME;
}

static void faulty_takeover(struct weft_instance *self, const struct weft_api *api,
                            struct weft_instance *old)
{
        const struct faulty_config *config = api->config(self);

        api->log(self, LOG_INFO, "takes over from %s, number %u",
                 old == self ? "itself"
                 : old       ? api->version(old)
                             : "nobody",
                 config->number);
}

static int faulty_event(struct weft_instance *self, const struct weft_api *api,
                        const struct weft_module_event *event, struct weft_error *reterr)
{
        if (event->kind != WEFT_PEER_ADDED && event->kind != WEFT_PEER_REMOVED)
                return 0;

        api->log(self, LOG_INFO, "peer %s %s", event->peer->name,
                 event->kind == WEFT_PEER_ADDED ? "added" : "removed");
        return fail_in(FAIL_EVENT, self, api, reterr);
}

static void faulty_detach(struct weft_instance *self, const struct weft_api *api)
{
        api->log(self, LOG_INFO, "detaches, version %s", api->version(self));
}

#ifdef MIGRATES
static int faulty_migrate(struct weft_instance *self, const struct weft_api *api, const char *map,
                          unsigned from_version, int old_fd, int new_fd, struct weft_error *reterr)
{
        uint32_t zero = 0, old;
        uint64_t new;

        if (bpf_map_lookup_elem(old_fd, &zero, &old) < 0)
                return api->fail(reterr, -errno, "the old map cannot be read");

        new = old;
        api->log(self, LOG_INFO, "migrates %s from version %u", map, from_version);
        return bpf_map_update_elem(new_fd, &zero, &new, BPF_ANY);
}
#endif

#ifdef WRONG_TEST
static const uint8_t frame[64] = { 2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 2, 0, 0x88, 0xb5 };
static const struct weft_test tests[] = { { .name = "what is not IP is dropped",
                                            .hook = WEFT_FROM_UPLINK,
                                            .packet = WEFT_TEST_BYTES(frame),
                                            .verdict = WEFT_TEST_DROP },
                                          {} };
#endif

WEFT_MODULE(.name = "faulty", .summary = "Fails where it is told to", .version = VERSION,
            .options = options, .config_size = sizeof(struct faulty_config), .object = weft_object,
            .object_end = weft_object_end, .configure = faulty_configure, .load = faulty_load,
            .prepare = faulty_prepare, .attach = faulty_attach, .reconfigure = faulty_reconfigure,
            .takeover = faulty_takeover, .event = faulty_event, .detach = faulty_detach,
#ifdef MIGRATES
            .migrate = faulty_migrate,
#endif
#ifdef WRONG_TEST
            .tests = tests,
#endif
#ifdef ABI
            .abi = ABI,
#endif
);
