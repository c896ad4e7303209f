// SPDX-License-Identifier: GPL-2.0

//! What the tests have in common that lock blocks in a prison.

use crate::core::{
    prison::{
        LockRange,
        Mode,
        Prison, //
    },
    units::{
        DataBlock,
        DataRange,
        DeviceId,
        VirtualBlock,
        VirtualRange, //
    },
};

/// A prison with one reserved cell of each kind. It lives as long as any task, that is, for ever.
pub(crate) fn new_prison() -> &'static Prison {
    Box::leak(Box::new(Prison::new(1).expect("there is memory")))
}

/// The blocks of a request. Space 0 are the data blocks, others those of thin devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) space: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Blocks {
    pub(crate) fn range(self) -> LockRange {
        let (first, end) = (self.first, self.last + 1);
        match self.space {
            0 if self.first == self.last => LockRange::data_block(DataBlock(first)),
            0 => LockRange::data_blocks(DataRange::new(DataBlock(first), DataBlock(end))).unwrap(),
            space => {
                let device = DeviceId::new(space).unwrap();
                if self.first == self.last {
                    LockRange::virtual_block(device, VirtualBlock(first))
                } else {
                    let blocks = VirtualRange::new(VirtualBlock(first), VirtualBlock(end));
                    LockRange::virtual_blocks(device, blocks).unwrap()
                }
            }
        }
    }

    fn overlaps(self, other: Self) -> bool {
        self.space == other.space
            && (self.first..=self.last).any(|block| (other.first..=other.last).contains(&block))
    }
}

/// Whether two locks cannot be held at the same time.
pub(crate) fn conflict(one: (Blocks, Mode), other: (Blocks, Mode)) -> bool {
    use Mode::{
        ExcludeAll,
        ExcludeWriters,
        Read,
        Write, //
    };
    let modes = matches!(
        (one.1, other.1),
        (ExcludeAll, _)
            | (_, ExcludeAll)
            | (ExcludeWriters, Write | ExcludeWriters)
            | (Write, ExcludeWriters)
    );
    let on_with_each_other = matches!((one.1, other.1), (Read | Write, Read | Write));
    assert!(!(modes && on_with_each_other));
    modes && one.0.overlaps(other.0)
}
