/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Criterion runs each test as a process of its own, which is a program started anew: what is loaded
 * must be kept by somebody else. That is not Criterion's own process, whose descriptors each test
 * would first have to close, but its parent. It loads a variant when the first test asks for it, so
 * that a run of some tests loads what these need. */

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"
#include "world-internal.h"

/* Of this network namespace, which is ours alone. */
static const struct sockaddr_un place = { .sun_family = AF_UNIX, .sun_path = "\0weft-world" };

static int open_place(void)
{
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        if (fd < 0)
                perror("world: socket");
        return fd;
}

bool variant_ask(enum variant v)
{
        _cleanup_close_ int fd = open_place();
        uint8_t wanted = v, good = 0;

        return fd >= 0 && connect(fd, (const struct sockaddr *) &place, sizeof(place)) == 0 &&
               send(fd, &wanted, 1, MSG_NOSIGNAL) == 1 && recv(fd, &good, 1, 0) == 1 && good;
}

static void answer_one(int listener)
{
        _cleanup_close_ int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        uint8_t wanted, good;

        if (fd < 0 || recv(fd, &wanted, 1, 0) != 1)
                return;
        good = wanted < VARIANTS && variant_load(wanted);
        (void) send(fd, &good, 1, MSG_NOSIGNAL);
}

static void answer_until(int ended, int listener)
{
        struct pollfd fds[] = { { .fd = listener, .events = POLLIN },
                                { .fd = ended, .events = POLLIN } };

        for (;;) {
                if (poll(fds, ELEMENTS(fds), -1) < 0 && errno != EINTR)
                        return;
                if (fds[0].revents)
                        answer_one(listener);
                else if (fds[1].revents)
                        return;
        }
}

int world_serve(int (*run)(void *data), void *data)
{
        _cleanup_close_ int listener = open_place(), ended = -1;
        int status;
        pid_t pid;

        if (listener < 0 || bind(listener, (const struct sockaddr *) &place, sizeof(place)) < 0 ||
            listen(listener, 8) < 0 || (pid = fork()) < 0) {
                perror("world: cannot serve");
                return EXIT_FAILURE;
        }
        if (pid == 0)
                exit(run(data));
        ended = (int) syscall(SYS_pidfd_open, pid, 0);
        if (ended < 0)
                perror("world: pidfd_open");
        else
                answer_until(ended, listener);
        if (waitpid(pid, &status, 0) < 0)
                return EXIT_FAILURE;
        return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}
