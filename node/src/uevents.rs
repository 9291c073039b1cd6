//! Events of the kernel: a function appears, goes, is bound or unbound, or reports an error.
//!
//! An event says no more than that the facts are to be read again. Source of the format:
//! `lib/kobject_uevent.c` of Linux 7.2.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Weak;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::sync::Notify;

/// Subsystems whose events concern a GPU.
const SUBSYSTEMS: [&str; 4] = ["pci", "vfio-dev", "vfio", "egm"];
/// The kernel's multicast group.
const KERNEL: u32 = 1;
/// Time after which a thread without events looks whether its process still serves.
const IDLE: Duration = Duration::from_secs(1);

/// Notifies `events` of events that concern a GPU, in a thread that ends with `events`.
///
/// # Errors
/// Error of the system.
pub(crate) fn forward(events: Weak<Notify>) -> io::Result<()> {
    let socket = open()?;
    thread::Builder::new()
        .name("uevents".to_owned())
        .spawn(move || {
            let mut bytes = [0; 8192];
            while let Some(events) = events.upgrade() {
                match recv(&socket, &mut bytes[..], RecvFlags::empty()) {
                    Ok((length, _)) if concerns(bytes.get(..length).unwrap_or(&bytes)) => {
                        events.notify_one();
                    }
                    // events were lost: the facts are read again
                    Err(Errno::NOBUFS) => events.notify_one(),
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => {
                        log::warn!(
                            "event=no-uevents found={:?}",
                            format!("{error}: changes are seen by interval alone")
                        );
                        return;
                    }
                }
            }
        })?;
    Ok(())
}

fn open() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(IDLE))?;
    Ok(socket)
}

/// True for an event of a subsystem that concerns a GPU.
fn concerns(event: &[u8]) -> bool {
    event.split(|byte| *byte == 0).any(|field| {
        let subsystem = field.strip_prefix(b"SUBSYSTEM=");
        subsystem.is_some_and(|name| SUBSYSTEMS.iter().any(|known| known.as_bytes() == name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_pci_and_vfio_are_taken_and_others_are_not() {
        let event = |subsystem: &str| {
            format!("bind@/devices/x\0ACTION=bind\0SUBSYSTEM={subsystem}\0SEQNUM=7\0").into_bytes()
        };
        assert!(concerns(&event("pci")));
        assert!(concerns(&event("vfio-dev")));
        assert!(!concerns(&event("net")));
        assert!(!concerns(b""));
        assert!(!concerns(b"SUBSYSTEM=pcie\0\xff"));
    }
}
