// SPDX-License-Identifier: GPL-2.0

//! Thin metadata for tests and measurements: made in any size and shape, and damaged in every way.
//!
//! Everything follows from a seed: the same call makes the same metadata.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod damage;
pub mod generate;
pub mod random;
