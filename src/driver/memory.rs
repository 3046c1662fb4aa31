//! Memory for what the kernel reads and writes: mapped once, and there from then on.
//!
//! * **Taken at start**: a mapping is touched when it is made, so that it costs no page
//!   fault later and the kernel says at the start if there is too little.
//! * **Next to its thread**: pages come from the node of the thread that touches them
//!   first (the kernel's default policy, numa(7)). Whoever makes a mapping touches it, so
//!   an engine that is pinned before has all of it on its own node.
//! * **On large pages**, if wanted: fewer misses of the processor's address cache (TLB).

use std::io;
use std::ptr::NonNull;

use crate::switch::Switch;

/// A huge page of x86-64 and, with 4 KiB pages, of arm64.
pub const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// What pages a mapping got, from the least wanted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pages {
    /// Ordinary ones.
    Ordinary,
    /// Ordinary ones that the kernel was asked to make huge where it can
    /// (`MADV_HUGEPAGE`, madvise(2)).
    Transparent,
    /// Huge ones, reserved by the administrator (`MAP_HUGETLB`, mmap(2)).
    Reserved,
}

impl Pages {
    /// For the log.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Transparent => "transparent huge",
            Self::Reserved => "reserved huge",
        }
    }
}

/// An anonymous private mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    /// What was mapped: more than what is used, where the start had to be aligned.
    whole: NonNull<u8>,
    whole_bytes: usize,
    start: NonNull<u8>,
    pages: Pages,
}

impl Mapping {
    /// Maps `length_bytes` of zeroed memory on ordinary pages.
    pub(super) fn new(length_bytes: usize) -> io::Result<Self> {
        Self::with_pages(length_bytes, Switch::Off)
    }

    /// Maps `length_bytes` of zeroed memory. `On` tries pages that the administrator has
    /// reserved first; `Auto`, and `On` without them, asks the kernel for transparent
    /// ones. Less than one huge page is on ordinary ones.
    pub(super) fn with_pages(length_bytes: usize, huge: Switch) -> io::Result<Self> {
        if length_bytes == 0 {
            let (nothing, pages) = (NonNull::dangling(), Pages::Ordinary);
            return Ok(Self { whole: nothing, whole_bytes: 0, start: nothing, pages });
        }
        if huge == Switch::Off || length_bytes < HUGE_PAGE_BYTES {
            return Self::ordinary(length_bytes);
        }
        if huge == Switch::On
            && let Ok(mapping) = Self::reserved(length_bytes)
        {
            return Ok(mapping);
        }
        Self::transparent(length_bytes)
    }

    fn ordinary(length_bytes: usize) -> io::Result<Self> {
        let start = map(length_bytes, 0)?;
        let pages = Pages::Ordinary;
        Self { whole: start, whole_bytes: length_bytes, start, pages }.touched(length_bytes)
    }

    fn reserved(length_bytes: usize) -> io::Result<Self> {
        let whole_bytes = length_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let start = map(whole_bytes, libc::MAP_HUGETLB)?;
        let pages = Pages::Reserved;
        Self { whole: start, whole_bytes, start, pages }.touched(whole_bytes)
    }

    /// Begins on a huge page, since the kernel makes only whole aligned ones.
    fn transparent(length_bytes: usize) -> io::Result<Self> {
        let used_bytes = length_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let whole_bytes = used_bytes + HUGE_PAGE_BYTES;
        let whole = map(whole_bytes, 0)?;
        let offset = whole.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the mapping is longer than what is used of it by one huge page, and the
        // offset to the next boundary is less than that.
        let start = unsafe { whole.add(offset) };
        // SAFETY: the range is inside the mapping just made, and this advice changes no
        // byte of it.
        let advised =
            unsafe { libc::madvise(start.as_ptr().cast(), used_bytes, libc::MADV_HUGEPAGE) };
        let pages = if advised == 0 { Pages::Transparent } else { Pages::Ordinary };
        Self { whole, whole_bytes, start, pages }.touched(length_bytes)
    }

    /// The same with its first `length_bytes` really there. Not by `MAP_POPULATE`, which
    /// does nothing once memory is locked as it is touched (`MCL_ONFAULT`).
    fn touched(self, length_bytes: usize) -> io::Result<Self> {
        // SAFETY: the range is inside the mapping; the advice (Linux 5.14) only brings its
        // pages in.
        let populated = unsafe {
            libc::madvise(self.start.as_ptr().cast(), length_bytes, libc::MADV_POPULATE_WRITE)
        };
        if populated == 0 { Ok(self) } else { Err(io::Error::last_os_error()) }
    }

    /// Where the mapping begins; page-aligned.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// What pages it got.
    pub(super) fn pages(&self) -> Pages {
        self.pages
    }

    /// Gives the mapping up without unmapping it: the kernel may still write into it.
    pub(super) fn leak(&mut self) {
        self.whole_bytes = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.whole_bytes > 0 {
            // SAFETY: start and length are those of a mapping made above, and nothing
            // borrows from a `Mapping` beyond its life.
            unsafe { libc::munmap(self.whole.as_ptr().cast(), self.whole_bytes) };
        }
    }
}

