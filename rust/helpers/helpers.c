// SPDX-License-Identifier: GPL-2.0
/*
 * C functions for Rust to call where C has only macros and inline functions. They are named
 * dmtrs_helper_*, and linked into the module only.
 */
