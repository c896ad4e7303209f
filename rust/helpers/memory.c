// SPDX-License-Identifier: GPL-2.0

#include <linux/bio.h>
#include <linux/mempool.h>
#include <linux/sched/mm.h>

unsigned int dm_thin_rs_noio_save(void)
{
	return memalloc_noio_save();
}

void dm_thin_rs_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

int dm_thin_rs_mempool_init(mempool_t *pool, int reserve, size_t size)
{
	return mempool_init_kmalloc_pool(pool, reserve, size);
}

void *dm_thin_rs_mempool_try_alloc(mempool_t *pool)
{
	return mempool_alloc(pool, GFP_NOWAIT);
}

int dm_thin_rs_bioset_init(struct bio_set *set, unsigned int reserve)
{
	return bioset_init(set, reserve, 0, 0);
}

struct bio *dm_thin_rs_bio_alloc(struct bio_set *set, struct block_device *bdev, blk_opf_t opf)
{
	return bio_alloc_bioset(bdev, 0, opf, GFP_NOIO, set);
}
