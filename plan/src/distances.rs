//! Distances between the VM's nodes.

use varia_facts::{Host, NodeId};

use crate::gpu::Gpu;
use crate::plan::Socket;

/// Distance from a node to itself.
pub const LOCAL: u8 = 10;
/// Linux's default; here: between the nodes of one GPU.
const SAME_GPU: u8 = 20;
/// Between CPU sockets, from a CPU to its own GPU, to another's GPU, and between GPUs, if the host
/// has no such distance. Assumed, in the order of Grace hosts.
const SOCKETS: u8 = 40;
const OWN_GPU: u8 = 80;
const OTHER_GPU: u8 = 120;
const GPUS: u8 = 160;

/// Socket or GPU of a node of the VM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The socket with this index.
    Socket(usize),
    /// A node of the GPU with this index.
    Gpu(usize),
}

/// Distances from each node to each node. `host_nodes` has the host's node of each GPU's memory, if
/// the node is known; distances of the host's own nodes are copied.
pub(crate) fn distances(
    sockets: &[Socket],
    gpus: &[Gpu],
    host: &Host,
    host_nodes: &[Option<NodeId>],
) -> Vec<Vec<u8>> {
    let places: Vec<Place> = (0..sockets.len())
        .map(Place::Socket)
        .chain(
            gpus.iter()
                .enumerate()
                .flat_map(|(index, gpu)| gpu.memory.nodes().map(move |_| Place::Gpu(index))),
        )
        .collect();
    let on_host = |place| match place {
        Place::Socket(index) => sockets
            .get(index)
            .and_then(|socket: &Socket| socket.host_node),
        Place::Gpu(index) => host_nodes.get(index).copied().flatten(),
    };
    let known = |from, to| {
        let (from, to) = (on_host(from)?, on_host(to)?);
        let index = host.nodes.iter().position(|node| node.id == to)?;
        let distance = *host.node(from)?.distances.get(index)?;
        // two nodes of the VM are never one, whatever the host has
        u8::try_from(distance).ok().filter(|far| *far > LOCAL)
    };
    let own = |gpu: usize| {
        let own = gpus.get(gpu)?.socket;
        sockets.iter().position(|socket| socket.node == own)
    };
    places
        .iter()
        .enumerate()
        .map(|(row, from)| {
            places
                .iter()
                .enumerate()
                .map(|(column, to)| {
                    if row == column {
                        LOCAL
                    } else if from == to {
                        SAME_GPU
                    } else {
                        known(*from, *to).unwrap_or_else(|| assumed(*from, *to, own))
                    }
                })
                .collect()
        })
        .collect()
}

/// Assumed distance if the host has none; `own` has the socket of a GPU.
pub fn assumed(from: Place, to: Place, own: impl Fn(usize) -> Option<usize>) -> u8 {
    match (from, to) {
        (Place::Socket(_), Place::Socket(_)) => SOCKETS,
        (Place::Gpu(one), Place::Gpu(other)) if one == other => SAME_GPU,
        (Place::Gpu(_), Place::Gpu(_)) => GPUS,
        (Place::Socket(socket), Place::Gpu(gpu)) | (Place::Gpu(gpu), Place::Socket(socket)) => {
            if own(gpu) == Some(socket) {
                OWN_GPU
            } else {
                OTHER_GPU
            }
        }
    }
}
