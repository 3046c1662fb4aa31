//! Building a ring: which flags and operations this kernel has, and clear words when it
//! lacks what forebay needs.

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use thiserror::Error;

/// The oldest kernel with everything the engine is built on: `DEFER_TASKRUN` is 6.1.
const KERNEL_MINIMUM: (u32, u32) = (6, 1);

/// The one kernel whose receives fail although provided buffers are there, mended in
/// 6.1.8 (liburing issue 778).
const KERNEL_BROKEN: &str = "6.1.7";

/// Why the kernel cannot run the engine, and what to change.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Too old.
    #[error(
        "kernel {found} is too old: forebay needs Linux 6.1 or later (io_uring with \
         DEFER_TASKRUN); boot a newer kernel"
    )]
    KernelTooOld {
        /// What uname(2) says.
        found: String,
    },
    /// Has a fault in what every receive uses.
    #[error(
        "kernel {found} has a fault in io_uring's provided buffers, which 6.1.8 mended: boot \
         another kernel"
    )]
    KernelBroken {
        /// What uname(2) says.
        found: String,
    },
    /// Refused by policy.
    #[error(
        "io_uring is disabled on this machine ({cause}): set `sysctl kernel.io_uring_disabled=0` \
         (now {sysctl}), and allow io_uring_setup, io_uring_enter and io_uring_register in the \
         seccomp profile if this is a container"
    )]
    Disabled {
        /// EPERM or ENOSYS in words.
        cause: io::Error,
        /// What /proc/sys/kernel/io_uring_disabled holds.
        sysctl: String,
    },
    /// A required operation is missing.
    #[error(
        "io_uring of this kernel ({kernel}) lacks the operation {operation}; boot Linux 6.1 or later"
    )]
    OperationMissing {
        /// The operation's name.
        operation: &'static str,
        /// What uname(2) says.
        kernel: String,
    },
    /// Memory or descriptors.
    #[error("{what}: {cause}; {remedy}")]
    Resources {
        /// What was being made.
        what: &'static str,
        /// The kernel's answer.
        cause: io::Error,
        /// What to change.
        remedy: &'static str,
    },
}

/// What this kernel offers, for the one log line at start.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The kernel's release, as uname(2) says.
    pub kernel: String,
    /// Setup flags in use.
    pub flags: Vec<&'static str>,
    /// Newer features that are present.
    pub present: Vec<&'static str>,
    /// Newer features that are missing; the engine does without.
    pub missing: Vec<&'static str>,
    /// Zero-copy receive, which the engine does not use: docs/zero-copy.md.
    pub receives_without_copy: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "kernel {} flags {} features {} missing {}",
            self.kernel,
            self.flags.join("|"),
            if self.present.is_empty() { "none".into() } else { self.present.join(",") },
            if self.missing.is_empty() { "none".into() } else { self.missing.join(",") },
        )
    }
}

/// Builds a ring with the most that this kernel has.
///
/// `entries` is the submission queue's length; the completion queue holds
/// `completions`, so that all operations in flight fit.
pub(super) fn build(entries: u32, completions: u32) -> Result<(IoUring, Capabilities), SetupError> {
    let kernel = kernel_release();
    if kernel_version(&kernel).is_some_and(|version| version < KERNEL_MINIMUM) {
        return Err(SetupError::KernelTooOld { found: kernel });
    }
    if is_broken(&kernel) {
        return Err(SetupError::KernelBroken { found: kernel });
    }
    let mut flags =
        vec!["SINGLE_ISSUER", "DEFER_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE", "CLAMP"];
    let with_no_sqarray = builder(completions).setup_no_sqarray().build(entries);
    let ring = match with_no_sqarray {
        Ok(ring) => {
            flags.push("NO_SQARRAY");
            Ok(ring)
        }
        // Before 6.6 the flag is unknown.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder(completions).build(entries)
        }
        Err(error) => Err(error),
    };
    let ring = ring.map_err(|cause| explain(cause, &kernel))?;
    let probe = check_operations(&ring, &kernel)?;
    let parameters = ring.params();
    let mut capabilities = Capabilities {
        kernel,
        flags,
        present: Vec::new(),
        missing: Vec::new(),
        receives_without_copy: probe.is_supported(opcode::RecvZc::CODE),
    };
    for (name, there) in [
        ("NO_SQARRAY", capabilities.flags.contains(&"NO_SQARRAY")),
        ("RECVSEND_BUNDLE", parameters.is_feature_recvsend_bundle()),
        ("MIN_TIMEOUT", parameters.is_feature_min_timeout()),
        ("NO_IOWAIT", parameters.is_feature_no_iowait()),
    ] {
        if there {
            capabilities.present.push(name);
        } else {
            capabilities.missing.push(name);
        }
    }
    Ok((ring, capabilities))
}

fn builder(completions: u32) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions)
        .setup_clamp()
        .dontfork();
    builder
}

fn explain(cause: io::Error, kernel: &str) -> SetupError {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => SetupError::Disabled {
            cause,
            sysctl: std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
                .map_or_else(|_| "absent".to_owned(), |text| text.trim().to_owned()),
        },
        Some(libc::EINVAL) => SetupError::KernelTooOld { found: kernel.to_owned() },
        _ => SetupError::Resources {
            what: "cannot set up an io_uring",
            cause,
            remedy: "raise RLIMIT_NOFILE and RLIMIT_MEMLOCK (LimitNOFILE, LimitMEMLOCK)",
        },
    }
}

/// Which operations there are, once all are that the engine needs.
fn check_operations(ring: &IoUring, kernel: &str) -> Result<Probe, SetupError> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|cause| explain(cause, kernel))?;
    for (operation, code) in [
        ("ACCEPT", opcode::Accept::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("READ", opcode::Read::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ] {
        if !probe.is_supported(code) {
            return Err(SetupError::OperationMissing { operation, kernel: kernel.to_owned() });
        }
    }
    Ok(probe)
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether a release is the broken one, whatever a packager appended to its number.
fn is_broken(release: &str) -> bool {
    release
        .strip_prefix(KERNEL_BROKEN)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_broken_kernel_is_taken_for_it() {
        assert!(is_broken("6.1.7") && is_broken("6.1.7-1-custom"));
        assert!(!is_broken("6.1.70") && !is_broken("6.1.8") && !is_broken("6.1.0-7-amd64"));
    }

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("6.18.44-custom"), Some((6, 18)));
        assert_eq!(kernel_version("5.15.0"), Some((5, 15)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn a_policy_that_forbids_io_uring_is_named_with_its_remedy() {
        let error = explain(io::Error::from_raw_os_error(libc::EPERM), "6.18.0");
        let text = error.to_string();
        assert!(text.contains("kernel.io_uring_disabled=0"), "{text}");
        assert!(text.contains("seccomp"), "{text}");
    }

    #[test]
    fn an_old_kernel_is_named_with_what_is_needed() {
        let error = explain(io::Error::from_raw_os_error(libc::EINVAL), "5.15.0");
        assert!(error.to_string().contains("5.15.0 is too old"), "{error}");
    }
}
