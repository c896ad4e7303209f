// SPDX-License-Identifier: GPL-2.0

//! Huffman codes and the constants of the deflate format (RFC 1951).

/// The symbol that ends a block.
pub const END_OF_BLOCK: usize = 256;

/// The first match length of each length symbol, from symbol 257 on.
pub const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];

/// How many extra bits follow each length symbol.
pub const LENGTH_EXTRA: [u8; 29] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];

/// The first distance of each distance symbol.
pub const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
    2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
];

/// How many extra bits follow each distance symbol.
pub const DISTANCE_EXTRA: [u8; 30] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13,
];

/// The order in which the code lengths of the code for code lengths are stored.
pub const LENGTH_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// A symbol's code, ready to be written: its first bit is the lowest.
#[derive(Clone, Copy, Default)]
pub struct Code {
    /// The bits.
    pub bits: u16,
    /// How many there are.
    pub length: u8,
}

/// Code lengths of at most `limit` bits for symbols that occur `counts` times; 0 for those that do not,
/// unless fewer than two do.
pub fn lengths(counts: &[u32], limit: usize) -> Vec<u8> {
    let mut lengths = vec![0; counts.len()];
    let mut order: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
    order.sort_by_key(|&at| (counts[at], at));
    let leaves = order.len();
    if leaves <= 2 {
        // Two codes even where one or none is needed: readers want codes without a gap.
        let unused = (0..counts.len()).filter(|&at| counts[at] == 0);
        for symbol in order.into_iter().chain(unused).take(2) {
            lengths[symbol] = 1;
        }
        return lengths;
    }

    // Leaves in order of weight come first, then the nodes in the order they are made, which is
    // also by weight: the two lightest without a parent are at the front of one or the other.
    let nodes = 2 * leaves - 1;
    let mut weight: Vec<u64> = order.iter().map(|&at| u64::from(counts[at])).collect();
    let mut parent = vec![0; nodes];
    let (mut leaf, mut node) = (0, leaves);
    for made in leaves..nodes {
        let mut sum = 0;
        for _ in 0..2 {
            let lighter_leaf = leaf < leaves && (node >= made || weight[leaf] <= weight[node]);
            let taken = if lighter_leaf { &mut leaf } else { &mut node };
            parent[*taken] = made;
            sum += weight[*taken];
            *taken += 1;
        }
        weight.push(sum);
    }
    let mut depth = vec![0usize; nodes];
    let mut of_depth = vec![0usize; limit + 1];
    for at in (0..nodes - 1).rev() {
        depth[at] = depth[parent[at]] + 1;
        if at < leaves {
            of_depth[depth[at].min(limit)] += 1;
        }
    }

    // Codes cut to the limit take more than there is: lengthen shorter ones until all fit.
    let mut taken: usize = (1..=limit)
        .map(|length| of_depth[length] << (limit - length))
        .sum();
    while taken > 1 << limit {
        let Some(shorter) = (1..limit).rev().find(|&length| of_depth[length] > 0) else {
            break;
        };
        of_depth[limit] -= 1;
        of_depth[shorter] -= 1;
        of_depth[shorter + 1] += 2;
        taken -= 1;
    }
    let mut rare_first = order.iter();
    for length in (1..=limit).rev() {
        for &symbol in rare_first.by_ref().take(of_depth[length]) {
            lengths[symbol] = length as u8;
        }
    }
    lengths
}

/// The canonical code with these lengths.
pub fn codes(lengths: &[u8]) -> Vec<Code> {
    let mut of_length = [0u16; 16];
    for &length in lengths {
        of_length[usize::from(length)] += 1;
    }
    of_length[0] = 0;
    let mut next = [0u16; 16];
    for length in 1..16 {
        next[length] = (next[length - 1] + of_length[length - 1]) << 1;
    }
    lengths
        .iter()
        .map(|&length| {
            if length == 0 {
                return Code::default();
            }
            let code = &mut next[usize::from(length)];
            let bits = code.reverse_bits() >> (16 - u32::from(length));
            *code = code.wrapping_add(1);
            Code { bits, length }
        })
        .collect()
}
