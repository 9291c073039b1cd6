//! VERSION: what is proposed, what is answered, and what ends the connection.

use crate::fake::{Event, Served};
use varia_spec::errno::Errno;
use varia_vfio_user::command::Command;
use varia_vfio_user::command::version::{Capabilities, TwinSocket, Version};
use varia_vfio_user::wire::{HEADER_LEN, Header, MAX_DATA_XFER};

/// The reply's payload to a VERSION message with this data behind the numbers.
fn negotiate(served: &Served, data: &[u8]) -> Vec<u8> {
    let payload = [&[0; 4], data].concat();
    served
        .silent_client()
        .request(Command::VERSION, &payload, &[])
        .unwrap()
        .payload
}

#[test]
fn our_client_and_server_agree_on_version_and_limits() {
    let served = Served::start();
    let client = served.client();
    assert_eq!(*client.server(), Capabilities::ours());
    served.wait_for(&Event::Connected);
}

#[test]
fn qemus_proposal_is_answered_with_its_own_version_and_a_subset() {
    let served = Served::start();
    let proposal = br#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,
        "max_dma_maps":65535,"pgsizes":4096,"write_multiple":true}}"#;
    let reply = negotiate(&served, &[proposal, &b"\0"[..]].concat());
    let version = Version::decode(&reply).unwrap();
    assert_eq!((version.major, version.minor), (0, 0));
    assert_eq!(version.capabilities, Capabilities::ours());
}

#[test]
fn a_client_without_capabilities_gets_only_the_limits_it_must_know() {
    let served = Served::start();
    for data in [&b""[..], b"{}\0", b"{\"capabilities\":{}}\0"] {
        let version = Version::decode(&negotiate(&served, data)).unwrap();
        let expected = Capabilities {
            max_msg_fds: Some(16),
            max_data_xfer_size: Some(MAX_DATA_XFER as u64),
            ..Capabilities::default()
        };
        assert_eq!(version.capabilities, expected);
    }
}

#[test]
fn a_capability_that_nobody_knows_is_not_answered() {
    let served = Served::start();
    let reply = negotiate(&served, b"{\"capabilities\":{\"warp\":9},\"more\":1}\0");
    assert!(!String::from_utf8_lossy(&reply).contains("warp"));
}

#[test]
fn the_smaller_transfer_limit_holds() {
    let served = Served::start();
    for (theirs, agreed) in [(4096, 4096), (1u64 << 40, MAX_DATA_XFER as u64)] {
        let data = format!("{{\"capabilities\":{{\"max_data_xfer_size\":{theirs}}}}}\0");
        let version = Version::decode(&negotiate(&served, data.as_bytes())).unwrap();
        assert_eq!(version.capabilities.max_data_xfer_size, Some(agreed));
    }
}

#[test]
fn a_higher_minor_version_is_answered_with_ours() {
    let served = Served::start();
    let reply = served
        .silent_client()
        .request(Command::VERSION, &[0, 0, 9, 0], &[])
        .unwrap();
    let version = Version::decode(&reply.payload).unwrap();
    assert_eq!((version.major, version.minor), (0, 0));
}

#[test]
fn a_second_version_message_is_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    let again = client
        .request(Command::VERSION, &[0, 0, 0, 0], &[])
        .unwrap_err();
    assert_eq!(again.errno(), Some(Errno::EINVAL));
    client.device_info().unwrap();
}

#[test]
fn the_reply_repeats_id_and_command_of_the_request() {
    let served = Served::start();
    let mut client = served.silent_client();
    let header = Header::command(0xbeef, Command::VERSION, 4);
    client
        .send_bytes(&[&header.encode()[..], &[0; 4]].concat(), &[])
        .unwrap();
    let reply = client.receive().unwrap();
    assert_eq!(
        (reply.header.id, reply.header.command),
        (0xbeef, Command::VERSION)
    );
    assert_eq!(reply.header.size as usize, HEADER_LEN + reply.payload.len());
}

#[test]
fn a_twin_socket_is_made_for_a_client_that_offers_to_use_one_and_for_no_other() {
    let served = Served::start();
    for (offer, made) in [
        (r#""twin_socket":{"supported":true}"#, true),
        (r#""twin_socket":{"supported":true},"max_msg_fds":0"#, false),
        (r#""twin_socket":{"supported":false}"#, false),
        (r#""twin_socket":{}"#, false),
        ("", false),
    ] {
        let json = format!(r#"{{"capabilities":{{{offer}}}}}"#);
        let payload = [&[0; 4][..], json.as_bytes(), &[0]].concat();
        let mut client = served.silent_client();
        let reply = client.request(Command::VERSION, &payload, &[]).unwrap();
        let answer = Version::decode(&reply.payload).unwrap().capabilities;
        let expected = TwinSocket {
            supported: true,
            fd_index: Some(0),
        };
        assert_eq!(answer.twin_socket, made.then_some(expected), "{offer}");
        assert_eq!(reply.fds.len(), usize::from(made), "{offer}");
    }
    let wrong = br#"{"capabilities":{"twin_socket":true}}"#;
    let payload = [&[0; 4][..], wrong, &[0]].concat();
    let refused = served
        .silent_client()
        .request(Command::VERSION, &payload, &[]);
    assert_eq!(refused.unwrap_err().errno(), Some(Errno::EINVAL));
}
