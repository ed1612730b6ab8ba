/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The module that the loader's tests load, in several versions. */

#include <weft/module.h>

static int sample_configure(struct weft_instance *self, const struct weft_api *api,
                            struct weft_error *reterr)
{
        (void) self;
        return api->fail(reterr, -22, "the sample never configures");
}

WEFT_MODULE(.name = "sample", .summary = "a module for tests", .version = SAMPLE_VERSION,
            .configure = sample_configure);
