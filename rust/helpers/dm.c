// SPDX-License-Identifier: GPL-2.0

#include <linux/device-mapper.h>

#include "dm.h"

void dm_thin_rs_target_set_flush_supported(struct dm_target *target, bool value)
{
	target->flush_supported = value;
}

void dm_thin_rs_target_set_discards_supported(struct dm_target *target, bool value)
{
	target->discards_supported = value;
}

void dm_thin_rs_target_set_max_discard_granularity(struct dm_target *target, bool value)
{
	target->max_discard_granularity = value;
}

void dm_thin_rs_target_set_limit_swap_bios(struct dm_target *target, bool value)
{
	target->limit_swap_bios = value;
}

void dm_thin_rs_target_set_accounts_remapped_io(struct dm_target *target, bool value)
{
	target->accounts_remapped_io = value;
}

void dm_thin_rs_internal_suspend_noflush(struct mapped_device *md)
{
	dm_internal_suspend_noflush(md);
}

void dm_thin_rs_internal_resume(struct mapped_device *md)
{
	dm_internal_resume(md);
}
