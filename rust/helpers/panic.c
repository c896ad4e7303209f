// SPDX-License-Identifier: GPL-2.0

#include <linux/bug.h>
#include <linux/stringify.h>

#ifdef ASYNC_FN_RESUMED
/*
 * Where a future that has ended ends up when it is polled once more, which nobody does. The kernel exports this
 * function of the core library, but objtool's list of functions that do not return lacks it, and it takes what
 * follows the call for a way on. Here it can see for itself.
 */
void __noreturn dm_thin_rs_async_fn_resumed(const void *location) __asm__(__stringify(ASYNC_FN_RESUMED));

void __noreturn dm_thin_rs_async_fn_resumed(const void *location)
{
	BUG();
}
#endif
