/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "ctl/catalogue.h"
#include "ctl/wrap.h"
#include "log.h"

enum { WIDTH = 80 };

void catalogue_print(FILE *f)
{
        (void) fputs("# SPDX-License-Identifier: LGPL-2.1-or-later\n"
                     "# Made from core/messages.def.\n",
                     f);

        for (int i = MESSAGE_NONE + 1; i < MESSAGES; i++) {
                const struct message_entry *m = &message_entries[i];

                (void) fprintf(f,
                               "\n-- %s\n"
                               "Subject: %s\n"
                               "Defined-By: weft\n"
                               "Documentation: man:weftd(8)\n"
                               "\n",
                               m->id, m->subject);
                wrap_print(f, m->text, 0, WIDTH);
        }
}
