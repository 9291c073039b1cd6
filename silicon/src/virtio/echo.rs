//! The other end of the wire: it owns every IPv4 address, says so to who asks (ARP), and answers
//! pings (ICMP echo). All else it drops.
//!
//! It keeps no state: a ping in fragments is answered fragment by fragment, and whoever sent it
//! puts the answer together. Source: RFC 826, 791, 792, and 1624 for the checksum.

/// Address of the peer, locally administered.
pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x76, 0x61, 0x01];

const BROADCAST: [u8; 6] = [0xff; 6];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
/// Ethernet, IPv4, lengths 6 and 4, request.
const ARP_REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
const ARP_REPLY: u8 = 2;
const ICMP: u8 = 1;
const ECHO_REQUEST: [u8; 2] = [8, 0];

/// Reply to an Ethernet frame, if there is one.
pub fn answer(frame: Vec<u8>) -> Option<Vec<u8>> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, rest) = rest.split_first_chunk::<6>()?;
    let (kind, packet) = rest.split_first_chunk::<2>()?;
    if ![MAC, BROADCAST].contains(to) || from.first()? & 1 != 0 {
        return None;
    }
    let packet = match *kind {
        ARP => arp(packet)?,
        IPV4 if *to == MAC => ipv4(packet)?,
        _ => return None,
    };
    Some([from.as_slice(), &MAC, kind, &packet].concat())
}

/// The address asked for is here, unless the one who asks has it or is choosing one.
fn arp(packet: &[u8]) -> Option<Vec<u8>> {
    let (start, rest) = packet.split_first_chunk::<8>()?;
    let (sender, rest) = rest.split_first_chunk::<10>()?;
    let (_, rest) = rest.split_first_chunk::<6>()?;
    let (wanted, _) = rest.split_first_chunk::<4>()?;
    let own = sender.last_chunk::<4>()?;
    if *start != ARP_REQUEST || own == wanted || *own == [0; 4] {
        return None;
    }
    let [head @ .., _] = *start;
    Some([head.as_slice(), &[ARP_REPLY], &MAC, wanted, sender].concat())
}

/// The packet with its addresses swapped, which leaves the header's checksum as it is. Where it
/// begins with an echo request, that becomes a reply; where it is a later fragment, the data goes
/// back as it is.
fn ipv4(packet: &[u8]) -> Option<Vec<u8>> {
    let header = packet.first_chunk::<20>()?;
    let [
        version,
        _,
        len_high,
        len_low,
        _,
        _,
        offset_high,
        offset_low,
        _,
        protocol,
        ..,
    ] = *header;
    let header_len = usize::from(version & 0xf) * 4;
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    if version >> 4 != 4 || header_len < 20 || protocol != ICMP || len < header_len {
        return None;
    }
    // what follows the packet is padding
    let mut reply = packet.get(..len)?.to_vec();
    let (source, destination) = (reply.get(12..16)?.to_vec(), reply.get(16..20)?.to_vec());
    reply.get_mut(12..16)?.copy_from_slice(&destination);
    reply.get_mut(16..20)?.copy_from_slice(&source);
    let offset = u16::from_be_bytes([offset_high, offset_low]) & 0x1fff;
    if offset == 0 {
        let [kind, code, high, low, ..] = reply.get_mut(header_len..)? else {
            return None;
        };
        if [*kind, *code] != ECHO_REQUEST {
            return None;
        }
        *kind = 0;
        let sum = u32::from(u16::from_be_bytes([*high, *low])) + 0x0800;
        [*high, *low] = ((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes();
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use etherparse::checksum::Sum16BitWords;

    use super::*;

    const GUEST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    fn frame(to: [u8; 6], kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [to.as_slice(), &GUEST, &kind, packet].concat()
    }

    /// The Internet checksum of bytes that contain theirs is 0.
    fn sum(bytes: &[u8]) -> u16 {
        let sum = Sum16BitWords::new().add_slice(bytes);
        sum.ones_complement().to_be()
    }

    fn ping(data: &[u8], flags: u16) -> Vec<u8> {
        let mut icmp = [&[8, 0, 0, 0, 0x12, 0x34, 0, 1], data].concat();
        let check = sum(&icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&check);
        packet(&icmp, flags)
    }

    fn packet(body: &[u8], flags: u16) -> Vec<u8> {
        let len = (20 + body.len() as u16).to_be_bytes();
        let [high, low] = flags.to_be_bytes();
        let mut header = vec![0x45, 0, len[0], len[1], 7, 7, high, low, 64, 1, 0, 0];
        header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        let check = sum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&check);
        [header, body.to_vec()].concat()
    }

    #[test]
    fn pings_of_all_sizes_come_back_with_good_checksums() {
        for size in 0..1473 {
            let data: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
            let reply = answer(frame(MAC, IPV4, &ping(&data, 0))).unwrap();
            assert_eq!(reply[..14], [GUEST.as_slice(), &MAC, &IPV4].concat());
            let (header, icmp) = reply[14..].split_at(20);
            assert_eq!(header[12..], [10, 0, 0, 2, 10, 0, 0, 1]);
            assert_eq!((sum(header), sum(icmp)), (0, 0), "{size} bytes");
            assert_eq!((icmp[0], &icmp[4..8]), (0, [0x12, 0x34, 0, 1].as_slice()));
            assert_eq!(icmp[8..], data);
        }
    }

    #[test]
    fn every_checksum_of_a_ping_is_adjusted_right() {
        for word in 0..=u16::MAX {
            let reply = answer(frame(MAC, IPV4, &ping(&word.to_be_bytes(), 0))).unwrap();
            assert_eq!(sum(&reply[34..]), 0, "{word:#x}");
        }
    }

    #[test]
    fn a_later_fragment_comes_back_as_it_is_and_padding_does_not() {
        let mut sent = frame(MAC, IPV4, &packet(b"\x08\x00later", 100));
        sent.extend([0xaa; 9]);
        let reply = answer(sent).unwrap();
        assert_eq!(&reply[34..], b"\x08\x00later");
    }

    #[test]
    fn who_asks_for_an_address_gets_it_and_who_has_or_chooses_it_hears_nothing() {
        let ask = |own: [u8; 4], wanted: [u8; 4]| {
            let request = [ARP_REQUEST.as_slice(), &GUEST, &own, &[0; 6], &wanted].concat();
            answer(frame(BROADCAST, ARP, &request))
        };
        let reply = ask([10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        let expected = [
            GUEST.as_slice(),
            &MAC,
            &ARP,
            &[0, 1, 8, 0, 6, 4, 0, 2],
            &MAC,
            &[10, 0, 0, 2],
            &GUEST,
            &[10, 0, 0, 1],
        ];
        assert_eq!(reply, expected.concat());
        assert_eq!(ask([10, 0, 0, 1], [10, 0, 0, 1]), None);
        assert_eq!(ask([0; 4], [10, 0, 0, 2]), None);
    }

    #[test]
    fn all_else_is_dropped_and_nothing_panics() {
        let good = frame(MAC, IPV4, &ping(b"data", 0));
        for len in 0..good.len() {
            assert_eq!(answer(good[..len].to_vec()), None, "{len} bytes");
        }
        let other = frame([2; 6], IPV4, &ping(b"data", 0));
        assert_eq!(answer(other), None, "to somebody else");
        let all = frame(BROADCAST, IPV4, &ping(b"data", 0));
        assert_eq!(answer(all), None, "to everybody");
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let reply = answer(bad.clone());
                assert!(reply.is_none_or(|reply| reply.len() <= bad.len()));
            }
        }
    }
}
