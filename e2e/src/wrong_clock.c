/* Preloaded into a process whose wall clock is to be wrong: CLOCK_REALTIME is so many seconds ahead of the machine's. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *time) {
    long result = syscall(SYS_clock_gettime, id, time);
    const char *ahead = getenv("TASKGATE_E2E_CLOCK_AHEAD");
    if (result == 0 && id == CLOCK_REALTIME && ahead)
        time->tv_sec += atol(ahead);
    return (int)result;
}
