//! Clients that others wrote: the crate vfio_user's, which is Cloud Hypervisor's, and as bytes what
//! libvfio-user's sample client, SPDK's host library and Cloud Hypervisor send.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use varia_serve::Backend;
use varia_silicon::profile;
use varia_spec::vfio::{IrqIndex, irq_set, region_flags};
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::{Listener, Stream};
use varia_vfio_user::client::{Client, Reply};
use varia_vfio_user::command::Command;
use varia_vfio_user::server::Server;
use varia_vfio_user::wire::Header;

use crate::machine::{BAR4, Machine, Wanted};

/// The network card: I/O and 32-bit BARs, an MSI-X table in a BAR that can be mapped.
fn card() -> Machine {
    Wanted {
        profile: "nic",
        ..Wanted::default()
    }
    .serve()
}

/// The same card on a platform with zPCI: it has capabilities.
fn card_with_capabilities() -> Machine {
    let ism = profile::find("ism").unwrap();
    Wanted {
        profile: "nic",
        silicon: varia_silicon::Options {
            platform: ism.platform.clone(),
            ..Default::default()
        },
        ..Wanted::default()
    }
    .serve()
}

/// Runs `act` with the path of a socket on which `machine` is served.
fn served(machine: &Machine, act: impl FnOnce(&std::path::Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.sock");
    let listener = Listener::bind(&path).unwrap();
    let stop = EventFd::new().unwrap();
    let server = Server::new(Backend::new(Arc::clone(&machine.endpoint)));
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_forever(&listener, &stop));
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&path)));
        stop.trigger().unwrap();
        serving.join().unwrap().unwrap();
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn the_crates_client_uses_a_gpu_and_a_card() {
    let machine = Machine::small();
    served(&machine, |path| {
        let mut client = vfio_user::Client::new(path).unwrap();
        let usemem = client.region(BAR4).unwrap();
        assert!(usemem.file_offset.is_some() && !usemem.sparse_areas.is_empty());
        assert_ne!(usemem.flags & region_flags::CAPS, 0);
        assert_eq!(client.region(8).unwrap().size, 0);
        client.region_write(BAR4, 4096, &[1, 2, 3, 4]).unwrap();
        let mut seen = [0; 4];
        client.region_read(BAR4, 4096, &mut seen).unwrap();
        assert_eq!(seen, [1, 2, 3, 4]);
        client.region_read(7, 0, &mut seen).unwrap();
        assert_eq!(seen, [0xde, 0x10, 0x42, 0x23]);
        let ram = SharedMemory::anonymous("ram", 8192).unwrap();
        let fd = ram.as_fd().as_raw_fd();
        client.dma_map(0, 0x1000, 8192, fd).unwrap();
        client.dma_unmap(0x1000, 8192).unwrap();
        client.reset().unwrap();
        client.region_read(7, 0, &mut seen).unwrap();
        assert_eq!(seen, [0xde, 0x10, 0x42, 0x23]);
    });
    let machine = card_with_capabilities();
    assert_ne!(machine.endpoint.capabilities(), []);
    served(&machine, |path| {
        let mut client = vfio_user::Client::new(path).unwrap();
        let table = client.region(3).unwrap();
        let len: u64 = table.sparse_areas.iter().map(|area| area.size).sum();
        assert!(len > 0 && len < table.size, "the table is not mapped");
        let index = IrqIndex::MSIX.0;
        assert_eq!(client.get_irq_info(index).unwrap().count, 5);
        let event = EventFd::new().unwrap();
        let on = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;
        let off = irq_set::DATA_NONE | irq_set::ACTION_TRIGGER;
        let fds = [event.as_fd().as_raw_fd()];
        // Cloud Hypervisor switches off before it switches on, and when it leaves
        client.set_irqs(index, off, 0, 0, &[]).unwrap();
        client.set_irqs(index, on, 0, 1, &fds).unwrap();
        // a vector, not the whole index
        client.set_irqs(index, off, 0, 1, &[]).unwrap();
        assert_eq!(event.drain().unwrap(), 1);
        client.set_irqs(index, off, 0, 0, &[]).unwrap();
        client.set_irqs(index, off, 0, 0, &[]).unwrap();
    });
}