fn map(length_bytes: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    map_protected(length_bytes, libc::PROT_READ | libc::PROT_WRITE, flags)
}

fn map_protected(
    length_bytes: usize,
    protection: libc::c_int,
    flags: libc::c_int,
) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
    // memory that exists; the result is checked before use.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length_bytes,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))
}

/// Keeps all memory of the process, there is and to come, from being swapped out
/// (mlockall(2)). A page is locked when it is touched: what is only mapped, as allocators
/// and thread stacks do in plenty, stays free.
///
/// `limit_bytes` is RLIMIT_MEMLOCK, `None` for unlimited. It counts what is mapped, so
/// that with a limit in force some later allocation would fail; nothing is locked then.
/// Whether it is in force the kernel is asked: a process with CAP_IPC_LOCK has none.
///
/// # Errors
/// The kernel's; `EAGAIN` if the limit is in force.
pub fn lock_all(limit_bytes: Option<u64>) -> io::Result<()> {
    // SAFETY: takes no pointers and changes no byte of any page.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(limit_bytes) = limit_bytes else { return Ok(()) };
    let beyond_the_limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX).max(1);
    match map_protected(beyond_the_limit, libc::PROT_NONE, libc::MAP_NORESERVE) {
        Ok(start) => {
            // SAFETY: the mapping was just made and nobody else knows it.
            unsafe { libc::munmap(start.as_ptr().cast(), beyond_the_limit) };
            Ok(())
        }
        Err(error) => {
            // SAFETY: as above.
            unsafe { libc::munlockall() };
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two huge pages and a little.
    const LENGTH_BYTES: usize = 2 * HUGE_PAGE_BYTES + 5;

    #[test]
    fn a_mapping_is_usable_to_its_end_whatever_pages_were_asked_for() {
        for huge in [Switch::Off, Switch::Auto, Switch::On] {
            let mapping = Mapping::with_pages(LENGTH_BYTES, huge).expect("memory");
            for offset in [0, LENGTH_BYTES / 2, LENGTH_BYTES - 1] {
                // SAFETY: the offset is inside the mapping, which nobody else knows.
                unsafe {
                    assert_eq!(mapping.start().add(offset).read(), 0);
                    mapping.start().add(offset).write(7);
                    assert_eq!(mapping.start().add(offset).read(), 7);
                }
            }
        }
    }

    #[test]
    fn a_mapping_for_huge_pages_begins_on_one() {
        for huge in [Switch::Auto, Switch::On] {
            let mapping = Mapping::with_pages(LENGTH_BYTES, huge).expect("memory");
            assert_eq!(mapping.start() as usize % HUGE_PAGE_BYTES, 0);
        }
    }

    #[test]
    fn huge_pages_are_not_asked_for_unless_wanted_and_worth_it() {
        let off = Mapping::with_pages(LENGTH_BYTES, Switch::Off).expect("memory");
        let small = Mapping::with_pages(HUGE_PAGE_BYTES - 1, Switch::On).expect("memory");
        assert_eq!([off.pages(), small.pages()], [Pages::Ordinary; 2]);
    }

    #[test]
    fn every_page_is_there_on_the_node_of_the_thread_that_made_the_mapping() {
        let cpus = core_affinity::get_core_ids().expect("CPUs");
        let on_each_cpu = cpus.into_iter().map(|cpu| {
            std::thread::spawn(move || {
                assert!(core_affinity::set_for_current(cpu));
                all_pages_are_on(this_node());
            })
        });
        on_each_cpu.for_each(|thread| thread.join().expect("no panic"));
    }

    fn all_pages_are_on(node: i32) {
        for huge in [Switch::Off, Switch::Auto, Switch::On] {
            let mapping = Mapping::with_pages(LENGTH_BYTES, huge).expect("memory");
            for offset in (0..LENGTH_BYTES).step_by(4096) {
                // SAFETY: the offset is inside the mapping.
                let page = unsafe { mapping.start().add(offset) };
                assert_eq!(node_of(page), Ok(node), "{huge:?}, byte {offset}");
            }
        }
    }

    /// The memory node of the CPU that runs this thread.
    fn this_node() -> i32 {
        let mut node = 0_u32;
        // SAFETY: getcpu(2) writes one u32 to each place that is not null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_getcpu,
                std::ptr::null_mut::<u32>(),
                &raw mut node,
                std::ptr::null_mut::<u8>(),
            )
        };
        assert_eq!(result, 0);
        i32::try_from(node).expect("a small number")
    }

    /// The node that a page of this process is on; an error number if it is not there.
    fn node_of(page: *mut u8) -> Result<i32, i32> {
        let mut status = i32::MIN;
        // SAFETY: move_pages(2) without a list of nodes moves nothing and writes one
        // status for the one page asked about.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                1_usize,
                &raw const page,
                std::ptr::null::<i32>(),
                &raw mut status,
                0,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        if status < 0 { Err(-status) } else { Ok(status) }
    }
}
