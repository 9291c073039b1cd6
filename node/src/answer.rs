//! Device nodes and environment that a container gets for its devices.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use varia_allocate::Allocation;
use varia_facts::{Bdf, Facts, NodeId, PciFunction};
use varia_linux::Tree;
use varia_linux::inventory::functions_folder;

use crate::device_plugin_api::{ContainerAllocateResponse, DeviceSpec};
use crate::settings::Access;

/// Environment variable with the devices' facts, as JSON.
const FACTS: &str = "VARIA_DEVICES";

/// Facts of a device for the program that starts a VM.
#[derive(Debug, Serialize)]
struct Device {
    bdf: Bdf,
    /// Host's node with the nearest CPUs.
    cpu_node: Option<NodeId>,
    /// Number of NUMA nodes without memory that the VM needs for the device.
    nodes: Option<u32>,
    /// First of the nodes that the host's firmware reserves.
    first_node: Option<u32>,
    /// Sizes of the BARs that the VM sees, in bytes, by index.
    bars: BTreeMap<u8, u64>,
    /// Device node of VFIO.
    node: String,
}

/// Answer for one container.
///
/// # Errors
/// A sentence that names the missing device node and the remedy.
pub(crate) fn answer(
    tree: &Tree,
    facts: &Facts,
    allocation: &Allocation,
    access: Option<Access>,
    resource: &str,
) -> Result<ContainerAllocateResponse, String> {
    let access = access.unwrap_or_else(|| {
        if tree.exists("dev/vfio/vfio") {
            Access::Group
        } else {
            Access::Cdev
        }
    });
    let mut nodes = BTreeSet::new();
    let mut devices = Vec::new();
    for bdf in &allocation.devices {
        let function = facts
            .function(*bdf)
            .ok_or_else(|| format!("{bdf} is gone: ask for another device"))?;
        let node = node(tree, function, access)?;
        nodes.insert(node.clone());
        let memory = function.coherent_memory.as_ref();
        let bars = function.virtual_bars.iter();
        devices.push(Device {
            bdf: *bdf,
            cpu_node: function.cpu_node,
            nodes: memory.and_then(|memory| memory.pxm_count),
            first_node: memory.and_then(|memory| memory.pxm_start),
            bars: bars.map(|bar| (bar.index, bar.size.0)).collect(),
            node,
        });
    }
    nodes.insert(match access {
        Access::Group => "/dev/vfio/vfio".to_owned(),
        Access::Cdev => "/dev/iommu".to_owned(),
    });
    nodes.extend(allocation.egm.iter().cloned());
    for node in &nodes {
        if !tree.exists(node.trim_start_matches('/')) {
            return Err(format!(
                "{node} does not exist: load the module that makes it (vfio, vfio-pci, iommufd or \
                 the EGM driver), and check that this process sees the host's /dev"
            ));
        }
    }
    let addresses: Vec<_> = allocation.devices.iter().map(Bdf::to_string).collect();
    let facts = serde_json::to_string(&devices).map_err(|error| error.to_string())?;
    Ok(ContainerAllocateResponse {
        envs: BTreeMap::from([
            (kubevirt_variable(resource), addresses.join(",")),
            (FACTS.to_owned(), facts),
        ]),
        devices: nodes
            .into_iter()
            .map(|node| DeviceSpec {
                container_path: node.clone(),
                host_path: node,
                permissions: "rw".to_owned(),
            })
            .collect(),
        ..ContainerAllocateResponse::default()
    })
}

/// Device node of a function.
fn node(tree: &Tree, function: &PciFunction, access: Access) -> Result<String, String> {
    let bdf = function.bdf;
    match access {
        Access::Group => {
            let group = function.iommu_group.ok_or_else(|| {
                format!("{bdf} has no IOMMU group: switch the IOMMU on in the firmware's setup")
            })?;
            Ok(format!("/dev/vfio/{group}"))
        }
        Access::Cdev => {
            let folder = format!("{}/vfio-dev", functions_folder(bdf));
            let names = tree.list(&folder).unwrap_or_default();
            let name = names.iter().find(|name| name.starts_with("vfio"));
            let name = name.ok_or_else(|| {
                format!(
                    "{bdf} has no device node of its own: use a kernel with CONFIG_VFIO_DEVICE_CDEV, \
                     or --access group"
                )
            })?;
            Ok(format!("/dev/vfio/devices/{name}"))
        }
    }
}

/// Variable in which virt-launcher reads the addresses of a resource with `externalResourceProvider`.
/// Source: `ResourceNameToEnvVar` in pkg/util of KubeVirt 1.6.
fn kubevirt_variable(resource: &str) -> String {
    let name = resource.to_uppercase().replace(['/', '.'], "_");
    format!("PCI_RESOURCE_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_has_the_name_that_kubevirt_reads() {
        let name = kubevirt_variable("varia.vfio/gh200");
        assert_eq!(name, "PCI_RESOURCE_VARIA_VFIO_GH200");
    }
}
