// SPDX-License-Identifier: GPL-2.0

#include <linux/workqueue.h>

struct workqueue_struct *dm_thin_rs_alloc_ordered_queue(const char *name)
{
	return alloc_ordered_workqueue("%s", WQ_MEM_RECLAIM, name);
}

bool dm_thin_rs_queue_work(struct workqueue_struct *queue, struct work_struct *work)
{
	return queue_work(queue, work);
}

bool dm_thin_rs_queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work,
				   unsigned long delay)
{
	return queue_delayed_work(queue, work, delay);
}

/* One function for each kind of work, since lockdep tells them apart by the place of the macro. */

void dm_thin_rs_init_task_work(struct work_struct *work, work_func_t function)
{
	INIT_WORK(work, function);
}

void dm_thin_rs_init_owner_work(struct work_struct *work, work_func_t function)
{
	INIT_WORK(work, function);
}

void dm_thin_rs_init_ticker_work(struct delayed_work *work, work_func_t function)
{
	INIT_DELAYED_WORK(work, function);
}
