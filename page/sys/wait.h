/* wait.h: WASI has no <sys/wait.h>; what is used of it stands in wasi.h. */
