/* Preloaded into a test server: a wall clock that is wrong by as much as a file
 * says, and host names that are what another file says. Nothing else changes:
 * what is not listed is asked of the system, and time that only passes
 * (CLOCK_MONOTONIC) passes as ever. Both files may change at any time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Seconds; shared with the process that writes the file, and through fork. */
static const volatile long long *clock_error;

__attribute__((constructor)) static void map_clock(void)
{
    const char *file = getenv("DISTORTED_CLOCK");
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    void *page;

    if (fd < 0)
        return;
    page = mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        clock_error = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int) syscall(SYS_clock_gettime, clock, now);

    if (result == 0 && clock_error && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *clock_error;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;

    (void) zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place)
{
    struct timespec precise;

    clock_gettime(CLOCK_REALTIME, &precise);
    if (place)
        *place = precise.tv_sec;
    return precise.tv_sec;
}

/* What the file says of a name ("<name> <address, unknown or hangs>" a line);
 * nonzero if it says anything. */
static int listed(const char *name, char *answer)
{
    const char *path = getenv("DISTORTED_NAMES");
    FILE *file = path && name ? fopen(path, "re") : NULL;
    char candidate[256];
    int found = 0;

    if (!file)
        return 0;
    while (!found && fscanf(file, "%255s %63s", candidate, answer) == 2)
        found = strcmp(candidate, name) == 0;
    fclose(file);
    return found;
}

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict found)
{
    look_up *ask_system = (look_up *) dlsym(RTLD_NEXT, "getaddrinfo");
    char answer[64];

    while (listed(name, answer))
    {
        if (strcmp(answer, "unknown") == 0)
            return EAI_NONAME;
        if (strcmp(answer, "hangs") != 0)
            return ask_system(answer, service, hints, found);
        usleep(20000);
    }
    return ask_system(name, service, hints, found);
}
