// SPDX-License-Identifier: GPL-2.0

#include <linux/device-mapper.h>
#include <linux/dm-io.h>
#include <linux/dm-kcopyd.h>

#define AT(type, field) offsetof(struct type, field)

/* In the order of rust/bindings/mod.rs. */
static const size_t layout[] = {
	sizeof(struct dm_target),
	AT(dm_target, table), AT(dm_target, type), AT(dm_target, begin), AT(dm_target, len),
	AT(dm_target, max_io_len), AT(dm_target, num_flush_bios), AT(dm_target, num_discard_bios),
	AT(dm_target, num_write_zeroes_bios), AT(dm_target, per_io_data_size),
	AT(dm_target, private), AT(dm_target, error),
	sizeof(struct target_type),
	AT(target_type, features), AT(target_type, name), AT(target_type, module),
	AT(target_type, version), AT(target_type, ctr), AT(target_type, dtr),
	AT(target_type, map), AT(target_type, end_io), AT(target_type, presuspend),
	AT(target_type, presuspend_undo), AT(target_type, postsuspend),
	AT(target_type, preresume), AT(target_type, resume), AT(target_type, status),
	AT(target_type, message), AT(target_type, iterate_devices), AT(target_type, io_hints),
	sizeof(struct dm_dev),
	AT(dm_dev, bdev), AT(dm_dev, bdev_file),
	sizeof(struct dm_io_region),
	AT(dm_io_region, bdev), AT(dm_io_region, sector), AT(dm_io_region, count),
	sizeof(struct dm_kcopyd_throttle),
	sizeof(struct bio),
	AT(bio, bi_opf), AT(bio, bi_status), AT(bio, bi_iter), AT(bio, bi_end_io),
	AT(bio, bi_private),
	sizeof(struct bio_set),
	sizeof(mempool_t),
	sizeof(struct queue_limits),
	AT(queue_limits, max_sectors), AT(queue_limits, io_min), AT(queue_limits, io_opt),
	AT(queue_limits, discard_granularity), AT(queue_limits, max_hw_discard_sectors),
	sizeof(struct work_struct),
	sizeof(struct delayed_work),
	sizeof(spinlock_t),
};

const size_t *dm_thin_rs_layout(size_t *count)
{
	*count = ARRAY_SIZE(layout);
	return layout;
}