/// A connection on which nothing has been said, and its server.
fn raw(machine: &Machine, act: impl FnOnce(&mut Client)) {
    let (ours, theirs) = Stream::pair().unwrap();
    let server = Server::new(Backend::new(Arc::clone(&machine.endpoint)));
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_one(theirs));
        let mut client = Client::over(ours);
        act(&mut client);
        drop(client);
        serving.join().unwrap().unwrap();
    });
}

/// Sends a message and checks that the reply to it is no error.
fn ask(client: &mut Client, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Reply {
    let header = Header::command(0xb10c, command, payload.len()).encode();
    client
        .send_bytes(&[&header[..], payload].concat(), fds)
        .unwrap();
    let reply = client.receive().unwrap();
    let Header { id, error, .. } = reply.header;
    assert_eq!((id, error), (0xb10c, None), "{command}");
    reply
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_ne_bytes(bytes[4 * index..4 * index + 4].try_into().unwrap())
}

/// Asks for each region without room for capabilities, and again with the room that is told.
fn ask_for_regions(client: &mut Client) {
    for index in 0..9 {
        let query = |argsz| words(&[argsz, 0, index, 0, 0, 0, 0, 0]);
        let command = Command::DEVICE_GET_REGION_INFO;
        let short = ask(client, command, &query(32), &[]);
        let need = word(&short.payload, 0);
        assert_eq!(short.payload.len(), 32);
        if need > 32 {
            assert_eq!(word(&short.payload, 1) & region_flags::CAPS, 0);
            assert!(short.fds.is_empty());
            let whole = ask(client, command, &query(need), &[]);
            assert_eq!(word(&whole.payload, 0), need);
            assert_eq!(whole.payload.len(), need as usize);
            assert_eq!(whole.fds.len(), 1);
        }
    }
}

/// Commit efd091b of libvfio-user, `samples/client.c`.
#[test]
fn what_libvfio_users_sample_client_sends() {
    let machine = card();
    raw(&machine, |client| {
        let json = b"{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}\0";
        // version 0.2
        let version = [&[0, 0, 2, 0], &json[..]].concat();
        ask(client, Command::VERSION, &version, &[]);
        let info = ask(
            client,
            Command::DEVICE_GET_INFO,
            &words(&[16, 0, 0, 0]),
            &[],
        );
        assert_eq!(word(&info.payload, 2), 9);
        ask_for_regions(client);
        for index in 0..5 {
            let query = words(&[16, 0, index, 0]);
            ask(client, Command::DEVICE_GET_IRQ_INFO, &query, &[]);
        }
        let event = EventFd::new().unwrap();
        let flags = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;
        let set = words(&[20, flags, 0, 0, 1]);
        ask(client, Command::DEVICE_SET_IRQS, &set, &[event.as_fd()]);
        let ram = SharedMemory::anonymous("ram", 4096).unwrap();
        // the last page of the address space
        let at = words(&[0xffff_f000, 0xffff_ffff]);
        let map = [words(&[32, 3, 0, 0]), at.clone(), words(&[4096, 0])].concat();
        ask(client, Command::DMA_MAP, &map, &[ram.as_fd()]);
        let unmap = [words(&[24, 0]), at, words(&[4096, 0])].concat();
        let reply = ask(client, Command::DMA_UNMAP, &unmap, &[]);
        assert_eq!(reply.payload, unmap);
        ask(client, Command::DEVICE_RESET, &[], &[]);
    });
}

/// `lib/vfio_user/host`: structures at the beginning of a payload of 4096 bytes, whose size is the
/// `argsz`; the device's info of newer kernel headers, which is longer; a descriptor with each
/// mapping that is removed.
#[test]
fn what_spdks_host_library_sends() {
    let machine = card();
    raw(&machine, |client| {
        let mut version = b"\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"migration\":{\"pgsize\":4096}}}".to_vec();
        version.resize(8192, 0);
        ask(client, Command::VERSION, &version, &[]);
        let info = words(&[24, 0, 0, 0, 0, 0]);
        let info = ask(client, Command::DEVICE_GET_INFO, &info, &[]);
        assert_eq!(word(&info.payload, 2), 9);
        for index in 0..9 {
            let mut query = words(&[4096, 0, index, 0, 0, 0, 0, 0]);
            query.resize(4096, 0);
            let command = Command::DEVICE_GET_REGION_INFO;
            let region = ask(client, command, &query, &[]).payload;
            assert_eq!(word(&region, 0) as usize, region.len());
        }
        let off = words(&[20, irq_set::DATA_NONE | irq_set::ACTION_TRIGGER, 2, 0, 0]);
        ask(client, Command::DEVICE_SET_IRQS, &off, &[]);
        let ram = SharedMemory::anonymous("ram", 4096).unwrap();
        let map = words(&[32, 3, 0, 0, 0x10_0000, 0, 4096, 0]);
        ask(client, Command::DMA_MAP, &map, &[ram.as_fd()]);
        let unmap = words(&[24, 0, 0x10_0000, 0, 4096, 0]);
        ask(client, Command::DMA_UNMAP, &unmap, &[ram.as_fd()]);
        // a read of the vendor's id, with its structure at the beginning of a longer payload
        let mut read = words(&[0, 0, 7, 4]);
        read.resize(64, 0);
        let reply = ask(client, Command::REGION_READ, &read, &[]);
        assert_eq!(reply.payload.len(), 20);
    });
}

/// The crate vfio_user 0.1.7 as Cloud Hypervisor calls it. Its `argsz` of the device's info counts the
/// message's header, and it reads 16 bytes of a reply, also of a device with capabilities.
#[test]
fn what_cloud_hypervisor_sends() {
    let machine = card_with_capabilities();
    raw(&machine, |client| {
        let json = b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576,\"migration\":{\"pgsize\":4096}}}\0";
        // version 0.1
        let version = [&[0, 0, 1, 0], &json[..]].concat();
        ask(client, Command::VERSION, &version, &[]);
        let info = words(&[32, 0, 0, 0]);
        let info = ask(client, Command::DEVICE_GET_INFO, &info, &[]).payload;
        assert_eq!(info.len(), 16);
        assert_eq!(word(&info, 2), 9);
        ask_for_regions(client);
        let read = |offset| words(&[offset, 0, 7, 4]);
        let config = ask(client, Command::REGION_READ, &read(0), &[]).payload;
        assert_eq!(config.len(), 20);
        for index in [IrqIndex::MSIX.0, IrqIndex::MSI.0, IrqIndex::INTX.0] {
            let query = words(&[16, 0, index, 0]);
            ask(client, Command::DEVICE_GET_IRQ_INFO, &query, &[]);
        }
        let ram = SharedMemory::anonymous("ram", 2 << 20).unwrap();
        let map = words(&[32, 3, 0, 0, 0x10_0000, 0, 2 << 20, 0]);
        ask(client, Command::DMA_MAP, &map, &[ram.as_fd()]);
        let off = irq_set::DATA_NONE | irq_set::ACTION_TRIGGER;
        let on = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;
        let event = EventFd::new().unwrap();
        for (flags, count, fds) in [(off, 0, &[][..]), (on, 1, &[event.as_fd()]), (off, 0, &[])] {
            let set = words(&[20, flags, IrqIndex::MSIX.0, 0, count]);
            ask(client, Command::DEVICE_SET_IRQS, &set, fds);
        }
        let unmap = words(&[24, 0, 0x10_0000, 0, 2 << 20, 0]);
        ask(client, Command::DMA_UNMAP, &unmap, &[]);
        ask(client, Command::DEVICE_RESET, &[], &[]);
    });
}
