// SPDX-License-Identifier: GPL-2.0

#include <linux/dm-kcopyd.h>
#include <linux/moduleparam.h>

static bool coexist;
module_param(coexist, bool, 0444);
MODULE_PARM_DESC(coexist,
		 "Register thin-pool-rs and thin-rs, so that dm-thin-pool can be loaded as well");

static unsigned int zones;
module_param(zones, uint, 0444);
MODULE_PARM_DESC(zones,
		 "Queues per pool for bios that cannot be remapped at once (0: one per CPU)");

static unsigned int no_space_timeout = 60;
module_param(no_space_timeout, uint, 0644);
MODULE_PARM_DESC(no_space_timeout,
		 "Seconds that bios wait for data space before they fail (0: for ever)");

DECLARE_DM_KCOPYD_THROTTLE_WITH_MODULE_PARM(snapshot_copy_throttle,
		"A percentage of time allocated for copy on write");

bool dm_thin_rs_coexist(void)
{
	return coexist;
}

unsigned int dm_thin_rs_zones(void)
{
	return zones;
}

unsigned int dm_thin_rs_no_space_timeout(void)
{
	return READ_ONCE(no_space_timeout);
}

struct dm_kcopyd_throttle *dm_thin_rs_kcopyd_throttle(void)
{
	return &dm_kcopyd_throttle;
}
