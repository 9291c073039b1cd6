//! `ping ADDRESS FIRST LAST STEP`: sends an ICMP echo request of each size from FIRST to LAST bytes
//! of data, and compares what comes back, byte by byte.
//!
//! Prints how many came back. One that is lost, late or different ends it with an error that names
//! the size. The data differs from one request to the next.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Instant;

use etherparse::checksum::Sum16BitWords;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use crate::HANG;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const HEADER: usize = 8;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match ping(arguments) {
        Ok(count) => {
            println!("{count}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ping: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ping(arguments: &[String]) -> Result<u32, String> {
    let usage = "usage: ping ADDRESS FIRST LAST STEP, sizes in bytes up to 65507";
    let [address, sizes @ ..] = arguments else {
        return Err(usage.into());
    };
    let address: Ipv4Addr = address.parse().map_err(|e| format!("{address:?}: {e}"))?;
    let sizes: Result<Vec<usize>, _> = sizes.iter().map(|text| text.parse()).collect();
    let Ok(&[first, last, step]) = sizes.as_deref() else {
        return Err(usage.into());
    };
    let kind = (AddressFamily::INET, SocketType::RAW);
    let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, Some(ipproto::ICMP))
        .map_err(|e| format!("a raw socket: {e}"))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(HANG))
        .map_err(|e| format!("the socket's timeout: {e}"))?;
    let mut count = 0;
    let mut packet = vec![0; 65_536];
    for size in (first..=last).step_by(step.max(1)) {
        let sequence = (count as u16).to_be_bytes();
        let request = request(size, sequence);
        let to = SocketAddrV4::new(address, 0);
        sendto(&socket, &request, SendFlags::empty(), &to)
            .map_err(|e| format!("{size} bytes can't be sent: {e}"))?;
        let deadline = Instant::now() + HANG;
        loop {
            let (_, len) = recv(&socket, &mut packet[..], RecvFlags::empty())
                .map_err(|e| format!("no answer to {size} bytes: {e}"))?;
            let answer = reply(&packet[..len.min(packet.len())], address, sequence);
            if let Some(answer) = answer {
                compare(size, &request, answer)?;
                break;
            }
            // something else came
            if Instant::now() > deadline {
                return Err(format!("no answer to {size} bytes in {HANG:?}"));
            }
        }
        count += 1;
    }
    Ok(count)
}

/// An echo request with `size` bytes of data.
fn request(size: usize, sequence: [u8; 2]) -> Vec<u8> {
    let mut bytes = vec![ECHO_REQUEST, 0, 0, 0, 0x76, 0x61, sequence[0], sequence[1]];
    // a generator's bytes (xorshift), begun with the size
    let mut word = 0x9e37_79b9_7f4a_7c15 ^ size as u64;
    bytes.extend((0..size).map(|_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word as u8
    }));
    let sum = checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// The ICMP message in an IPv4 packet that answers the request with this number.
fn reply(packet: &[u8], from: Ipv4Addr, sequence: [u8; 2]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let message = packet.get(header..)?;
    let answers = packet.get(12..16)? == from.octets()
        && *message.first()? == ECHO_REPLY
        && message.get(4..HEADER)? == [0x76, 0x61, sequence[0], sequence[1]];
    answers.then_some(message)
}

fn compare(size: usize, request: &[u8], answer: &[u8]) -> Result<(), String> {
    if checksum(answer) != 0 {
        return Err(format!("the answer to {size} bytes has a wrong checksum"));
    }
    if answer.get(HEADER..) != request.get(HEADER..) {
        let got = answer.len().saturating_sub(HEADER);
        return Err(format!("{size} bytes came back as {got} others"));
    }
    Ok(())
}

/// The Internet checksum (RFC 1071); 0 over a message with a good one.
fn checksum(bytes: &[u8]) -> u16 {
    let sum = Sum16BitWords::new().add_slice(bytes);
    sum.ones_complement().to_be()
}
