//! Socket addresses in the kernel's form.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use super::super::Errno;
use crate::endpoint::{Endpoint, LocalAddress};

/// A place for one socket address that the kernel reads or writes.
#[derive(Clone, Copy)]
pub(super) struct KernelAddress {
    storage: libc::sockaddr_storage,
    length_bytes: libc::socklen_t,
}

impl Default for KernelAddress {
    fn default() -> Self {
        // SAFETY: sockaddr_storage is plain bytes; all zero is AF_UNSPEC.
        let storage = unsafe { mem::zeroed() };
        Self { storage, length_bytes: 0 }
    }
}

impl KernelAddress {
    /// Makes the place ready for the kernel to write a peer's address.
    pub(super) fn reset_for_accept(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.length_bytes = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        ((&raw mut self.storage).cast(), &raw mut self.length_bytes)
    }

    /// Writes an endpoint; returns pointer, length and address family for connect(2).
    ///
    /// # Errors
    /// `ENAMETOOLONG` for a UNIX path over 107 bytes (unix(7)).
    pub(super) fn set(
        &mut self,
        endpoint: &Endpoint,
    ) -> Result<(*const libc::sockaddr, libc::socklen_t, i32), i32> {
        *self = Self::default();
        let (length, family) = match endpoint {
            Endpoint::Inet(SocketAddr::V4(address)) => {
                self.write(libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                });
                (size_of::<libc::sockaddr_in>(), libc::AF_INET)
            }
            Endpoint::Inet(SocketAddr::V6(address)) => {
                self.write(libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                });
                (size_of::<libc::sockaddr_in6>(), libc::AF_INET6)
            }
            Endpoint::Unix(path) => {
                let path = path.as_os_str().as_bytes();
                let mut address = libc::sockaddr_un {
                    sun_family: libc::AF_UNIX as libc::sa_family_t,
                    sun_path: [0; 108],
                };
                if path.len() >= address.sun_path.len() {
                    return Err(libc::ENAMETOOLONG);
                }
                for (place, byte) in address.sun_path.iter_mut().zip(path) {
                    *place = byte.cast_signed();
                }
                self.write(address);
                // The terminating zero counts.
                (mem::offset_of!(libc::sockaddr_un, sun_path) + path.len() + 1, libc::AF_UNIX)
            }
        };
        self.length_bytes = length as libc::socklen_t;
        Ok(((&raw const self.storage).cast(), self.length_bytes, family))
    }

    fn write<T>(&mut self, address: T) {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        const { assert!(align_of::<T>() <= align_of::<libc::sockaddr_storage>()) };
        // SAFETY: size and alignment are checked above, the place is ours.
        unsafe { (&raw mut self.storage).cast::<T>().write(address) };
    }

    /// Reads an internet address back; anything else (a UNIX peer has none) reads as
    /// the unspecified IPv4 address.
    pub(super) fn get(&self) -> SocketAddr {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that this is a sockaddr_in; storage is large
                // and aligned enough for it.
                let address =
                    unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                SocketAddr::V4(SocketAddrV4::new(
                    Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)),
                    u16::from_be(address.sin_port),
                ))
            }
            libc::AF_INET6 => {
                // SAFETY: as above, for sockaddr_in6.
                let address =
                    unsafe { (&raw const self.storage).cast::<libc::sockaddr_in6>().read() };
                SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(address.sin6_addr.s6_addr),
                    u16::from_be(address.sin6_port),
                    address.sin6_flowinfo,
                    address.sin6_scope_id,
                ))
            }
            _ => SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}

/// Gives a socket of the same family its address, and leaves the port to connect(2), which
/// needs it to be unused towards the same server only (IP_BIND_ADDRESS_NO_PORT, Linux 4.2).
pub(super) fn bind(descriptor: i32, from: LocalAddress) -> Result<(), Errno> {
    let (level, transparent) = match from.address {
        IpAddr::V4(_) => (libc::SOL_IP, libc::IP_TRANSPARENT),
        IpAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
    };
    if from.is_foreign {
        switch_on(descriptor, level, transparent)?;
    }
    // Of both families, in spite of its name.
    switch_on(descriptor, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
    let mut place = KernelAddress::default();
    let endpoint = Endpoint::Inet(SocketAddr::new(from.address, 0));
    let (address, length, _) = place.set(&endpoint).map_err(Errno)?;
    // SAFETY: the pointer is into the local above, the length is that of what is there.
    checked(unsafe { libc::bind(descriptor, address, length) })
}

/// setsockopt(2) of an option that is on or off.
fn switch_on(descriptor: i32, level: i32, name: i32) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: pointer and length are those of the local above.
    checked(unsafe { libc::setsockopt(descriptor, level, name, (&raw const on).cast(), length) })
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    match result {
        0.. => Ok(()),
        _ => Err(Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// getsockname(2).
pub(super) fn local_address(descriptor: i32) -> Result<SocketAddr, Errno> {
    let mut address = KernelAddress::default();
    let (storage, length) = address.reset_for_accept();
    // SAFETY: both pointers are into the local above, the length says how much room.
    checked(unsafe { libc::getsockname(descriptor, storage, length) })?;
    Ok(address.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internet_addresses_survive_the_kernel_form() {
        for text in ["192.0.2.7:443", "[2001:db8::1]:8443"] {
            let address: SocketAddr = text.parse().expect("address");
            let mut place = KernelAddress::default();
            place.set(&Endpoint::Inet(address)).expect("set");
            assert_eq!(place.get(), address);
        }
    }

    #[test]
    fn a_unix_path_that_does_not_fit_is_refused() {
        let mut place = KernelAddress::default();
        let path = "/".repeat(108).into();
        assert_eq!(place.set(&Endpoint::Unix(path)).unwrap_err(), libc::ENAMETOOLONG);
    }
}
