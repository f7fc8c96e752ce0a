//! What this process has used, and the addresses of this machine.

use std::{
    ffi::CStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// What all threads of this process have used so far, by SRS's names: times in whole seconds, `ru_maxrss` in KiB.
pub fn resource_usage() -> [(&'static str, i64); 16] {
    // SAFETY: a struct of integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    [
        ("ru_utime", usage.ru_utime.tv_sec),
        ("ru_stime", usage.ru_stime.tv_sec),
        ("ru_maxrss", usage.ru_maxrss),
        ("ru_ixrss", usage.ru_ixrss),
        ("ru_idrss", usage.ru_idrss),
        ("ru_isrss", usage.ru_isrss),
        ("ru_minflt", usage.ru_minflt),
        ("ru_majflt", usage.ru_majflt),
        ("ru_nswap", usage.ru_nswap),
        ("ru_inblock", usage.ru_inblock),
        ("ru_oublock", usage.ru_oublock),
        ("ru_msgsnd", usage.ru_msgsnd),
        ("ru_msgrcv", usage.ru_msgrcv),
        ("ru_nsignals", usage.ru_nsignals),
        ("ru_nvcsw", usage.ru_nvcsw),
        ("ru_nivcsw", usage.ru_nivcsw),
    ]
}

/// Names of network interfaces, each with an address of it.
pub fn interface_addresses() -> Vec<(String, IpAddr)> {
    let mut list = ptr::null_mut();
    // SAFETY: `list` is valid for writing.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let (mut found, mut next) = (Vec::new(), list);
    // SAFETY: entries are valid until the list is freed, and the last one's `ifa_next` is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: an entry's address is null or one of the family that it names.
        if let Some(address) = unsafe { address(entry.ifa_addr) } {
            // SAFETY: every entry has a name, which ends with a zero.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found.push((name.to_string_lossy().into_owned(), address));
        }
    }
    // SAFETY: the list is `getifaddrs`'s, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// # Safety
/// `from` is null, or points to an address of the family that it names.
unsafe fn address(from: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller promises.
    let family = unsafe { from.as_ref() }?.sa_family;
    match i32::from(family) {
        // SAFETY: the family says that it is this type.
        libc::AF_INET => unsafe {
            let found = ptr::read_unaligned(from.cast::<libc::sockaddr_in>());
            Some(Ipv4Addr::from_bits(u32::from_be(found.sin_addr.s_addr)).into())
        },
        // SAFETY: the family says that it is this type.
        libc::AF_INET6 => unsafe {
            let found = ptr::read_unaligned(from.cast::<libc::sockaddr_in6>());
            Some(Ipv6Addr::from(found.sin6_addr.s6_addr).into())
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_memory_is_used() {
        assert!(interface_addresses().iter().any(|(name, address)| name == "lo" && address.is_loopback()));
        assert!(resource_usage().iter().any(|(name, value)| *name == "ru_maxrss" && *value > 100));
    }
}
