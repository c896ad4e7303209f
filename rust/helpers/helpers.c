// SPDX-License-Identifier: GPL-2.0

/*
 * The files next to this one as one object, as in the kernel's rust/helpers. Sorted alphabetically.
 */

#include "helpers.h"

#include "bio.c"
#include "block_device.c"
#include "dm.c"
#include "layout.c"
#include "memory.c"
#include "panic.c"
#include "params.c"
#include "spinlock.c"
#include "workqueue.c"
