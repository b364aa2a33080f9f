/* Refuses packet filters, as a kernel does that has too little memory for them, while there is a file $FILTERS_REFUSED. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int setsockopt(int socket, int level, int option, const void *value, socklen_t size)
{
    if (level == SOL_SOCKET && option == SO_ATTACH_FILTER && access(getenv("FILTERS_REFUSED"), F_OK) == 0) {
        errno = ENOMEM;
        return -1;
    }
    return syscall(SYS_setsockopt, socket, level, option, value, size);
}
