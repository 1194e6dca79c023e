/* Loaded into a node in front of its libraries: while a file of this name is there, every sync fails as that of a broken disk does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *sign;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SOAK_SYNC_FAILS");
    sign = name ? strdup(name) : NULL;
    /* What the node starts has no disk of ours. */
    unsetenv("LD_PRELOAD");
}

static int attempt(const char *name, int fd) {
    if (sign && access(sign, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return attempt("fsync", fd); }
int fdatasync(int fd) { return attempt("fdatasync", fd); }
