// SPDX-License-Identifier: GPL-2.0

#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/fs.h>

sector_t dm_thin_rs_bdev_nr_sectors(struct block_device *bdev)
{
	return bdev_nr_sectors(bdev);
}

unsigned int dm_thin_rs_bdev_max_discard_sectors(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

void dm_thin_rs_get_file(struct file *file)
{
	get_file(file);
}

void dm_thin_rs_put_file(struct file *file)
{
	__fput_sync(file);
}
