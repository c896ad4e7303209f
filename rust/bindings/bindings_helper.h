/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads. The kernel's own bindings have most types already; what they lack is named in
 * bindgen_parameters.
 */

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/dm-io.h>
#include <linux/dm-kcopyd.h>

#include "persistent-data/dm-bitset.h"
#include "persistent-data/dm-block-manager.h"
#include "persistent-data/dm-btree.h"
#include "persistent-data/dm-space-map.h"
#include "persistent-data/dm-space-map-disk.h"
#include "persistent-data/dm-space-map-metadata.h"
#include "persistent-data/dm-transaction-manager.h"
