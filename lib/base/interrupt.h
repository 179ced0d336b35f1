/* interrupt.h: signals that end a run. The first one is noted, and the run ends as soon as it can
 * be saved; a second one ends the program at once.
 *
 *   interrupts_catch()   from now on: SIGINT, SIGTERM, SIGHUP (the terminal is gone) and SIGPIPE
 *                        (nobody reads stderr any more)
 *   interrupted()        has there been one? Long loops ask, and leave their work undone */
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

static const int INTERRUPTS[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
enum { N_INTERRUPTS = sizeof INTERRUPTS / sizeof *INTERRUPTS };

static volatile sig_atomic_t interrupt_seen;

/* Restores the default handlers; a broken pipe is ignored, since what is left to say may meet it
 * again. */
static void interrupt(int number)
{
    struct sigaction now;
    (void)number;
    interrupt_seen = 1;
    for (int i = 0; i < N_INTERRUPTS; i++)
        if (!sigaction(INTERRUPTS[i], NULL, &now) && now.sa_handler == interrupt) {
            now.sa_handler = INTERRUPTS[i] == SIGPIPE ? SIG_IGN : SIG_DFL;
            sigaction(INTERRUPTS[i], &now, NULL);
        }
}

/* Signals that are ignored (nohup, a job in the background) stay so. */
static inline void interrupts_catch(void)
{
    struct sigaction ours = {.sa_handler = interrupt, .sa_flags = SA_RESTART}, now;
    for (int i = 0; i < N_INTERRUPTS; i++)
        if (!sigaction(INTERRUPTS[i], NULL, &now) && now.sa_handler == SIG_DFL)
            sigaction(INTERRUPTS[i], &ours, NULL);
}

static inline bool interrupted(void) { return interrupt_seen; }

#endif
