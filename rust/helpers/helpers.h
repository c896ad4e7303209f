/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust cannot call or reach itself: inline functions, macros and bit fields of C.
 *
 * Each function does what its name says and nothing else.
 */
#ifndef DM_THIN_RS_HELPERS_H
#define DM_THIN_RS_HELPERS_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/dm-kcopyd.h>
#include <linux/mempool.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

/* bio.c */
void dm_thin_rs_bio_set_dev(struct bio *bio, struct block_device *bdev);
void dm_thin_rs_bio_shorten_and_zero(struct bio *bio, sector_t length);

/* block_device.c */
sector_t dm_thin_rs_bdev_nr_sectors(struct block_device *bdev);
unsigned int dm_thin_rs_bdev_max_discard_sectors(struct block_device *bdev);
void dm_thin_rs_get_file(struct file *file);
void dm_thin_rs_put_file(struct file *file);

/* dm.c */
void dm_thin_rs_target_set_flush_supported(struct dm_target *target, bool value);
void dm_thin_rs_target_set_discards_supported(struct dm_target *target, bool value);
void dm_thin_rs_target_set_max_discard_granularity(struct dm_target *target, bool value);
void dm_thin_rs_target_set_limit_swap_bios(struct dm_target *target, bool value);
void dm_thin_rs_target_set_accounts_remapped_io(struct dm_target *target, bool value);
void dm_thin_rs_internal_suspend_noflush(struct mapped_device *md);
void dm_thin_rs_internal_resume(struct mapped_device *md);

/* layout.c: sizes and offsets as this compiler sees them */
const size_t *dm_thin_rs_layout(size_t *count);

/* memory.c */
unsigned int dm_thin_rs_noio_save(void);
void dm_thin_rs_noio_restore(unsigned int flags);
int dm_thin_rs_mempool_init(mempool_t *pool, int reserve, size_t size);
void *dm_thin_rs_mempool_try_alloc(mempool_t *pool);
int dm_thin_rs_bioset_init(struct bio_set *set, unsigned int reserve);
struct bio *dm_thin_rs_bio_alloc(struct bio_set *set, struct block_device *bdev, blk_opf_t opf);

/* params.c: the parameters of the module */
bool dm_thin_rs_coexist(void);
unsigned int dm_thin_rs_zones(void);
unsigned int dm_thin_rs_no_space_timeout(void);
struct dm_kcopyd_throttle *dm_thin_rs_kcopyd_throttle(void);

/* spinlock.c */
void dm_thin_rs_spin_lock_init(spinlock_t *lock, const char *name, struct lock_class_key *key);
unsigned long dm_thin_rs_spin_lock_irqsave(spinlock_t *lock);
bool dm_thin_rs_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void dm_thin_rs_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);
void dm_thin_rs_assert_spin_locked(spinlock_t *lock);

/* workqueue.c */
struct workqueue_struct *dm_thin_rs_alloc_ordered_queue(const char *name);
bool dm_thin_rs_queue_work(struct workqueue_struct *queue, struct work_struct *work);
bool dm_thin_rs_queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work,
				   unsigned long delay);
void dm_thin_rs_init_task_work(struct work_struct *work, work_func_t function);
void dm_thin_rs_init_owner_work(struct work_struct *work, work_func_t function);
void dm_thin_rs_init_ticker_work(struct delayed_work *work, work_func_t function);

#endif
