// SPDX-License-Identifier: GPL-2.0

//! The pools there are.
//!
//! Tables find their pool here: those of a pool device by the device that the metadata is on, those of
//! thin devices by the pool device. The last table that goes takes the pool with it.
//!
//! Two kinds of locks are involved. [`POOLS`] is held for moments. Each pool's own one is held while
//! its metadata are opened and closed, which may take long, so that nobody opens metadata that are
//! open already; other pools do not wait for it. Whoever needs both takes the pool's own one first.

use crate::{
    block_device::DeviceNumber,
    core::{
        errno::Result,
        table::TableError, //
    },
    dm::mapped_device::MappedDeviceId,
    pool_object::Pool,
    POOLS, //
};
use core::ops::Deref;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The list of all pools. Memory is taken only while there are some.
pub(crate) struct Pools(KVec<Listed>);

/// A pool on the list.
struct Listed {
    entry: Arc<Entry>,
    /// How many [`PoolHandle`]s there are.
    users: usize,
}

/// A pool that is being made, is there, or goes.
#[pin_data]
struct Entry {
    key: PoolKey,
    /// `None` before it was made, and when it is gone.
    #[pin]
    pool: Mutex<Option<Arc<Pool>>>,
}

/// What a pool is found by.
#[derive(Clone, Copy)]
pub(crate) struct PoolKey {
    /// The pool device.
    pub(crate) pool_device: MappedDeviceId,
    /// The device that the metadata is on.
    pub(crate) metadata_device: DeviceNumber,
    /// The device that the data is on.
    pub(crate) data_device: DeviceNumber,
}

impl Pools {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self(KVec::new())
    }

    /// One more user of the pool that `key` names, if it is on the list.
    fn find(&mut self, key: &PoolKey) -> core::result::Result<Option<Arc<Entry>>, TableError> {
        let mut other_pool = false;

        for listed in self.0.iter_mut() {
            let known = &listed.entry.key;

            if known.metadata_device == key.metadata_device {
                if known.pool_device != key.pool_device {
                    return Err(TableError::METADATA_DEVICE_IN_USE);
                }
                if known.data_device != key.data_device {
                    return Err(TableError::DATA_DEVICE_IN_USE);
                }
                return Ok(Some(listed.add_user()));
            }
            other_pool |= known.pool_device == key.pool_device;
        }
        if other_pool {
            return Err(TableError::DIFFERENT_POOL);
        }
        Ok(None)
    }

    fn add(&mut self, key: PoolKey) -> Result<Arc<Entry>> {
        let entry = Arc::pin_init(
            pin_init!(Entry {
                key,
                pool <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;
        self.0.push(
            Listed {
                entry: entry.clone(),
                users: 1,
            },
            GFP_KERNEL,
        )?;
        Ok(entry)
    }

    fn position(&self, entry: &Arc<Entry>) -> Option<usize> {
        self.0
            .iter()
            .position(|listed| Arc::ptr_eq(&listed.entry, entry))
    }

    /// Returns whether nobody uses the pool any more.
    fn remove_user(&mut self, entry: &Arc<Entry>) -> bool {
        let index = self.position(entry);
        let Some(listed) = index.and_then(|index| self.0.get_mut(index)) else {
            return true;
        };
        listed.users = listed.users.saturating_sub(1);
        listed.users == 0
    }

    /// Takes a pool from the list, unless somebody uses it again.
    fn remove_unused(&mut self, entry: &Arc<Entry>) {
        if let Some(index) = self.position(entry) {
            if matches!(self.0.get(index), Some(listed) if listed.users == 0) {
                // It is there.
                let _ = self.0.remove(index);
            }
        }
        self.give_memory_back();
    }

    /// Statics are not dropped when the module goes, so an empty list must not have memory.
    fn give_memory_back(&mut self) {
        if self.0.is_empty() {
            self.0 = KVec::new();
        }
    }
}

impl Listed {
    fn add_user(&mut self) -> Arc<Entry> {
        self.users = self.users.saturating_add(1);
        self.entry.clone()
    }
}

/// Finds the pool of a table of a pool device, or else makes it with `make`. Returns whether it was
/// made. Sleeps.
pub(crate) fn find_or_make(
    key: PoolKey,
    make: impl FnOnce() -> core::result::Result<Arc<Pool>, TableError>,
) -> core::result::Result<(PoolHandle, bool), TableError> {
    let entry = {
        let mut pools = POOLS.lock();
        match pools.find(&key)? {
            Some(entry) => entry,
            None => pools.add(key).map_err(|errno| {
                pools.give_memory_back();
                TableError::CREATE_POOL.with_errno(errno)
            })?,
        }
    };
    // From here on, dropping it takes the entry from the list if need be.
    let user = User(entry);

    let (pool, made) = {
        let mut there = user.0.pool.lock();
        match &*there {
            Some(pool) => (pool.clone(), false),
            None => {
                let pool = make()?;
                *there = Some(pool.clone());
                (pool, true)
            }
        }
    };
    Ok((PoolHandle { pool, _user: user }, made))
}

/// Finds the pool of a pool device. Sleeps.
pub(crate) fn find(pool_device: MappedDeviceId) -> Option<PoolHandle> {
    let entry = POOLS
        .lock()
        .0
        .iter_mut()
        .find(|listed| listed.entry.key.pool_device == pool_device)
        .map(Listed::add_user)?;
    let user = User(entry);
    let pool = user.0.pool.lock().clone()?;

    Some(PoolHandle { pool, _user: user })
}

/// A table's part in a pool. Dropping the last one closes the pool, and sleeps.
pub(crate) struct PoolHandle {
    // Dropped first, so that the last user has the last reference.
    pool: Arc<Pool>,
    _user: User,
}

impl Deref for PoolHandle {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}

/// Keeps an entry on the list.
struct User(Arc<Entry>);

impl Drop for User {
    fn drop(&mut self) {
        let mut pool = self.0.pool.lock();

        if POOLS.lock().remove_user(&self.0) {
            if let Some(unused) = pool.take() {
                unused.close();
            }
            drop(pool);
            POOLS.lock().remove_unused(&self.0);
        }
    }
}
