// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>

void dm_thin_rs_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}
