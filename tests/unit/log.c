/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The log, read where it arrives: a socket of ours stands where the journal's would be, in a mount
 * namespace of this process. */

#include <criterion/criterion.h>
#include <ctype.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "config/config.h"
#include "log.h"
#include "util.h"

enum { ENTRY_SIZE = 1 << 16 };

/* Where sd_journal_sendv() sends to. */
static int open_journal(void)
{
        static const struct sockaddr_un address = { .sun_family = AF_UNIX,
                                                    .sun_path = "/run/systemd/journal/socket" };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        cr_assert_eq(unshare(CLONE_NEWNS), 0, "%m");
        cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0, "%m");
        cr_assert_eq(mount("tmpfs", "/run", "tmpfs", 0, NULL), 0, "%m");
        cr_assert_eq(mkdir("/run/systemd", 0755), 0);
        cr_assert_eq(mkdir("/run/systemd/journal", 0755), 0);
        cr_assert_eq(bind(fd, (const struct sockaddr *) &address, sizeof(address)), 0, "%m");

        return fd;
}

/* stderr is this file from here on; JOURNAL_STREAM says that it, or another one, is the journal. */
static void make_stderr(bool journal)
{
        FILE *f = tmpfile();
        struct stat st;
        char stream[64];

        cr_assert_geq(dup2(fileno(f), STDERR_FILENO), 0);
        cr_assert_eq(fstat(STDERR_FILENO, &st), 0);
        (void) snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long) st.st_dev,
                        (unsigned long long) st.st_ino + !journal);
        cr_assert_eq(setenv("JOURNAL_STREAM", stream, 1), 0);
        log_open("weftd");
}

/* An entry of the journal is lines of FIELD=value; one with a line feed in it, or a long one, has
 * its length in binary instead. Large entries come as a file. */
static const char *receive(int journal)
{
        static char entry[ENTRY_SIZE];
        char control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = { entry, sizeof(entry) - 1 };
        struct msghdr m = {
                .msg_iov = &iov,
                .msg_iovlen = 1,
                .msg_control = control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(journal, &m, MSG_DONTWAIT);
        struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&m) : NULL;

        if (c) {
                _cleanup_close_ int fd = -1;

                memcpy(&fd, CMSG_DATA(c), sizeof(fd));
                n = pread(fd, entry, sizeof(entry) - 1, 0);
        }
        entry[n > 0 ? n : 0] = '\0';

        return entry;
}

static bool has_line(const char *entry, const char *line)
{
        size_t n = strlen(line);

        for (const char *at = entry; (at = strstr(at, line)); at++)
                if ((at == entry || at[-1] == '\n') && at[n] == '\n')
                        return true;

        return false;
}

static const char *stderr_text(void)
{
        static char text[4096];
        ssize_t n = pread(STDERR_FILENO, text, sizeof(text) - 1, 0);

        text[n > 0 ? n : 0] = '\0';
        return text;
}

Test(log, a_line_goes_to_the_journal_with_its_fields_where_stderr_is_the_journal)
{
        _cleanup_close_ int journal = open_journal();
        const struct origin origin = { .file = "/etc/weft/weft.conf", .line = 7 };
        char id[64];
        const char *entry;

        make_stderr(/* journal= */ true);
        log_generation(5);
        log_line(LOG_WARNING,
                 &(const struct log_fields) {
                         .message = MESSAGE_SERVICE_PENDING, .service = "web", .origin = &origin },
                 "service %s waits", "web");
        entry = receive(journal);

        (void) snprintf(id, sizeof(id), "MESSAGE_ID=%s",
                        message_entries[MESSAGE_SERVICE_PENDING].id);
        cr_expect(has_line(entry, "MESSAGE=/etc/weft/weft.conf:7: service web waits"), "%s", entry);
        cr_expect(has_line(entry, "PRIORITY=4"));
        cr_expect(has_line(entry, "SYSLOG_IDENTIFIER=weftd"));
        cr_expect(has_line(entry, "WEFT_GENERATION=5"));
        cr_expect(has_line(entry, "WEFT_SERVICE=web"));
        cr_expect(has_line(entry, "CONFIG_FILE=/etc/weft/weft.conf"));
        cr_expect(has_line(entry, "CONFIG_LINE=7"));
        cr_expect(has_line(entry, id));
        cr_expect_null(strstr(entry, "WEFT_MODULE"), "what is not given is left out");
        cr_expect_str_empty(stderr_text());
}

Test(log, a_generation_of_the_lines_own_goes_before_the_one_that_runs)
{
        _cleanup_close_ int journal = open_journal();

        make_stderr(/* journal= */ true);
        log_generation(5);
        log_line(LOG_INFO, &(const struct log_fields) { .module = "bpf-masq", .generation = 6 },
                 "x");
        {
                const char *entry = receive(journal);

                cr_expect(has_line(entry, "MESSAGE=bpf-masq: x"), "%s", entry);
                cr_expect(has_line(entry, "WEFT_MODULE=bpf-masq"));
                cr_expect(has_line(entry, "WEFT_GENERATION=6"));
                cr_expect_null(strstr(entry, "MESSAGE_ID"));
        }
}

Test(log, a_long_text_is_a_field_as_a_whole)
{
        _cleanup_close_ int journal = open_journal();
        char text[20000];
        const char *entry, *field;

        memset(text, 'v', sizeof(text));
        text[100] = '\n';
        text[sizeof(text) - 1] = '\0';
        make_stderr(/* journal= */ true);
        log_line(LOG_ERR, &(const struct log_fields) { .verifier_log = text }, "refused");
        entry = receive(journal);
        field = strstr(entry, "WEFT_VERIFIER_LOG\n");
        cr_assert_not_null(field);
        field += strlen("WEFT_VERIFIER_LOG\n") + sizeof(uint64_t);
        cr_expect_eq(strncmp(field, text, strlen(text)), 0);
}

Test(log, a_line_is_plain_text_where_stderr_is_something_else)
{
        _cleanup_close_ int journal = open_journal();

        make_stderr(/* journal= */ false);
        log_about(LOG_NOTICE, UPLINK_GONE, uplink, "eth0", "uplink %s is gone", "eth0");
        cr_expect_str_eq(stderr_text(), "<5>uplink eth0 is gone\n");
        cr_expect_str_empty(receive(journal));
}

Test(log, every_message_has_a_number_of_its_own_and_a_subject)
{
        for (int i = MESSAGE_NONE + 1; i < MESSAGES; i++) {
                const struct message_entry *m = &message_entries[i];

                cr_expect_eq(strlen(m->id), 32, "%s", m->subject);
                cr_expect_eq(strspn(m->id, "0123456789abcdef"), 32, "%s", m->subject);
                cr_expect_gt(strlen(m->subject), 5);
                for (int k = MESSAGE_NONE + 1; k < i; k++)
                        cr_expect_str_neq(m->id, message_entries[k].id, "%s", m->subject);
        }
}
