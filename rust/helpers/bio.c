// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>
#include <linux/bvec.h>

void dm_thin_rs_bio_set_dev(struct bio *bio, struct block_device *bdev)
{
	bio_set_dev(bio, bdev);
}

/* The bio is longer than length. */
void dm_thin_rs_bio_shorten_and_zero(struct bio *bio, sector_t length)
{
	struct bvec_iter iter, rest = bio->bi_iter;
	struct bio_vec bv;

	bio_advance_iter(bio, &rest, length << SECTOR_SHIFT);
	__bio_for_each_segment(bv, bio, iter, rest)
		memzero_bvec(&bv);
	bio->bi_iter.bi_size = length << SECTOR_SHIFT;
}
