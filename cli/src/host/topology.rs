//! Topologies of hosts: chip, sockets, and GPUs on each socket.

use varia_facts::Arch;

/// A host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Topology {
    /// Name on the command line.
    pub(crate) name: &'static str,
    /// Profile of the GPUs.
    pub(crate) profile: &'static str,
    /// Architecture.
    pub(crate) arch: Arch,
    /// Number of sockets.
    pub(crate) sockets: u32,
    /// GPUs on each socket.
    pub(crate) gpus: u32,
}

/// All topologies.
pub(crate) const ALL: [Topology; 4] = [
    grace("gh200", "gh200", 1, 1),
    grace("gh200-x4", "gh200", 4, 1),
    grace("gb200-x2", "gb200", 1, 2),
    grace("gb300", "gb300", 1, 1),
];

const fn grace(name: &'static str, profile: &'static str, sockets: u32, gpus: u32) -> Topology {
    Topology {
        name,
        profile,
        arch: Arch::Aarch64,
        sockets,
        gpus,
    }
}

/// The topology with this name.
///
/// # Errors
/// The text of the refusal, which lists all of them.
pub(crate) fn find(name: &str) -> Result<Topology, String> {
    let found = ALL.iter().find(|topology| topology.name == name).copied();
    found.ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|topology| topology.name).collect();
        format!(
            "there is no topology {name:?}: there are {}",
            names.join(", ")
        )
    })
}

impl Topology {
    /// Socket of each GPU.
    pub(crate) fn gpu_sockets(&self) -> impl Iterator<Item = u32> + use<> {
        let each = self.gpus;
        (0..self.sockets * each).map(move |gpu| gpu / each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_shared_out_over_the_sockets() {
        let sockets = |name| -> Vec<u32> { find(name).expect(name).gpu_sockets().collect() };
        assert_eq!(sockets("gb200-x2"), [0, 0]);
        assert_eq!(sockets("gh200-x4"), [0, 1, 2, 3]);
    }

    #[test]
    fn an_unknown_topology_lists_all() {
        let text = find("gb400").expect_err("no topology");
        assert!(
            text.contains("gb400") && text.contains("gh200-x4"),
            "{text}"
        );
    }

    #[test]
    fn every_profile_exists() {
        for topology in ALL {
            varia_silicon::profile::find(topology.profile).expect(topology.name);
        }
    }
}
