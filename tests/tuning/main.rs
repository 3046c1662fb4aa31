//! `tuning/forebay-tune`: what it recommends, that it sets that and nothing else, and that
//! it puts everything back.
//!
//! | file | where |
//! |---|---|
//! | `table` | on a machine in a directory: what is recommended for which machine |
//! | `changes` | the same: apply and revert, byte for byte, interrupted or not |
//! | `refusals` | the same: what is wrong on the command line and in the configuration |
//! | `namespaces` | on this kernel, in network namespaces of the test's own |
//!
//! Everything runs with the machine's shell and with BusyBox.

mod changes;
mod machine;
mod namespaces;
mod refusals;
mod table;
mod tool;
