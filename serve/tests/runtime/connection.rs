//! Clients that come and go, and a device that can't be opened.

use std::sync::Arc;

use varia_serve::Backend;
use varia_spec::Errno;
use varia_sys::socket::Stream;
use varia_vfio_user::client::Client;
use varia_vfio_user::server::{Disconnect, Server};

use crate::machine::{BAR2, BAR4, Machine};

#[test]
fn the_device_is_open_while_a_client_is_there() {
    let machine = Machine::small();
    assert!(!machine.endpoint.core().is_open());
    let client = machine.attach();
    assert!(machine.endpoint.core().is_open());
    drop(client);
    assert!(!machine.endpoint.core().is_open());
}

#[test]
fn the_memory_keeps_its_bytes_from_one_client_to_the_next() {
    let machine = Machine::small();
    let mut client = machine.attach();
    client.write(BAR2, 4096, &[2; 8]);
    client.write(BAR4, 4096, &[4; 8]);
    client.reset().unwrap();
    drop(client);
    let mut client = machine.attach();
    assert_eq!(client.read(BAR2, 4096), [2; 8]);
    assert_eq!(client.read(BAR4, 4096), [4; 8]);
}

#[test]
fn a_client_of_a_device_that_is_open_elsewhere_is_refused_and_the_next_is_served() {
    let machine = Machine::small();
    machine.endpoint.open().unwrap();
    let server = Server::new(Backend::new(Arc::clone(&machine.endpoint)));
    let (ours, theirs) = Stream::pair().unwrap();
    let serving = std::thread::spawn(move || server.serve_one(theirs));
    let errno = Client::over(ours).negotiate().unwrap_err().errno();
    assert_eq!(errno, Some(Errno::EBUSY));
    let end = serving.join().unwrap().unwrap_err();
    assert!(matches!(end, Disconnect::Refused(Errno::EBUSY)), "{end}");
    assert!(
        machine.endpoint.core().is_open(),
        "the refused client closed nothing"
    );
    machine.endpoint.close();
    assert_eq!(machine.attach().try_read(BAR4, 0), Ok(4));
}

#[test]
fn closing_twice_is_harmless() {
    let machine = Machine::small();
    drop(machine.attach());
    machine.endpoint.close();
    machine.endpoint.close();
    assert_eq!(machine.attach().try_read(BAR2, 0), Ok(4));
}
