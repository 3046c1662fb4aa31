//! Optional means of the kernel: the words for those that were asked for and cannot be
//! had. Each is warned of once; forebay does without.

#![forbid(unsafe_code)]

use crate::driver::memory::Pages;
use crate::switch::Switch;

/// `engine.huge_pages`: `obtained` is what the buffers of each engine lie on.
pub(super) fn warn_of_pages(wanted: Switch, obtained: &[Pages]) {
    let without = obtained.iter().filter(|pages| **pages < Pages::Reserved).count();
    if wanted == Switch::On && without > 0 {
        tracing::warn!(
            engines = obtained.len(),
            without,
            "too few reserved huge pages for the buffers: the kernel is asked for transparent \
             ones instead; raise vm.nr_hugepages"
        );
    }
}
